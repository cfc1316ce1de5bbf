"""What Telegram sent, stored before Telegram is told that we have it. Knows nothing of what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from storage.records import Update
from storage.rows import add_once, every
from storage.tables import update


def store(session: Session, update_id: int, body: Mapping[str, Any], at: datetime) -> bool:
    """True if it is new: Telegram repeats what it is not sure we have."""
    return add_once(session, Update, update, update_id=update_id, body=dict(body), received_at=at) is not None


def mark_handled(session: Session, update_id: int, at: datetime) -> bool:
    """True the first time."""
    changed = session.execute(
        sql_update(update)
        .where(update.c.update_id == update_id, update.c.handled_at.is_(None))
        .values(handled_at=at)
        .returning(update.c.update_id)
    )
    return changed.first() is not None


def unhandled(session: Session) -> list[Update]:
    """Oldest first: what a kill left undone."""
    return every(session, Update, select(update).where(update.c.handled_at.is_(None)).order_by(update.c.update_id))


def prune(session: Session, handled_before: datetime) -> int:
    """Forget what was handled before then. Returns how many."""
    gone = session.execute(delete(update).where(update.c.handled_at < handled_before).returning(update.c.update_id))
    return len(gone.all())
