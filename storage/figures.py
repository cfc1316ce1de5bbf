"""How much was said and rated, counted by day and by release. Reads only; every count goes by an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.records import Thumb
from storage.tables import answer, rating


def answers_given(session: Session, since: datetime, until: datetime) -> int:
    within = (answer.c.answered_at >= since, answer.c.answered_at < until)
    return int(session.execute(select(func.count()).select_from(answer).where(*within)).scalar_one())


def ratings_given(session: Session, since: datetime, until: datetime) -> int:
    """A rater who changes their mind within that time counts once."""
    within = (rating.c.rated_at >= since, rating.c.rated_at < until, rating.c.thumb != Thumb.WITHDRAWN)
    given = select(rating.c.answer_id, rating.c.user_id).where(*within).distinct().subquery("given")
    return int(session.execute(select(func.count()).select_from(given)).scalar_one())


def raters(session: Session, since: datetime) -> int:
    people = select(func.count(func.distinct(rating.c.user_id))).where(rating.c.rated_at >= since)
    return int(session.execute(people).scalar_one())


def thumbs(session: Session, release_ids: Sequence[int]) -> dict[int, dict[Thumb, int]]:
    """Of each of these releases' answers: how many ratings that count are 👍, and how many 👎."""
    of_releases = answer.c.release_id.in_(release_ids)
    joined = rating.join(answer, rating.c.answer_id == answer.c.id)
    latest = select(func.max(rating.c.id)).select_from(joined).where(of_releases)
    latest = latest.group_by(rating.c.answer_id, rating.c.user_id)
    count = select(answer.c.release_id, rating.c.thumb, func.count()).select_from(joined)
    count = count.where(rating.c.id.in_(latest), rating.c.thumb != Thumb.WITHDRAWN)
    found: dict[int, dict[Thumb, int]] = {each: {Thumb.UP: 0, Thumb.DOWN: 0} for each in release_ids}
    for release_id, thumb, times in session.execute(count.group_by(answer.c.release_id, rating.c.thumb)):
        found[release_id][thumb] = times
    return found
