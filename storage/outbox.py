"""Notices that the bot is to send: codes with parameters, put where the news arises, sent wherever a bot lives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from storage.records import Notice
from storage.rows import add_once, every
from storage.tables import outbox


def put(
    session: Session,
    code: str,
    params: Mapping[str, Any],
    at: datetime,
    *,
    user_id: int | None = None,
    key: str | None = None,
) -> Notice | None:
    """For one user, or for every admin. With a `key`, the same notice is put once: None the second time."""
    return add_once(session, Notice, outbox, code=code, params=dict(params), user_id=user_id, key=key, created_at=at)


def unsent(session: Session, limit: int = 50) -> list[Notice]:
    return every(session, Notice, select(outbox).where(outbox.c.sent_at.is_(None)).order_by(outbox.c.id).limit(limit))


def mark_sent(session: Session, notice_id: int, at: datetime) -> None:
    session.execute(sql_update(outbox).where(outbox.c.id == notice_id).values(sent_at=at))
