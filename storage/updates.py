"""What Telegram sent, stored before Telegram is told that we have it. Knows nothing of what is in it.

Several processes may receive for one bot. Each update belongs to the process that stored it, for as long as that one
beats; updates of one key are handled in their order, whichever process has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import Update
from storage.rows import add_once, every, first
from storage.tables import update

_open = update.c.handled_at.is_(None)
# A key is chat:thread:person; these follow it where an update has a lane of its own.
LANES = ("", ":rating", ":stop", ":%:%:reaction")


class Place(StrEnum):
    """Where an update stands among those of its key."""

    NEXT = "next"
    BEHIND = "behind"  # an older one is not handled yet, by this process or another
    GONE = "gone"  # it is handled, or another process has it now


def of_person(external_id: str) -> ColumnElement[bool]:
    """Whatever that person sent."""
    name = re.sub(r"([\\%_])", r"\\\1", external_id)
    return or_(*(update.c.key.like(f"%:%:{name}{lane}", escape="\\") for lane in LANES))


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


def received_at(session: Session, update_id: int) -> datetime | None:
    """None where it is not there any more."""
    query = select(update.c.received_at).where(update.c.update_id == update_id)
    return session.execute(query).scalar_one_or_none()


def is_open(session: Session, update_id: int) -> bool:
    """Whether it is there, and not handled or dropped yet."""
    return session.execute(select(update.c.update_id).where(_open, update.c.update_id == update_id)).first() is not None


def following(session: Session, update_id: int) -> list[Update] | None:
    """What came after it under the same key and is not handled yet, whichever process has it, oldest first. None where
    it is not open itself any more."""
    own = first(session, Update, select(update).where(_open, update.c.update_id == update_id))
    if own is None or own.key is None:
        return None if own is None else []
    newer = (update.c.key == own.key) & (update.c.update_id > update_id) & _open
    return every(session, Update, select(update).where(newer).order_by(update.c.update_id))


def since(session: Session, update_id: int, limit: int) -> list[Update]:
    """An update and what came after it under its key, handled or not, oldest first. Nothing where it is forgotten."""
    key = session.scalar(select(update.c.key).where(update.c.update_id == update_id))
    kept = update.c.key.is_not(None) & (update.c.key == key) & (update.c.update_id >= update_id)
    return every(session, Update, select(update).where(kept).order_by(update.c.update_id).limit(limit))


def before(session: Session, update_id: int, keys_like: str) -> list[Update]:
    """What came before it under such keys (as LIKE takes them) and is not handled yet, oldest first."""
    older = (update.c.update_id < update_id) & update.c.key.like(keys_like) & _open
    return every(session, Update, select(update).where(older).order_by(update.c.update_id))


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
        beat_at = func.coalesce(update.c.beat_at, update.c.received_at)
        lost &= clocks.silent(beat_at, beaten_before, clocks.latest(session, at))
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


def count_unhandled(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(update).where(update.c.handled_at.is_(None))) or 0


def prune(session: Session, handled_before: datetime) -> int:
    """Forget what was handled before then. Returns how many."""
    gone = session.execute(delete(update).where(update.c.handled_at < handled_before).returning(update.c.update_id))
    return len(gone.all())
