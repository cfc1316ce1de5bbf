"""Which of two answers to one message was picked, and in which order they were shown. Inserted only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, bindparam, func, select

from storage.db import Session
from storage.records import Comparison, Pick
from storage.rows import add as add_row
from storage.rows import batches, every, first
from storage.tables import comparison

COUNT = select(func.count()).select_from(comparison)
COUNT_SINCE = COUNT.where(comparison.c.picked_at > bindparam("since"))
DECIDED = COUNT.where(comparison.c.pick != Pick.TIE)


def add(
    session: Session, message_id: int, left_answer_id: int, right_answer_id: int, user_id: int, pick: Pick, at: datetime
) -> Comparison:
    values = {"message_id": message_id, "left_answer_id": left_answer_id, "right_answer_id": right_answer_id}
    return add_row(session, Comparison, comparison, **values, user_id=user_id, pick=pick, picked_at=at)


def counting(
    session: Session, *, after: int = 0, up_to: int | None = None, of_messages: list[int] | None = None
) -> list[Comparison]:
    """By id: the newest of each rater on each pair, whichever side each answer was shown on."""
    low, high = comparison.c.left_answer_id, comparison.c.right_answer_id
    pair = (
        (func.min(low, high), func.max(low, high))
        if session.dialect.name == "sqlite"
        else (
            func.least(low, high),
            func.greatest(low, high),
        )
    )
    latest = select(func.max(comparison.c.id)).group_by(comparison.c.user_id, *pair)
    if up_to is not None:
        latest = latest.where(comparison.c.id <= up_to)
    if of_messages is None:
        return every(session, Comparison, _those(latest, after))
    # Within the grouping too: one conversation's picks are found without looking at everybody's.
    parts = (_those(latest.where(comparison.c.message_id.in_(ids)), after) for ids in batches(of_messages))
    return sorted((found for part in parts for found in every(session, Comparison, part)), key=lambda each: each.id)


def _those(latest: Select[tuple[int]], after: int) -> Select[tuple[object, ...]]:
    query: Select[tuple[object, ...]] = select(comparison)
    return query.where(comparison.c.id.in_(latest), comparison.c.id > after).order_by(comparison.c.id)


def newest(session: Session, left_answer_id: int, right_answer_id: int, user_id: int) -> Comparison | None:
    """What that rater picked last of that pair, whichever side each answer was shown on."""
    pair = (left_answer_id, right_answer_id)
    query = select(comparison).where(
        comparison.c.left_answer_id.in_(pair), comparison.c.right_answer_id.in_(pair), comparison.c.user_id == user_id
    )
    return first(session, Comparison, query.order_by(comparison.c.id.desc()).limit(1))


def count(session: Session, since: datetime | None = None) -> int:
    """How many were picked after `since`; a pair that somebody picked twice counts twice."""
    if since is None:
        return session.execute(COUNT).scalar_one()
    return session.execute(COUNT_SINCE, {"since": since}).scalar_one()


def decided(session: Session) -> int:
    """How many picked one of the two; a pair that somebody picked twice counts twice."""
    return session.execute(DECIDED).scalar_one()


def watermark(session: Session) -> int:
    return int(session.execute(select(func.coalesce(func.max(comparison.c.id), 0))).scalar_one())


def of_user(session: Session, user_id: int) -> list[Comparison]:
    """Oldest first."""
    return every(
        session, Comparison, select(comparison).where(comparison.c.user_id == user_id).order_by(comparison.c.id)
    )
