"""An answer in the making: waiting, open, closed. Each move names the state it leaves, so it happens once.

Knows nothing of how an answer is made. That one conversation has one open turn is the database's own rule.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, exists, func, literal, or_, select
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import Ended, Turn, TurnState
from storage.rows import add, every, first
from storage.tables import turn

UNCLOSED = (TurnState.WAITING, TurnState.OPEN)  # named one by one, for no index finds what is *not* closed

OF_ID = select(turn).where(turn.c.id == bindparam("id"))
COUNT_UNCLOSED = select(func.count()).select_from(turn).where(turn.c.state.in_(UNCLOSED))
WAITING_SINCE = select(func.min(turn.c.asked_at)).where(turn.c.state == TurnState.WAITING)


def wait(
    session: Session,
    conversation_id: int,
    message_id: int,
    user_id: int,
    at: datetime,
    *,
    again: bool = False,
    sampled: bool = False,
) -> Turn:
    return add(
        session,
        Turn,
        turn,
        conversation_id=conversation_id,
        message_id=message_id,
        user_id=user_id,
        state=TurnState.WAITING,
        again=again,
        sampled=sampled,
        text="",
        asked_at=at,
    )


def open_next(session: Session, turn_id: int, worker: str, at: datetime) -> Turn | None:
    """Open a waiting turn. None if it waits no longer, or an older one of its conversation is not closed yet."""
    other = turn.alias()
    blocked = exists().where(
        other.c.conversation_id == turn.c.conversation_id, other.c.state.in_(UNCLOSED), other.c.id < turn.c.id
    )
    return first(
        session,
        Turn,
        sql_update(turn)
        .where(turn.c.id == turn_id, turn.c.state == TurnState.WAITING, ~blocked)
        .values(state=TurnState.OPEN, worker=worker, opened_at=at, beat_at=at)
        .returning(turn),
    )


def put_back(session: Session, turn_id: int, worker: str) -> bool:
    """Let an open turn wait again, of which nothing was shown. False if it is no longer this worker's."""
    changed = session.execute(
        sql_update(turn)
        .where(turn.c.id == turn_id, turn.c.state == TurnState.OPEN, turn.c.worker == worker, turn.c.text == "")
        .values(state=TurnState.WAITING, worker=None, opened_at=None, beat_at=None)
        .returning(turn.c.id)
    )
    return changed.first() is not None


def checkpoint(session: Session, turn_id: int, worker: str, text: str, tag: str | None, at: datetime) -> Turn | None:
    """Keep what was shown so far, and beat. None if the turn is no longer this worker's."""
    return first(
        session,
        Turn,
        sql_update(turn)
        .where(turn.c.id == turn_id, turn.c.state == TurnState.OPEN, turn.c.worker == worker)
        .values(text=_longer(text), tag=tag, beat_at=at)
        .returning(turn),
    )


def keep(session: Session, turn_id: int, text: str) -> None:
    """Keep what was shown so far of an open turn."""
    session.execute(
        sql_update(turn).where(turn.c.id == turn_id, turn.c.state == TurnState.OPEN).values(text=_longer(text))
    )


def _longer(text: str) -> ColumnElement[str]:
    """A text only grows: of two that are kept side by side the longer counts, whichever comes last."""
    kept = literal(text, turn.c.text.type)
    return case((func.length(turn.c.text) <= func.length(kept), kept), else_=turn.c.text)


def ask_stop(session: Session, turn_id: int, at: datetime) -> None:
    """The process that has it will see to it."""
    session.execute(
        sql_update(turn).where(turn.c.id == turn_id, turn.c.state != TurnState.CLOSED).values(stop_asked_at=at)
    )


def close(
    session: Session,
    turn_id: int,
    ended: Ended,
    at: datetime,
    *,
    text: str | None = None,
    error: str | None = None,
    tag: str | None = None,
) -> Turn | None:
    """Close a turn that is waiting or open. None if it is closed already: it closes once. `tag`: which was asked."""
    values: dict[str, Any] = {"ended": ended, "error": error}
    values |= {} if text is None else {"text": text}
    values |= {} if tag is None else {"tag": tag}
    return _close(session, turn_id, turn.c.state != TurnState.CLOSED, at, **values)


def withdraw(session: Session, turn_id: int, ended: Ended, at: datetime, *, error: str | None = None) -> Turn | None:
    """Close a turn that still waits. None if somebody has opened it meanwhile."""
    return _close(session, turn_id, turn.c.state == TurnState.WAITING, at, ended=ended, error=error)


def _close(session: Session, turn_id: int, where: ColumnElement[bool], at: datetime, **values: Any) -> Turn | None:
    closed = sql_update(turn).where(turn.c.id == turn_id, where).values(state=TurnState.CLOSED, closed_at=at, **values)
    return first(session, Turn, closed.returning(turn))


def find(session: Session, turn_id: int) -> Turn | None:
    return first(session, Turn, OF_ID, id=turn_id)


def get(session: Session, turn_id: int) -> Turn:
    """Raises LookupError."""
    found = find(session, turn_id)
    if found is None:
        raise LookupError(f"turn {turn_id} is unknown")
    return found


def unclosed(session: Session, conversation_id: int | None = None) -> list[Turn]:
    """Oldest first."""
    query = select(turn).where(turn.c.state.in_(UNCLOSED)).order_by(turn.c.id)
    return every(
        session, Turn, query if conversation_id is None else query.where(turn.c.conversation_id == conversation_id)
    )


def abandoned(session: Session, beaten_before: datetime, at: datetime) -> list[Turn]:
    """Open turns whose worker has not beaten since: it was killed."""
    silent = clocks.silent(turn.c.beat_at, beaten_before, clocks.latest(session, at))
    return every(session, Turn, select(turn).where(turn.c.state == TurnState.OPEN, silent).order_by(turn.c.id))


def of_message(session: Session, message_id: int) -> list[Turn]:
    return every(session, Turn, select(turn).where(turn.c.message_id == message_id).order_by(turn.c.id))


def asked_again(session: Session) -> list[Turn]:
    """Those in which somebody wanted another answer to a message, not those that were sampled to be compared; by id."""
    query = select(turn).where(turn.c.again, ~turn.c.sampled, turn.c.state == TurnState.CLOSED)
    return every(session, Turn, query.order_by(turn.c.id))


def count_asked(session: Session, user_id: int, since: datetime) -> int:
    """What somebody asked for since then and got, in part at least, or will get: what we broke off is not counted."""
    counts = or_(turn.c.ended.is_(None), turn.c.ended.in_((Ended.COMPLETE, Ended.LENGTH, Ended.STOPPED)))
    query = (
        select(func.count())
        .select_from(turn)
        .where(turn.c.user_id == user_id, turn.c.asked_at >= since, ~turn.c.sampled, counts)
    )
    return session.scalar(query) or 0


def waiting_since(session: Session) -> datetime | None:
    """When the one was asked that waits longest to be opened."""
    since: datetime | None = session.scalar(WAITING_SINCE)
    return since


def count_unclosed(session: Session) -> int:
    return session.scalar(COUNT_UNCLOSED) or 0
