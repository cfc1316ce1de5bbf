"""Who did what. Inserted only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select

from storage.db import Session
from storage.records import AuditEntry
from storage.rows import add, every
from storage.tables import audit


def record(session: Session, /, user_id: int | None, act: str, at: datetime, **params: Any) -> AuditEntry:
    """`user_id` None: the program itself, or whoever has its terminal."""
    return add(session, AuditEntry, audit, user_id=user_id, act=act, params=params, at=at)


def newest(session: Session, limit: int = 50) -> list[AuditEntry]:
    return every(session, AuditEntry, select(audit).order_by(audit.c.id.desc()).limit(limit))


def of_user(session: Session, user_id: int, act: str) -> list[AuditEntry]:
    """What somebody did of one kind, oldest first."""
    query = select(audit).where(audit.c.user_id == user_id, audit.c.act == act)
    return every(session, AuditEntry, query.order_by(audit.c.id))


def of_act(session: Session, act: str) -> list[AuditEntry]:
    """Oldest first."""
    return every(session, AuditEntry, select(audit).where(audit.c.act == act).order_by(audit.c.id))
