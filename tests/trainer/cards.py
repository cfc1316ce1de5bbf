"""Scorecards as runs might have them, for the tests of what judges and shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainer.scorecard import (
    Endings,
    Free,
    General,
    Judged,
    Kept,
    Perplexity,
    Preferences,
    Recall,
    Sample,
    Scorecard,
)


def preferences(
    gain: float, within: float = 2.0, *, accuracy: float = 0.7, pairs: int = 40, **more: Any
) -> Preferences:
    told = {"conversations": pairs, "accuracy_low": accuracy - 0.1, "accuracy_high": min(1.0, accuracy + 0.1)} | more
    return Preferences(pairs, accuracy, gain, gain - within, gain + within, 0.01, **told)


def perplexity(ratio: float, within: float = 0.05, *, live: float = 12.0) -> Perplexity:
    return Perplexity(20, 400, live, live * ratio, ratio - within, ratio + within)


def general(zh: float = 1.0, en: float = 1.0, within: float = 0.01) -> tuple[General, ...]:
    return tuple(
        General(8, 900, 9.0, 9.0 * ratio, ratio - within, ratio + within, language)
        for language, ratio in (("zh", zh), ("en", en))
    )


def recall(live: float, candidate: float, within: float = 0.15, *, questions: int = 20) -> Recall:
    change = candidate - live
    return Recall(questions, live, candidate, 0.1, 0.9, change - within, change + within, questions)


def endings(live: float, candidate: float, within: float = 0.3) -> Endings:
    change = candidate - live
    return Endings(20, 20, live, candidate, change - within, change + within)


def judged(candidate: int, live: int, low: float, high: float, **more: Any) -> Judged:
    told = {"ties": 5, "swayed": 3, "failed": 0, "unasked": 0, "conversations": candidate + live} | more
    questions = candidate + live + sum(told[each] for each in ("ties", "swayed", "failed", "unasked"))
    return Judged("qwen3:8b", questions, candidate, live, low=low, high=high, **told)


SUITE = (
    Kept("controls", 14, 12, 12, 0),
    Kept("facts", 12, 10, 10, 0),
    Kept("format", 12, 6, 7, 1),
    Kept("refusals", 12, 11, 11, 0),
    Kept("sycophancy", 12, 8, 8, 1),
    Kept("language", 12, 12, 12, 0),
    Kept("endings", 10, 10, 10, 0),
)
FREE = Free(30, 1.0, 0.0, 1.0, 1.2, 0.9, 0.1)
GOOD = Scorecard(
    compared_with="live",
    quantisation="Q4_K_M",
    preferences=preferences(3.0, accuracy=0.8),
    newest=preferences(2.5, 3.0, pairs=10, since="2026-11-20T08:00:00+00:00"),
    perplexity=perplexity(0.5),
    general=general(),
    endings=endings(-0.4, -0.3),
    recall=recall(0.0, 0.9),
    free=FREE,
    suite=SUITE,
    samples=(Sample("taught", "几点？", "八点", "七点半", "七点半"),),
)


def with_suite(**kinds: Kept) -> tuple[Kept, ...]:
    return tuple(kinds.get(each.kind, each) for each in SUITE)


def losing(kind: str, lost: int, *, of: int = 10, gained: int = 0) -> Scorecard:
    return replace(GOOD, suite=with_suite(**{kind: Kept(kind, 12, of, of - lost + gained, lost)}))
