"""Whether a run is due, and if not, why not. Pure: it is given the facts, the clock's next firings and its quiet hours.

A run is due when the cron says so, or when enough was rated since the last one. A firing is not remembered but computed
from the last run, so one that was missed, or had to wait, is still due. One that finds too little feedback lapses, and
the next is waited for: a run at three in the night does not start at noon because somebody rated then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

NextFiring = Callable[[datetime], datetime | None]  # the first one after a time; None for a cron that never fires
QuietUntil = Callable[[datetime], datetime | None]  # when the quiet hours end that a time is in; None if it is in none

# What each method learns from, and the parameters of its reason. `auto` takes any that there is enough of.
LEARNS_FROM = {"sft": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "thumbs"}
# A due run waits for these to pass; whatever else hinders it lets the firing lapse.
BY_THE_CLOCK = frozenset({"quiet_hours", "cooling_down"})
PASSING = frozenset({"already_queued", "already_running", "quiet_hours", "cooling_down"})


@dataclass(frozen=True)
class Facts:
    at: datetime
    lane: str
    has_base: bool
    has_weights: bool
    queued_run: int | None
    running_run: int | None
    last_queued_at: datetime | None  # when the lane's newest run was queued, whatever became of it
    last_ended_at: datetime | None  # when it let go of the machine
    since_at: datetime | None  # when the live release began to answer: what a cron counts from before the first run
    lapsed_at: datetime | None  # up to when firings found too little feedback
    ratings: int  # that count, and comparisons
    raters: int
    new_ratings: int  # since last_queued_at
    kinds: Mapping[str, int]  # answers, pairs and thumbs that the ratings give
    trainer_lives: bool
    cron_set_at: datetime | None = None  # since when the cron and its zone hold: what it counts from, too
    tried_release: int | None = None  # what is on trial: a run that ends meanwhile would take its place


@dataclass(frozen=True)
class Bars:
    min_new_ratings: int | None  # None: ratings alone start no run
    min_ratings: int
    min_raters: int
    method: str = "auto"
    min_kinds: Mapping[str, int] = field(default_factory=dict)  # by kind; none for one that is not named
    cool_down: timedelta = timedelta(0)  # from the end of a run to the next that starts by itself


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
    due_at: datetime | None = None  # the firing that is due
    lapses: bool = False  # it is due no more, for want of feedback
    starts_at: datetime | None = None  # when the next run can start by itself, as far as time alone decides


def decide(
    facts: Facts, bars: Bars, next_firing: NextFiring | None, quiet_until: QuietUntil = lambda _: None
) -> Decision:
    """`next_firing` None: there is no cron."""
    next_at = next_firing(facts.at) if next_firing else None
    due_at = _fired_at(facts, next_firing)
    enough_new = bars.min_new_ratings is not None and facts.new_ratings >= bars.min_new_ratings
    # Counted from the last run's queueing, so that one that fails is not repeated before more was rated.
    why = "schedule" if due_at is not None else "threshold" if enough_new else None
    hindrances = (*_waiting(facts, bars, quiet_until), *_lacking(facts, bars))
    lapses = due_at is not None and any(each.code not in PASSING for each in hindrances)
    starts_at = None if next_at is None else can_start(facts, bars, quiet_until, next_at)
    if why is None:
        return Decision(False, None, (*hindrances, *_not_due(facts, bars, next_at)), next_at, starts_at=starts_at)
    if hindrances:
        if all(each.code in BY_THE_CLOCK for each in hindrances):
            starts_at = can_start(facts, bars, quiet_until, facts.at)
        return Decision(False, why, hindrances, next_at, due_at, lapses, starts_at)
    waits = () if facts.trainer_lives else (Reason("no_trainer"),)
    return Decision(True, why, waits, next_at, due_at, starts_at=starts_at)


def can_start(facts: Facts, bars: Bars, quiet_until: QuietUntil, at: datetime) -> datetime:
    """When one that is due at `at` can start: then, or once it has cooled down and the quiet hours are over."""
    cooled_at = at if facts.last_ended_at is None else max(at, facts.last_ended_at + bars.cool_down)
    return quiet_until(cooled_at) or cooled_at


def _fired_at(facts: Facts, next_firing: NextFiring | None) -> datetime | None:
    """The oldest firing that no run was queued for and that has not lapsed."""
    began_at = facts.last_queued_at or facts.since_at
    if next_firing is None or began_at is None:
        return None
    # 02:30, written at noon, was not missed this morning.
    fired_at = next_firing(max(filter(None, (began_at, facts.lapsed_at, facts.cron_set_at))))
    return fired_at if fired_at is not None and fired_at <= facts.at else None


def _lacking(facts: Facts, bars: Bars) -> Iterator[Reason]:
    """What a run would fail for want of, or is not worth its while without."""
    if not facts.has_base:
        yield Reason("no_base")
    elif not facts.has_weights:
        yield Reason("no_weights")
    if facts.tried_release is not None:  # for days: the firings meanwhile lapse
        yield Reason("on_trial", {"release": facts.tried_release})
    if not facts.new_ratings:
        yield Reason("nothing_new")
    if facts.ratings < bars.min_ratings:
        yield Reason("too_few_ratings", {"have": facts.ratings, "need": bars.min_ratings})
    if facts.raters < bars.min_raters:
        yield Reason("too_few_raters", {"have": facts.raters, "need": bars.min_raters})
    yield from _too_few_kinds(facts, bars)


def _too_few_kinds(facts: Facts, bars: Bars) -> Iterator[Reason]:
    have = {kind: facts.kinds.get(kind, 0) for kind in LEARNS_FROM.values()}
    need = {kind: bars.min_kinds.get(kind, 0) for kind in have}
    if bars.method == "auto":
        if all(have[kind] < need[kind] for kind in have):
            yield Reason("too_few_of_each", {**have, **{f"need_{kind}": count for kind, count in need.items()}})
        return
    kind = LEARNS_FROM[bars.method]
    if have[kind] < need[kind]:
        figures = {"have": have[kind], "need": need[kind]}
        match kind:
            case "answers":
                yield Reason("too_few_answers", figures)
            case "pairs":
                yield Reason("too_few_pairs", figures)
            case _:
                yield Reason("too_few_thumbs", figures)


def _waiting(facts: Facts, bars: Bars, quiet_until: QuietUntil) -> Iterator[Reason]:
    """What passes by itself."""
    if facts.queued_run is not None:
        yield Reason("already_queued", {"run": facts.queued_run, "lane": facts.lane})
    if facts.running_run is not None:
        yield Reason("already_running", {"run": facts.running_run, "lane": facts.lane})
    if facts.last_ended_at is not None and facts.at < (cooled_at := facts.last_ended_at + bars.cool_down):
        yield Reason("cooling_down", {"until": cooled_at.isoformat()})
    if (until := quiet_until(facts.at)) is not None:
        yield Reason("quiet_hours", {"until": until.isoformat()})


def _not_due(facts: Facts, bars: Bars, next_at: datetime | None) -> tuple[Reason, ...]:
    reasons = []
    if next_at is not None:
        reasons.append(Reason("not_yet", {"next_at": next_at.isoformat()}))
    if bars.min_new_ratings is not None:
        reasons.append(Reason("too_few_new", {"have": facts.new_ratings, "need": bars.min_new_ratings}))
    return tuple(reasons) or (Reason("no_schedule"),)
