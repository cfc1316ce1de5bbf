"""What a canary, and a live release, are judged by: thumbs, picks, failures and waiting, of releases by name.

Reads only. A conversation counts once, by the first thumb in it, and a message once, by the first pick: what was
counted is never rewritten, so whoever looks often sees one history.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select

from storage.db import Session
from storage.records import Ended, Pick, Thumb
from storage.rows import every
from storage.tables import answer, comparison, rating, turn

# What a release can be blamed for. That Ollama is away or busy, or our process ended, is no release's doing.
BLAMED = ("crashed", "empty_answer", "out_of_memory", "refused", "stalled", "unknown_tag")
UNHURRIED = "num_gpu"  # an option of answers that were given by the CPU, beside a training

# Asked at each look of schedules, and so built once.
_rated = rating.join(answer, rating.c.answer_id == answer.c.id)
_earliest = (
    select(func.min(rating.c.id))
    .select_from(_rated)
    .where(
        answer.c.release_id.in_(bindparam("releases", expanding=True)),
        answer.c.answered_at >= bindparam("since"),
        rating.c.thumb != Thumb.WITHDRAWN,
    )
    .group_by(answer.c.conversation_id)
)
FIRST_THUMBS = (
    select(answer.c.conversation_id, rating.c.user_id, answer.c.release_id, rating.c.thumb, answer.c.answered_at)
    .select_from(_rated)
    .where(rating.c.id.in_(_earliest))
    .order_by(rating.c.id.desc())
    .limit(bindparam("limit"))
)
ENDINGS = (
    select(turn.c.ended, turn.c.error, func.count())
    .where(
        turn.c.tag == bindparam("tag"), turn.c.closed_at >= bindparam("since"), turn.c.closed_at < bindparam("until")
    )
    .group_by(turn.c.ended, turn.c.error)
)
WAITS = (
    select(answer.c.first_token_seconds, answer.c.total_seconds, answer.c.answer_tokens, answer.c.options)
    .where(
        answer.c.release_id == bindparam("release"),
        answer.c.answered_at >= bindparam("since"),
        answer.c.answered_at < bindparam("until"),
    )
    .order_by(answer.c.id.desc())
    .limit(bindparam("limit"))
)


@dataclass(frozen=True)
class FirstThumb:
    conversation_id: int
    user_id: int
    release_id: int
    thumb: Thumb
    answered_at: datetime


@dataclass(frozen=True)
class FirstPick:
    user_id: int
    chosen_release_id: int | None  # None: neither was better


@dataclass(frozen=True)
class Waited:
    first_token_seconds: float | None
    total_seconds: float | None
    answer_tokens: int | None
    options: dict[str, Any]

    @property
    def by_the_cpu(self) -> bool:
        return UNHURRIED in self.options


def first_thumbs(session: Session, release_ids: Collection[int], since: datetime, limit: int) -> list[FirstThumb]:
    """Of conversations in which one of these releases answered since then: the newest so many, oldest first."""
    return every(session, FirstThumb, FIRST_THUMBS, releases=list(release_ids), since=since, limit=limit)[::-1]


def first_picks(session: Session, releases: tuple[int, int], since: datetime, limit: int) -> list[FirstPick]:
    """Between an answer of the one and one of the other, both given since then: oldest first."""
    left, right = answer.alias(), answer.alias()
    joined = comparison.join(left, comparison.c.left_answer_id == left.c.id)
    joined = joined.join(right, comparison.c.right_answer_id == right.c.id)
    between = (
        left.c.release_id.in_(releases),
        right.c.release_id.in_(releases),
        left.c.release_id != right.c.release_id,
        left.c.answered_at >= since,
        right.c.answered_at >= since,
    )
    earliest = select(func.min(comparison.c.id)).select_from(joined).where(*between).group_by(comparison.c.message_id)
    columns = (comparison.c.user_id, comparison.c.pick, left.c.release_id, right.c.release_id)
    query = select(*columns).select_from(joined).where(comparison.c.id.in_(earliest))
    rows = session.execute(query.order_by(comparison.c.id.desc()).limit(limit)).all()[::-1]
    chosen = {Pick.LEFT: 2, Pick.RIGHT: 3}
    return [FirstPick(row[0], row[chosen[row[1]]] if row[1] in chosen else None) for row in rows]


def endings(session: Session, tag: str, since: datetime, until: datetime) -> tuple[int, int]:
    """How many turns that asked this tag ended on their own, and how many of these it failed."""
    ended = failed = 0
    for how, error, times in session.execute(ENDINGS, {"tag": tag, "since": since, "until": until}):
        is_failed = how in {Ended.BROKEN, Ended.FAILED} and error in BLAMED
        ended += times if is_failed or how in {Ended.COMPLETE, Ended.LENGTH, Ended.STOPPED} else 0
        failed += times if is_failed else 0
    return ended, failed


def waits(session: Session, release_id: int, since: datetime, until: datetime, limit: int) -> list[Waited]:
    """How long its answers took, newest first."""
    return every(session, Waited, WAITS, release=release_id, since=since, until=until, limit=limit)
