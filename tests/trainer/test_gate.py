"""The verdict: what is broken cannot be outvoted, what is noise does not vote, and every reason has words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from huigan.texts import LOCALES, catalogue, text
from storage.recipe import Gate
from trainer import gate
from trainer.scorecard import Controls, Free, Perplexity, Preferences, Recall, Scorecard

BARS = Gate()
GOOD = Scorecard(
    compared_with="live",
    quantisation="Q4_K_M",
    preferences=Preferences(40, 0.8, 3.0, 1.0, 5.0, 0.01),
    perplexity=Perplexity(20, 400, 12.0, 6.0),
    recall=Recall(10, 0.0, 0.9, 0.1, 0.95),
    free=Free(30, 1.0, 0.0, 1.0, 1.2, 0.9, 0.1),
    controls=Controls(12, 10, 0),
)
assert GOOD.free is not None
FREE = GOOD.free


def codes(card: Scorecard, bars: Gate = BARS) -> set[str]:
    return {each.code for each in gate.judge(card, bars).reasons}


def test_a_candidate_that_got_better_everywhere_passes() -> None:
    verdict = gate.judge(GOOD, BARS)
    assert verdict.passed
    assert {each.code for each in verdict.reasons} == {
        "corrections_recalled",
        "preferences_gained",
        "perplexity_better",
    }


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (Scorecard(effect=False), "adapter_without_effect"),
        (replace(GOOD, finite=False), "not_finite"),
        (replace(GOOD, free=replace(FREE, stop_share=0.75)), "does_not_stop"),
        (replace(GOOD, free=replace(FREE, repetition=0.2)), "loops"),
        (replace(GOOD, free=replace(FREE, language_match=0.5)), "wrong_language"),
        (replace(GOOD, controls=Controls(12, 10, 2)), "controls_lost"),
    ],
)
def test_what_is_broken_cannot_be_outvoted(card: Scorecard, code: str) -> None:
    verdict = gate.judge(card, BARS)
    assert not verdict.passed
    assert [each.code for each in verdict.reasons if each.hard] == [code]
    assert verdict.reasons[0].code == code


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (replace(GOOD, free=replace(FREE, length_drift=2.1)), "length_drift"),
        (replace(GOOD, recall=Recall(10, 0.0, 0.4, 0.1, 0.5)), "corrections_not_recalled"),
        (replace(GOOD, preferences=Preferences(40, 0.6, -2.0, -3.0, -1.0, 0.01)), "preferences_lost"),
        (replace(GOOD, preferences=Preferences(40, 0.4, 3.0, 1.0, 5.0, 0.01)), "preference_accuracy"),
        (replace(GOOD, perplexity=Perplexity(20, 400, 12.0, 15.0)), "perplexity_worse"),
    ],
)
def test_a_single_weakness_is_outvoted_and_shown(card: Scorecard, code: str) -> None:
    verdict = gate.judge(card, BARS)
    assert verdict.passed
    assert code in {each.code for each in verdict.reasons if not each.good}


def test_a_tie_of_reasons_is_no_pass() -> None:
    card = replace(GOOD, preferences=None, perplexity=Perplexity(20, 400, 12.0, 15.0))
    verdict = gate.judge(card, BARS)
    assert [each.good for each in verdict.reasons] == [False, True]
    assert not verdict.passed


def test_a_candidate_like_the_live_release_has_learnt_nothing() -> None:
    same = Scorecard(
        preferences=Preferences(40, 0.5, 0.01, -0.2, 0.2, 0.01),
        perplexity=Perplexity(20, 400, 12.0, 11.95),
        recall=Recall(10, 0.6, 0.6, 0.1, 0.1),
        free=FREE,
    )
    assert codes(same) == {"nothing_learnt"}
    assert not gate.judge(same, BARS).passed


def test_where_nothing_could_be_measured_nothing_is_claimed() -> None:
    few = Scorecard(
        preferences=Preferences(2, 1.0, 9.0, 8.0, 10.0, 0.01), perplexity=Perplexity(1, 9, 12.0, 2.0), free=FREE
    )
    assert codes(few) == {"nothing_measured"}
    assert codes(Scorecard()) == {"nothing_measured"}


def test_signs_without_size_do_not_vote() -> None:
    """f16 rounding alone once scored an accuracy of 0.875: only an interval clear of zero speaks for a candidate."""
    card = Scorecard(preferences=Preferences(40, 0.875, 0.004, -0.002, 0.01, 0.01), free=FREE)
    assert codes(card) == {"nothing_learnt"}


def test_controls_that_the_live_release_fails_too_are_not_lost() -> None:
    assert gate.judge(replace(GOOD, controls=Controls(12, 0, 0)), BARS).passed


@pytest.mark.parametrize(
    ("live", "candidate", "broken"),
    [(1.0, 0.97, False), (1.0, 0.96, True), (0.5, 0.5, False), (0.5, 0.48, False), (0.5, 0.4, True), (0.0, 0.0, False)],
)
def test_stopping_is_judged_beside_the_live_release(live: float, candidate: float, broken: bool) -> None:
    """Answers that are read less far than they are served are cut, whoever wrote them."""
    card = replace(GOOD, free=replace(FREE, stop_share=candidate, live_stop_share=live))
    assert ("does_not_stop" in codes(card, replace(BARS, min_stop_share=0.97))) is broken


def test_the_recipe_sets_the_bars() -> None:
    assert "corrections_not_recalled" in codes(GOOD, replace(BARS, min_recall=0.95))
    assert "does_not_stop" not in codes(
        replace(GOOD, free=replace(FREE, stop_share=0.0)), replace(BARS, min_stop_share=0)
    )


@pytest.mark.parametrize("locale", LOCALES)
def test_every_reason_has_words_that_its_parameters_fill(locale: str) -> None:
    bad = Scorecard(
        preferences=Preferences(40, 0.4, -2.0, -3.0, -1.0, 0.01),
        perplexity=Perplexity(20, 400, 12.0, 15.0),
        recall=Recall(10, 0.0, 0.4, 0.1, 0.5),
        free=Free(30, 0.2, 0.5, 0.3, 4.0, 0.9, 0.1),
        controls=Controls(12, 10, 5),
    )
    cards = [GOOD, bad, Scorecard(), Scorecard(effect=False), Scorecard(finite=False)]
    told = {each.code: each for card in cards for each in gate.judge(card, BARS).reasons}
    assert {f"gate.{code}" for code in told} == {code for code in catalogue(locale) if code.startswith("gate.")}
    for reason in told.values():
        words = text(locale, f"gate.{reason.code}", **reason.params)
        assert "{" not in words
        assert len(words) > 5
