"""What raters said of answers. Inserted only; of one rater on one answer the newest row counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Select, bindparam, func, select

from storage.db import Session
from storage.records import Rating, Reason, Thumb
from storage.rows import add as add_row
from storage.rows import batches, every, first
from storage.tables import rating

# Asked at each look of schedules, and so built once.
_counts = rating.c.id.in_(select(func.max(rating.c.id)).group_by(rating.c.answer_id, rating.c.user_id)) & (
    rating.c.thumb != Thumb.WITHDRAWN
)
_corrected = rating.c.correction.is_not(None)
COUNT = select(func.count()).where(_counts)
COUNT_SINCE = COUNT.where(rating.c.rated_at > bindparam("since"))
RATERS_AFTER = select(func.count(func.distinct(rating.c.user_id))).where(rating.c.id > bindparam("after"))
NEWEST = (
    select(rating)
    .where(rating.c.answer_id == bindparam("answer"), rating.c.user_id == bindparam("user"))
    .order_by(rating.c.id.desc())
    .limit(1)
)
LIKED_AND_CORRECTED = select(
    func.count().filter((rating.c.thumb == Thumb.UP) & ~_corrected), func.count().filter(_corrected)
).where(_counts)


def add(
    session: Session,
    answer_id: int,
    user_id: int,
    thumb: Thumb,
    at: datetime,
    *,
    reason: Reason | None = None,
    correction: str | None = None,
) -> Rating:
    values = {
        "answer_id": answer_id,
        "user_id": user_id,
        "thumb": thumb,
        "reason": reason,
        "correction": correction,
        "rated_at": at,
    }
    return add_row(session, Rating, rating, **values)


def newest(session: Session, answer_id: int, user_id: int) -> Rating | None:
    """What that rater says of that answer now; a withdrawn rating is returned as such."""
    return first(session, Rating, NEWEST, answer=answer_id, user=user_id)


def newest_given(session: Session, answer_id: int, user_id: int) -> Rating | None:
    """What that rater said last that was no withdrawal."""
    return first(session, Rating, NEWEST.where(rating.c.thumb != Thumb.WITHDRAWN), answer=answer_id, user=user_id)


def newest_correction(session: Session, answer_id: int, user_id: int) -> Rating | None:
    """What they wrote last, whether or not it counts still."""
    return first(session, Rating, NEWEST.where(_corrected), answer=answer_id, user=user_id)


def counting(
    session: Session, *, after: int = 0, up_to: int | None = None, answer_ids: Iterable[int] | None = None
) -> list[Rating]:
    """The ratings that count, by id: the newest of each rater on each answer, unless it is withdrawn.

    `up_to` is a watermark: later rows are as if they had not been written. `after` keeps those with a greater id.
    """
    latest = select(func.max(rating.c.id)).group_by(rating.c.answer_id, rating.c.user_id)
    if up_to is not None:
        latest = latest.where(rating.c.id <= up_to)
    if answer_ids is None:
        return every(session, Rating, _those(latest, after))
    # Within the grouping too: one conversation's ratings are found without looking at everybody's.
    parts = (_those(latest.where(rating.c.answer_id.in_(ids)), after) for ids in batches(answer_ids))
    return sorted((found for part in parts for found in every(session, Rating, part)), key=lambda each: each.id)


def _those(latest: Select[tuple[int]], after: int) -> Select[tuple[object, ...]]:
    query: Select[tuple[object, ...]] = select(rating).where(rating.c.id.in_(latest), rating.c.id > after)
    return query.where(rating.c.thumb != Thumb.WITHDRAWN).order_by(rating.c.id)


def count(session: Session, since: datetime | None = None) -> int:
    """How many ratings count, of those given after `since`."""
    if since is None:
        return session.execute(COUNT).scalar_one()
    return session.execute(COUNT_SINCE, {"since": since}).scalar_one()


def liked_and_corrected(session: Session) -> tuple[int, int]:
    """Of the ratings that count: how many are 👍 without a correction, and how many have one."""
    liked, corrections = session.execute(LIKED_AND_CORRECTED).one()
    return liked, corrections


def watermark(session: Session) -> int:
    """The id of the newest rating, 0 if there is none."""
    return int(session.execute(select(func.coalesce(func.max(rating.c.id), 0))).scalar_one())


def get(session: Session, rating_id: int) -> Rating:
    """Raises LookupError."""
    found = first(session, Rating, select(rating).where(rating.c.id == rating_id))
    if found is None:
        raise LookupError(f"rating {rating_id} is unknown")
    return found


def many(session: Session, rating_ids: Iterable[int]) -> dict[int, Rating]:
    """Also ratings that no longer count: an answer may have been given to a correction that was changed since."""
    queries = (select(rating).where(rating.c.id.in_(ids)) for ids in batches(rating_ids))
    return {found.id: found for query in queries for found in every(session, Rating, query)}


def raters(session: Session, *, after: int = 0) -> int:
    """How many people rated since."""
    return session.execute(RATERS_AFTER, {"after": after}).scalar_one()


def of_user(session: Session, user_id: int) -> list[Rating]:
    """All that they ever gave, oldest first."""
    return every(session, Rating, select(rating).where(rating.c.user_id == user_id).order_by(rating.c.id))
