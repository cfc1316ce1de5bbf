"""What becomes of a release that is tried on people, and of one that answers all: decided from figures. Pure.

Thumbs and picks are judged by bets, which may be looked at every half minute: see huigan.operate.betting. Failures and
waiting are held against bars, wide enough to be looked at as often: three standard errors, medians.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from huigan.operate import betting
from huigan.operate.betting import Thumbed
from huigan.operate.statistics import wilson
from storage.release_policy import Canary, Rollback

FAILURES_Z = 3.0  # standard errors
OF_THUMBS = ("thumbs_for", "thumbs_against", "thumbs_undecided")
OF_PICKS = ("picks_for", "picks_against", "picks_undecided")
MIN_SLOWER_SECONDS = 1.0  # until the first word: less is noticed by nobody, however many times as long it is


class Act(StrEnum):
    """What is to be done."""

    WAIT = "wait"
    PROMOTE = "promote"
    WITHDRAW = "withdraw"
    END = "end"  # nothing was proven in time: an admin decides
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Reason:
    """A code of the section `canary` of huigan.texts, with its parameters."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    act: Act
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Service:
    """How a release served: turns that ended, those that it failed, and how long people waited, newest first."""

    ended: int = 0
    failed: int = 0
    first_word_seconds: Sequence[float] = ()
    token_seconds: Sequence[float] = ()  # between two tokens


@dataclass(frozen=True)
class Trial:
    """What is known of a canary: its thumbs, or its picks where people compare; each in the order of its coming."""

    since_at: datetime
    thumbs: Sequence[Thumbed] = ()
    picks: Sequence[int] = ()  # 1 the candidate's answer, -1 the live one's, 0 neither
    raters: int = 0
    candidate: Service = Service()
    live: Service = Service()


@dataclass(frozen=True)
class Reign:
    """What is known of a live release, beside the one before it."""

    since_at: datetime
    ups: Sequence[bool] = ()  # the first thumb of each conversation
    raters: int = 0
    ups_before: Sequence[bool] = ()
    service: Service = Service()
    service_before: Service = Service()


def of_canary(trial: Trial, rules: Canary, bars: Rollback, at: datetime) -> Judgement:
    if troubles := (*_troubles(trial.candidate, trial.live, bars),):
        return Judgement(Act.WITHDRAW, troubles)
    judged = _of_picks(trial, rules) if rules.by == "comparisons" else _of_thumbs(trial, rules)
    if judged.act is Act.WAIT and at - trial.since_at >= timedelta(days=rules.max_days):
        return Judgement(Act.END, (Reason("time_over", {"days": rules.max_days}), *judged.reasons))
    return judged


def is_watched(since_at: datetime, bars: Rollback, at: datetime) -> bool:
    """Whether what answers since then may give way to the one before without a hand."""
    return bars.automatic and at - since_at <= timedelta(days=bars.watch_days)


def of_live(reign: Reign, bars: Rollback, at: datetime) -> Judgement:
    if not is_watched(reign.since_at, bars, at):
        return Judgement(Act.WAIT, ())
    troubles = (*_troubles(reign.service, reign.service_before, bars), *_less_liked(reign, bars))
    return Judgement(Act.ROLL_BACK if troubles else Act.WAIT, troubles)


def _of_thumbs(trial: Trial, rules: Canary) -> Judgement:
    of_candidate = [each.is_up for each in trial.thumbs if each.is_candidates]
    of_live = [each.is_up for each in trial.thumbs if not each.is_candidates]
    found: dict[str, Any] = {
        "ups": sum(of_candidate),
        "count": len(of_candidate),
        "live_ups": sum(of_live),
        "live_count": len(of_live),
    }
    few = _few(min(len(of_candidate), len(of_live)), trial.raters, rules.min_ratings, rules.min_raters)
    better = betting.capital(betting.that_better(trial.thumbs, rules.margin))
    worse = betting.capital(betting.that_worse(trial.thumbs, rules.tolerance))
    return _decided(OF_THUMBS, found, better, worse, few, rules)


def _of_picks(trial: Trial, rules: Canary) -> Judgement:
    found = {name: trial.picks.count(pick) for name, pick in (("wins", 1), ("losses", -1), ("ties", 0))}
    few = _few(len(trial.picks), trial.raters, rules.min_ratings, rules.min_raters)
    better = betting.capital(betting.that_preferred(trial.picks, rules.margin))
    worse = betting.capital(betting.that_not_preferred(trial.picks, rules.tolerance))
    return _decided(OF_PICKS, found, better, worse, few, rules)


def _decided(
    codes: tuple[str, str, str],
    found: dict[str, Any],
    better: float,
    worse: float,
    few: tuple[Reason, ...],
    rules: Canary,
) -> Judgement:
    """Harm is looked for first: where people differ on two things at once, it is the safer of two proofs."""
    bar = 1 / rules.alpha
    proven, disproven, undecided = codes
    told = found | {"better": better, "worse": worse, "bar": bar, "alpha": rules.alpha}
    if few:
        return Judgement(Act.WAIT, (*few, Reason(undecided, told)))
    if worse >= bar:
        return Judgement(Act.WITHDRAW, (Reason(disproven, told),))
    if better >= bar:
        return Judgement(Act.PROMOTE, (Reason(proven, told),))
    return Judgement(Act.WAIT, (Reason(undecided, told),))


def _few(count: int, raters: int, min_count: int, min_raters: int) -> tuple[Reason, ...]:
    checks = (("too_few_ratings", count, min_count), ("too_few_raters", raters, min_raters))
    return tuple(Reason(code, {"have": have, "need": need}) for code, have, need in checks if have < need)


def _less_liked(reign: Reign, bars: Rollback) -> Iterator[Reason]:
    """Against the one before: the low end of what its share may be, so that its own chance counts too."""
    if len(reign.ups_before) < bars.min_ratings or _few(
        len(reign.ups), reign.raters, bars.min_ratings, bars.min_raters
    ):
        return
    low = wilson(sum(reign.ups_before), len(reign.ups_before))[0]
    bar = low - bars.margin
    if bar > 0 and betting.capital(betting.that_below(reign.ups, bar)) >= 1 / bars.alpha:
        before = sum(reign.ups_before) / len(reign.ups_before)
        counts = {"ups": sum(reign.ups), "count": len(reign.ups), "before": before, "alpha": bars.alpha}
        yield Reason("liked_less_than_before", counts)


def _troubles(service: Service, other: Service, bars: Rollback) -> Iterator[Reason]:
    """What is worse than the other release's service, beyond the bars."""
    if min(service.ended, other.ended) >= bars.min_answers:
        share, other_share = service.failed / service.ended, other.failed / other.ended
        if wilson(service.failed, service.ended, FAILURES_Z)[0] > other_share + bars.max_error_excess:
            counts = {"failed": service.failed, "ended": service.ended, "share": share, "other_share": other_share}
            yield Reason("fails_more", counts)
    for code, slow, usual, more in (
        ("first_word_later", service.first_word_seconds, other.first_word_seconds, MIN_SLOWER_SECONDS),
        ("slower", service.token_seconds, other.token_seconds, 0.0),
    ):
        if min(len(slow), len(usual)) < bars.min_answers:
            continue
        now, then = median(slow), median(usual)
        if now > bars.max_latency_ratio * then and now - then > more:
            yield Reason(code, {"seconds": now, "other_seconds": then})
