"""What a channel has begun to show and must show to its end, also after it was killed. Knows no channel's calls.

A showing begins in the transaction that stores its turn and is finished once the channel took the last part of the
answer, or can never take it. What is unfinished is picked up at the next start.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from storage.records import Showing
from storage.rows import add_once, every, first
from storage.tables import showing


def begin(session: Session, turn_id: int, channel: str, at: datetime) -> None:
    """Begun twice, it is one showing."""
    add_once(session, Showing, showing, turn_id=turn_id, channel=channel, begun_at=at)


def place(session: Session, turn_id: int, message: str) -> None:
    """The channel message in which it is shown."""
    session.execute(sql_update(showing).where(showing.c.turn_id == turn_id).values(message=message))


def finish(session: Session, turn_id: int, at: datetime) -> None:
    session.execute(sql_update(showing).where(showing.c.turn_id == turn_id).values(finished_at=at))


def find(session: Session, turn_id: int) -> Showing | None:
    return first(session, Showing, select(showing).where(showing.c.turn_id == turn_id))


def unfinished(session: Session, channel: str) -> list[Showing]:
    """Oldest first."""
    query = select(showing).where(showing.c.channel == channel, showing.c.finished_at.is_(None))
    return every(session, Showing, query.order_by(showing.c.turn_id))
