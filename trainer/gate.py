"""Whether a candidate may be released: a scorecard and the recipe's bars → a verdict with its reasons. Pure.

Reasons are of four kinds. *Hard* ones say that the file is broken or lost something: any of them rejects it,
whatever else got better. Others weigh: what speaks for it must outnumber what speaks against it. That nothing speaks
for it is a hard reason too. *Idle* ones have no vote: they say what is within noise, or could not be decided by so few
pairs. A measure that could not be taken has no vote either, and neither has a judge that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from storage.recipe import Gate
from trainer.scorecard import MIN_ANSWERS, General, Kept, Preferences, Recall, Scorecard

# A mean of a few answers moves by this much for no reason at all.
CLEAR_PERPLEXITY_RATIO = 0.98
# At a near tie one answer turns for no reason; two of a kind do not, if no more were won.
MIN_LOST = 2
# An end of turn that has become e times less likely where an answer ends; good runs move it by a tenth of that.
ENDINGS_NATS = 1.0


@dataclass(frozen=True)
class Reason:
    """A code with parameters, which `huigan.texts` puts into words. At most one of the three is true."""

    code: str
    params: dict[str, Any] = field(default_factory=dict)
    hard: bool = False
    good: bool = False
    idle: bool = False

    @property
    def against(self) -> bool:
        return not (self.good or self.idle)


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reasons: tuple[Reason, ...]


def judge(card: Scorecard, bars: Gate) -> Verdict:
    if not card.effect:
        return Verdict(False, (Reason("adapter_without_effect", hard=True),))
    if not card.finite:
        return Verdict(False, (Reason("not_finite", hard=True),))
    parts = (_broken, _endings, _suite, _general, _recall, _preferences, _newest, _perplexity, _judged)
    reasons = [reason for part in parts for reason in part(card, bars)]
    good = sum(each.good for each in reasons)
    if not good:
        reasons.append(_hard("nothing_learnt" if _is_measured(card) else "nothing_measured"))
    against = sum(each.against for each in reasons)
    passed = not any(each.hard for each in reasons) and good > against
    return Verdict(passed, tuple(sorted(reasons, key=lambda each: (not each.hard, each.good, each.idle))))


def _is_measured(card: Scorecard) -> bool:
    """Whether anything was looked at that could have got better."""
    answers = card.perplexity.answers if card.perplexity else 0
    pairs = card.preferences is not None and card.preferences.is_enough
    return card.recall is not None or pairs or answers >= MIN_ANSWERS


def _broken(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    free = card.free
    if free is None:
        return
    # All beside the live file, whose own answers may loop, or be cut where they are read less far than they are served.
    allowed, one = 1 - bars.min_stop_share, 1 / free.answers
    if free.stop_share + allowed < free.live_stop_share:
        bar = free.live_stop_share - allowed
        yield _hard("does_not_stop", share=free.stop_share, bar=bar, live=free.live_stop_share)
    if free.repetition > max(bars.max_repetition, free.live_repetition + one):
        yield _hard("loops", share=free.repetition, bar=bars.max_repetition, live=free.live_repetition)
    live_match = 1.0 if free.live_language_match is None else free.live_language_match
    if free.language_match is not None and free.language_match < min(bars.min_language_match, live_match - one):
        yield _hard("wrong_language", share=free.language_match, bar=bars.min_language_match, live=live_match)
    if free.length_drift is not None and free.length_drift > bars.max_length_drift:
        yield Reason("length_drift", {"times": free.length_drift, "bar": bars.max_length_drift})


def _endings(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    """Seen also where every answer is cut: a base that rambles on has no stop to lose."""
    read = card.endings
    if read is not None and read.answers >= MIN_ANSWERS and read.high < -ENDINGS_NATS:
        yield _hard("ends_less", live=math.exp(read.live), candidate=math.exp(read.candidate))


def _suite(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    for held in card.suite:
        bar = max_loss(held, bars)
        if held.lost >= MIN_LOST and held.lost > held.gained and held.loss > bar:
            yield _hard(f"{held.kind}_lost", lost=held.lost, of=held.live_right, gained=held.gained, bar=bar)


def max_loss(held: Kept, bars: Gate) -> float:
    return bars.max_control_loss if held.kind == "controls" else float(getattr(bars.max_loss, held.kind))


def _general(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    """Sure where the whole interval lies above the bar: then it cannot be outvoted."""
    bar = bars.max_general_perplexity_ratio
    for read in card.general:
        if read.ratio > bar:
            yield Reason("general_worse", _told(read) | {"language": read.language, "bar": bar}, hard=read.low > bar)


def _told(read: General) -> dict[str, Any]:
    return {name: getattr(read, name) for name in ("ratio", "low", "high", "live", "candidate")}


def _recall(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    if card.recall is not None:
        recall = card.recall
        told = {"share": recall.candidate, "live": recall.live, "questions": recall.questions, "bar": bars.min_recall}
        told |= {"low": recall.low, "high": recall.high}
        if recall.candidate < bars.min_recall:
            yield Reason("corrections_not_recalled", told)
        elif _is_more(recall):
            yield Reason("corrections_recalled", told, good=True)
        elif recall.candidate > recall.live:
            yield Reason("recall_within_noise", told, idle=True)
    if card.held_out_recall is not None and _is_more(card.held_out_recall):
        recall = card.held_out_recall
        told = {"share": recall.candidate, "live": recall.live, "questions": recall.questions}
        yield Reason("held_out_recalled", told, good=True)


def _is_more(recall: Recall) -> bool:
    return recall.is_enough and recall.low > 0


def _preferences(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    """Signs near zero are noise, so the mean gain and its interval decide; with tens of pairs they decide little.

    A loss that is beyond noise cannot be outvoted: labels that went in the wrong way round leave all else better.
    """
    liked = card.preferences
    if liked is None:
        return
    told = _gain(liked)
    if not liked.is_enough:
        yield Reason("too_few_pairs", told, idle=True)
        return
    if liked.high < bars.min_preference_gain:
        yield Reason("preferences_lost", told | {"bar": bars.min_preference_gain}, hard=liked.high < 0)
    elif liked.low > max(0.0, bars.min_preference_gain):
        yield Reason("preferences_gained", told, good=True)
    else:
        yield Reason("preferences_within_noise", told, idle=True)
    if liked.accuracy < bars.min_preference_accuracy:
        share = {"share": liked.accuracy, "bar": bars.min_preference_accuracy}
        yield Reason("preference_accuracy", told | share | {"low": liked.accuracy_low, "high": liked.accuracy_high})


def _newest(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    newest = card.newest
    if newest is not None and newest.is_enough and newest.high < bars.min_preference_gain:
        yield Reason("newest_lost", _gain(newest) | {"since": newest.since[:10]})


def _gain(liked: Preferences) -> dict[str, Any]:
    told = {"gain": liked.mean_gain, "low": liked.low, "high": liked.high, "visible": liked.visible}
    return told | {"pairs": liked.pairs, "conversations": liked.conversations}


def _perplexity(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    read = card.perplexity
    if read is None or read.answers < MIN_ANSWERS:
        return
    told = {"ratio": read.ratio, "live": read.live, "candidate": read.candidate, "answers": read.answers}
    told |= {"low": read.low, "high": read.high}
    if read.ratio > bars.max_perplexity_ratio:
        yield Reason("perplexity_worse", told | {"bar": bars.max_perplexity_ratio})
    elif read.ratio < CLEAR_PERPLEXITY_RATIO and read.high < 1:
        yield Reason("perplexity_better", told, good=True)


def _judged(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    """A judge that decided too little has no vote."""
    judged = card.judged
    if judged is None:
        return
    told = {"tag": judged.tag, "share": judged.share, "low": judged.low, "high": judged.high}
    told |= {"decided": judged.decided, "questions": judged.questions, "ties": judged.ties, "swayed": judged.swayed}
    if judged.is_enough and judged.high < bars.min_judge_share:
        yield Reason("judge_against", told | {"bar": bars.min_judge_share})
    elif judged.is_enough and judged.low > max(0.5, bars.min_judge_share):
        yield Reason("judge_for", told, good=True)
    else:
        yield Reason("judge_undecided", told | {"failed": judged.failed + judged.unasked}, idle=True)


def _hard(code: str, **params: Any) -> Reason:
    return Reason(code, params, hard=True)
