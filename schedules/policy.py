"""Whether a run is due, and if not, why not. Pure: it is given the facts and the clock's next firings.

A run is due when the cron says so, or when enough was rated since the last one; and it is queued when besides there is
enough feedback in all. A firing that was missed is still due: it is computed from the last run, not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

NextFiring = Callable[[datetime], datetime | None]  # the first one after a time; None for a cron that never fires


@dataclass(frozen=True)
class Facts:
    at: datetime
    lane: str
    has_base: bool
    has_weights: bool
    queued_run: int | None
    running_run: int | None
    last_queued_at: datetime | None  # when the lane's newest run was queued, whatever became of it
    since_at: datetime | None  # when the live release began to answer: what a cron counts from before the first run
    ratings: int  # that count, and comparisons
    raters: int
    new_ratings: int  # since last_queued_at
    trainer_lives: bool


@dataclass(frozen=True)
class Bars:
    min_new_ratings: int | None  # None: ratings alone start no run
    min_ratings: int
    min_raters: int


@dataclass(frozen=True)
class Reason:
    """A code for `huigan.texts` with its parameters."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """`reasons` say why not; for a run that is queued, what it will wait for."""

    enqueue: bool
    why: str | None  # schedule or threshold, if it is due
    reasons: tuple[Reason, ...]
    next_at: datetime | None  # the cron's next firing


def decide(facts: Facts, bars: Bars, next_firing: NextFiring | None) -> Decision:
    """`next_firing` None: there is no cron."""
    next_at = next_firing(facts.at) if next_firing else None
    why = _due(facts, bars, next_firing)
    hindrances = _hindrances(facts, bars)
    if why is None:
        return Decision(False, None, (*hindrances, *_not_due(facts, bars, next_at)), next_at)
    if hindrances:
        return Decision(False, why, hindrances, next_at)
    waits = () if facts.trainer_lives else (Reason("no_trainer"),)
    return Decision(True, why, waits, next_at)


def _due(facts: Facts, bars: Bars, next_firing: NextFiring | None) -> str | None:
    counts_from = facts.last_queued_at or facts.since_at
    if next_firing is not None and counts_from is not None:
        fired_at = next_firing(counts_from)
        if fired_at is not None and fired_at <= facts.at:
            return "schedule"
    # Counted from the last run's queueing, so that one that fails is not repeated before more was rated.
    if bars.min_new_ratings is not None and facts.new_ratings >= bars.min_new_ratings:
        return "threshold"
    return None


def _hindrances(facts: Facts, bars: Bars) -> tuple[Reason, ...]:
    """What keeps a due run from being queued."""
    checks = (
        (facts.has_base, Reason("no_base")),
        (facts.has_weights or not facts.has_base, Reason("no_weights")),
        (facts.queued_run is None, Reason("already_queued", {"run": facts.queued_run, "lane": facts.lane})),
        (facts.running_run is None, Reason("already_running", {"run": facts.running_run, "lane": facts.lane})),
        (facts.new_ratings > 0, Reason("nothing_new")),
        (
            facts.ratings >= bars.min_ratings,
            Reason("too_few_ratings", {"have": facts.ratings, "need": bars.min_ratings}),
        ),
        (facts.raters >= bars.min_raters, Reason("too_few_raters", {"have": facts.raters, "need": bars.min_raters})),
    )
    return tuple(reason for holds, reason in checks if not holds)


def _not_due(facts: Facts, bars: Bars, next_at: datetime | None) -> tuple[Reason, ...]:
    reasons = []
    if next_at is not None:
        reasons.append(Reason("not_yet", {"next_at": next_at.isoformat()}))
    if bars.min_new_ratings is not None:
        reasons.append(Reason("too_few_new", {"have": facts.new_ratings, "need": bars.min_new_ratings}))
    return tuple(reasons) or (Reason("no_schedule"),)
