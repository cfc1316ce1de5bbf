"""What a channel has begun to show and must show to its end, also after it was killed. Knows no channel's calls.

A showing begins in the transaction that stores its turn and is finished once the channel took the last part of the
answer, or can never take it. What is unfinished is picked up at the next start.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import Showing
from storage.rows import add_once, every, first
from storage.tables import showing, turn


def begin(session: Session, turn_id: int, channel: str, at: datetime) -> None:
    """Begun twice, it is one showing."""
    add_once(session, Showing, showing, turn_id=turn_id, channel=channel, begun_at=at)


def claim(session: Session, turn_id: int, worker: str, beaten_before: datetime | None, at: datetime) -> bool:
    """Make it this process' own, for as long as that one beats. False while it is another's, or finished."""
    claimed = session.execute(
        sql_update(showing)
        .where(showing.c.turn_id == turn_id, showing.c.finished_at.is_(None), _free(session, worker, beaten_before, at))
        .values(worker=worker, beat_at=at)
        .returning(showing.c.turn_id)
    )
    return claimed.first() is not None


def beat(session: Session, worker: str, at: datetime) -> None:
    """What this process shows stays its own."""
    session.execute(
        sql_update(showing).where(showing.c.worker == worker, showing.c.finished_at.is_(None)).values(beat_at=at)
    )


def place(session: Session, turn_id: int, message: str) -> None:
    """The channel messages in which it is shown: those done, each with a comma after it, and one that grows."""
    session.execute(sql_update(showing).where(showing.c.turn_id == turn_id).values(message=message))


def finish(session: Session, turn_id: int, at: datetime) -> None:
    session.execute(sql_update(showing).where(showing.c.turn_id == turn_id).values(finished_at=at))


def find(session: Session, turn_id: int) -> Showing | None:
    return first(session, Showing, select(showing).where(showing.c.turn_id == turn_id))


def is_preceded(session: Session, turn_id: int) -> bool:
    """Whether an older turn of its conversation is still to have its place among the channel's messages: answers come
    in the order of their questions, whichever process shows which."""
    is_without = or_(showing.c.message.is_(None), showing.c.message.endswith(","))
    older, own = turn.alias(), turn.alias()
    query = (
        select(showing.c.turn_id)
        .join(older, older.c.id == showing.c.turn_id)
        .join(own, own.c.conversation_id == older.c.conversation_id)
        .where(own.c.id == turn_id, older.c.id < turn_id, showing.c.finished_at.is_(None), is_without)
    )
    return session.execute(query.limit(1)).first() is not None


def _free(session: Session, worker: str, beaten_before: datetime | None, at: datetime | None) -> ColumnElement[bool]:
    """That `worker` may claim: nobody's, its own, and those of processes that have not beaten since; all, where no
    other process lives (None)."""
    if beaten_before is None or at is None:
        return true()
    silent = clocks.silent(showing.c.beat_at, beaten_before, clocks.latest(session, at))
    return or_(showing.c.worker.is_(None), showing.c.worker == worker, silent)


def unfinished(
    session: Session,
    channel: str,
    worker: str = "",
    beaten_before: datetime | None = None,
    at: datetime | None = None,
) -> list[Showing]:
    """Those that `worker` may claim, oldest first."""
    query = select(showing).where(
        showing.c.channel == channel, showing.c.finished_at.is_(None), _free(session, worker, beaten_before, at)
    )
    return every(session, Showing, query.order_by(showing.c.turn_id))
