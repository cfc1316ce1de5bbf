"""How much was said and rated, counted by day and by release. Reads only; every count goes by an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from storage.db import Session
from storage.records import RunState, Thumb, TurnState
from storage.tables import answer, rating, run, turn

NEWEST_TURNS = 5000  # of which the recent ones are counted: there is no index for when a turn closed


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


def thumbs_counting(session: Session) -> dict[Thumb, int]:
    """Of all answers: how many ratings that count are 👍, and how many 👎."""
    latest = select(func.max(rating.c.id)).group_by(rating.c.answer_id, rating.c.user_id)
    count = select(rating.c.thumb, func.count()).where(rating.c.id.in_(latest), rating.c.thumb != Thumb.WITHDRAWN)
    found = {Thumb.UP: 0, Thumb.DOWN: 0}
    found.update((thumb, times) for thumb, times in session.execute(count.group_by(rating.c.thumb)))
    return found


def turns_ended(session: Session, since: datetime) -> dict[tuple[str, str], int]:
    """How many turns were closed since, by how they ended and by the error's code ("" for none)."""
    newest = select(turn).order_by(turn.c.id.desc()).limit(NEWEST_TURNS).subquery("newest")
    count = select(newest.c.ended, newest.c.error, func.count())
    count = count.where(newest.c.state == TurnState.CLOSED, newest.c.closed_at >= since)
    rows = session.execute(count.group_by(newest.c.ended, newest.c.error))
    return {(ended.value if ended else "", error or ""): times for ended, error, times in rows}


def speeds(session: Session, since: datetime) -> list[tuple[float, float, int]]:
    """(seconds to the first token, seconds in all, tokens) of each answer that was given since."""
    measured = (answer.c.first_token_seconds, answer.c.total_seconds, answer.c.answer_tokens)
    known = (each.is_not(None) for each in measured)
    rows = session.execute(select(*measured).where(answer.c.answered_at >= since, *known))
    return [(first, total, tokens) for first, total, tokens in rows]


def runs_by_state(session: Session) -> dict[RunState, int]:
    found = dict.fromkeys(RunState, 0)
    rows = session.execute(select(run.c.state, func.count()).group_by(run.c.state))
    found.update((state, times) for state, times in rows)
    return found
