"""What Telegram sent, stored before Telegram is told that we have it. Knows nothing of what is in it.

Several processes may receive for one bot. Each update belongs to the process that stored it, for as long as that one
beats; updates of one key are handled in their order, whichever process has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from storage.records import Update
from storage.rows import add_once, every, first
from storage.tables import update


class Place(StrEnum):
    """Where an update stands among those of its key."""

    NEXT = "next"
    BEHIND = "behind"  # an older one is not handled yet, by this process or another
    GONE = "gone"  # it is handled, or another process has it now


def store(
    session: Session,
    update_id: int,
    body: Mapping[str, Any],
    at: datetime,
    *,
    key: str | None = None,
    worker: str | None = None,
) -> bool:
    """True if it is new: Telegram repeats what it is not sure we have."""
    beat_at = None if worker is None else at
    values = {"update_id": update_id, "body": dict(body), "key": key, "worker": worker, "beat_at": beat_at}
    return add_once(session, Update, update, **values, received_at=at) is not None


def place(session: Session, update_id: int, worker: str) -> Place:
    own = first(session, Update, select(update).where(update.c.update_id == update_id))
    if own is None or own.handled_at is not None or own.worker != worker:
        return Place.GONE
    older = select(update.c.update_id).where(
        update.c.key == own.key, update.c.update_id < update_id, update.c.handled_at.is_(None)
    )
    return Place.NEXT if session.execute(older.limit(1)).first() is None else Place.BEHIND


def mark_handled(session: Session, update_id: int, at: datetime) -> bool:
    """True the first time."""
    changed = session.execute(
        sql_update(update)
        .where(update.c.update_id == update_id, update.c.handled_at.is_(None))
        .values(handled_at=at)
        .returning(update.c.update_id)
    )
    return changed.first() is not None


def following(session: Session, update_id: int) -> list[Update]:
    """What came after it under the same key and is not handled yet, whichever process has it, oldest first."""
    own = first(session, Update, select(update).where(update.c.update_id == update_id))
    if own is None or own.key is None:
        return []
    newer = (update.c.key == own.key) & (update.c.update_id > update_id) & update.c.handled_at.is_(None)
    return every(session, Update, select(update).where(newer).order_by(update.c.update_id))


def beat(session: Session, worker: str, at: datetime) -> None:
    """What this process has and has not handled yet stays its own."""
    session.execute(
        sql_update(update).where(update.c.worker == worker, update.c.handled_at.is_(None)).values(beat_at=at)
    )


def adopt(session: Session, worker: str, beaten_before: datetime | None, at: datetime) -> list[Update]:
    """Take over what other processes left undone, oldest first: those that have not beaten since `beaten_before`, or
    all of them, where no other can live (None)."""
    lost = update.c.worker.is_distinct_from(worker)
    if beaten_before is not None:
        lost &= or_(
            update.c.beat_at < beaten_before, update.c.beat_at.is_(None) & (update.c.received_at < beaten_before)
        )
    taken = every(
        session,
        Update,
        sql_update(update)
        .where(update.c.handled_at.is_(None), lost)
        .values(worker=worker, beat_at=at)
        .returning(update),
    )
    return sorted(taken, key=lambda each: each.update_id)


def unhandled(session: Session) -> list[Update]:
    """Oldest first."""
    return every(session, Update, select(update).where(update.c.handled_at.is_(None)).order_by(update.c.update_id))


def prune(session: Session, handled_before: datetime) -> int:
    """Forget what was handled before then. Returns how many."""
    gone = session.execute(delete(update).where(update.c.handled_at < handled_before).returning(update.c.update_id))
    return len(gone.all())
