"""Whether a candidate may be released: a scorecard and the recipe's bars → a verdict with its reasons. Pure.

Reasons are of three kinds. *Hard* ones say that the file is broken or has lost something: any of them rejects it,
whatever else got better. The others weigh: what speaks for it must outnumber what speaks against it. That nothing
speaks for it is a hard reason too. A measure that could not be taken has no vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from storage.recipe import Gate
from trainer.scorecard import Scorecard

MIN_PAIRS, MIN_ANSWERS = 5, 3  # below these a share says nothing
# A mean of a few answers moves by this much for no reason at all.
CLEAR_PERPLEXITY_RATIO = 0.98


@dataclass(frozen=True)
class Reason:
    """A code with parameters, which `huigan.texts` puts into words. `hard` implies that it is not `good`."""

    code: str
    params: dict[str, Any] = field(default_factory=dict)
    hard: bool = False
    good: bool = False


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reasons: tuple[Reason, ...]


def judge(card: Scorecard, bars: Gate) -> Verdict:
    if not card.effect:
        return Verdict(False, (Reason("adapter_without_effect", hard=True),))
    if not card.finite:
        return Verdict(False, (Reason("not_finite", hard=True),))
    reasons = [*_broken(card, bars), *_controls(card, bars), *_recall(card, bars), *_preferences(card, bars)]
    reasons += _perplexity(card, bars)
    good = sum(each.good for each in reasons)
    if not good:
        reasons.append(_hard("nothing_learnt" if _is_measured(card) else "nothing_measured"))
    against = sum(not each.good for each in reasons)
    passed = not any(each.hard for each in reasons) and good > against
    return Verdict(passed, tuple(sorted(reasons, key=lambda each: (not each.hard, each.good))))


def _is_measured(card: Scorecard) -> bool:
    """Whether anything was looked at that could have got better."""
    pairs = card.preferences.pairs if card.preferences else 0
    answers = card.perplexity.answers if card.perplexity else 0
    return card.recall is not None or pairs >= MIN_PAIRS or answers >= MIN_ANSWERS


def _broken(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    free = card.free
    if free is None:
        return
    # Beside the live file: where answers are read less far than they are served, its own long ones are cut, too.
    allowed = 1 - bars.min_stop_share
    if free.stop_share + allowed < free.live_stop_share:
        bar = free.live_stop_share - allowed
        yield _hard("does_not_stop", share=free.stop_share, bar=bar, live=free.live_stop_share)
    if free.repetition > bars.max_repetition:
        yield _hard("loops", share=free.repetition, bar=bars.max_repetition, live=free.live_repetition)
    if free.language_match is not None and free.language_match < bars.min_language_match:
        yield _hard("wrong_language", share=free.language_match, bar=bars.min_language_match)
    if free.length_drift is not None and free.length_drift > bars.max_length_drift:
        yield Reason("length_drift", {"times": free.length_drift, "bar": bars.max_length_drift})


def _controls(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    held = card.controls
    if held is None or not held.live_right:
        return
    if held.loss > bars.max_control_loss:
        yield _hard("controls_lost", lost=held.lost, of=held.live_right, bar=bars.max_control_loss)


def _recall(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    recall = card.recall
    if recall is None:
        return
    told = {"share": recall.candidate, "live": recall.live, "questions": recall.questions, "bar": bars.min_recall}
    if recall.candidate < bars.min_recall:
        yield Reason("corrections_not_recalled", told)
    elif recall.candidate > recall.live:
        yield Reason("corrections_recalled", told, good=True)


def _preferences(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    """Signs near zero are noise, so the mean gain and its interval decide; with tens of pairs they decide little."""
    liked = card.preferences
    if liked is None or liked.pairs < MIN_PAIRS:
        return
    told = {"gain": liked.mean_gain, "low": liked.low, "high": liked.high, "pairs": liked.pairs}
    if liked.high < bars.min_preference_gain:
        yield Reason("preferences_lost", told | {"bar": bars.min_preference_gain})
    elif liked.low > max(0.0, bars.min_preference_gain):
        yield Reason("preferences_gained", told, good=True)
    if liked.accuracy < bars.min_preference_accuracy:
        yield Reason("preference_accuracy", {"share": liked.accuracy, "bar": bars.min_preference_accuracy} | told)


def _perplexity(card: Scorecard, bars: Gate) -> Iterator[Reason]:
    read = card.perplexity
    if read is None or read.answers < MIN_ANSWERS:
        return
    told = {"ratio": read.ratio, "live": read.live, "candidate": read.candidate, "answers": read.answers}
    if read.ratio > bars.max_perplexity_ratio:
        yield Reason("perplexity_worse", told | {"bar": bars.max_perplexity_ratio})
    elif read.ratio < CLEAR_PERPLEXITY_RATIO:
        yield Reason("perplexity_better", told, good=True)


def _hard(code: str, **params: Any) -> Reason:
    return Reason(code, params, hard=True)
