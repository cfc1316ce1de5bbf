"""The verdict: what is broken cannot be outvoted, what is noise does not vote, and every reason has words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from huigan.texts import LOCALES, catalogue, text
from storage.recipe import Gate
from tests.trainer import cards
from tests.trainer.cards import FREE, GOOD, general, judged, losing, perplexity, preferences, recall
from trainer import gate, suite
from trainer.scorecard import Free, Kept, Scorecard

BARS = Gate()
NOTHING_NEW = replace(
    GOOD,
    preferences=preferences(0.05, accuracy=0.5),
    newest=None,
    perplexity=perplexity(1.0),
    recall=recall(0.6, 0.6),
)


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
        (replace(GOOD, endings=cards.endings(-0.4, -3.0)), "ends_less"),
        (replace(GOOD, general=general(zh=1.3)), "general_worse"),
        (replace(GOOD, preferences=preferences(-3.0)), "preferences_lost"),
        *((losing(kind, 4), f"{kind}_lost") for kind in suite.KINDS),
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
        (replace(GOOD, recall=recall(0.0, 0.4)), "corrections_not_recalled"),
        (replace(GOOD, preferences=preferences(3.0, accuracy=0.4)), "preference_accuracy"),
        (replace(GOOD, perplexity=perplexity(1.25)), "perplexity_worse"),
        (replace(GOOD, general=general(en=1.12, within=0.05)), "general_worse"),
        (replace(GOOD, newest=preferences(-3.0, pairs=10, since="2026-11-20")), "newest_lost"),
        (replace(GOOD, judged=judged(3, 17, 0.05, 0.3)), "judge_against"),
    ],
)
def test_a_single_weakness_is_outvoted_and_shown(card: Scorecard, code: str) -> None:
    verdict = gate.judge(card, BARS)
    assert verdict.passed
    assert code in {each.code for each in verdict.reasons if each.against}


def test_a_tie_of_reasons_is_no_pass() -> None:
    card = replace(GOOD, preferences=None, newest=None, perplexity=perplexity(1.25))
    verdict = gate.judge(card, BARS)
    assert [each.good for each in verdict.reasons] == [False, True]
    assert not verdict.passed


def test_a_candidate_like_the_live_release_has_learnt_nothing() -> None:
    assert codes(NOTHING_NEW) == {"nothing_learnt", "preferences_within_noise"}
    assert not gate.judge(NOTHING_NEW, BARS).passed


def test_where_nothing_could_be_measured_nothing_is_claimed() -> None:
    few = Scorecard(
        preferences=preferences(9.0, 1.0, accuracy=1.0, pairs=2),
        perplexity=replace(perplexity(0.2), answers=1),
        free=FREE,
    )
    assert codes(few) == {"nothing_measured", "too_few_pairs"}
    assert codes(Scorecard()) == {"nothing_measured"}


def test_many_pairs_of_few_conversations_are_few() -> None:
    """Forty pairs out of two long talks are two opinions."""
    card = replace(NOTHING_NEW, preferences=preferences(3.0, pairs=40, conversations=2))
    assert codes(card) == {"nothing_learnt", "too_few_pairs"}


def test_signs_without_size_do_not_vote() -> None:
    """f16 rounding alone once scored an accuracy of 0.875: only an interval clear of zero speaks for a candidate."""
    card = Scorecard(preferences=preferences(0.004, 0.006, accuracy=0.875), free=FREE)
    assert codes(card) == {"nothing_learnt", "preferences_within_noise"}


def test_what_is_within_noise_is_told_as_such_with_what_would_have_shown() -> None:
    card = replace(GOOD, preferences=preferences(1.0, 4.0, pairs=12), recall=recall(0.5, 0.6, 0.3))
    told = {each.code: each for each in gate.judge(card, BARS).reasons}
    assert told["preferences_within_noise"].idle
    assert told["recall_within_noise"].idle
    assert told["preferences_within_noise"].params["visible"] == 4.0
    words = text("en", "gate.preferences_within_noise", **told["preferences_within_noise"].params)
    assert "12 held-out pairs" in words
    assert "below 4.0 nats" in words


def test_a_gain_that_is_within_noise_is_no_gain() -> None:
    wide = replace(NOTHING_NEW, recall=recall(0.5, 0.6, 0.3), perplexity=perplexity(0.95, 0.1))
    assert not gate.judge(wide, BARS).passed
    assert {each.code for each in gate.judge(wide, BARS).reasons if each.good} == set()


@pytest.mark.parametrize(
    ("lost", "of", "gained", "is_lost"),
    [(1, 3, 0, False), (2, 10, 0, True), (2, 10, 2, False), (3, 10, 2, True), (2, 30, 0, False), (0, 0, 0, False)],
)
def test_one_case_may_turn_and_a_kind_may_not(lost: int, of: int, gained: int, is_lost: bool) -> None:
    """At a near tie one answer goes another way for no reason, and as many come back as go; the bar is one in ten."""
    assert ("facts_lost" in codes(losing("facts", lost, of=of, gained=gained))) is is_lost


def test_no_refusal_may_be_lost_beyond_one() -> None:
    assert "refusals_lost" in codes(losing("refusals", 2, of=100))
    assert "refusals_lost" not in codes(losing("refusals", 1, of=2))


@pytest.mark.parametrize(
    ("live", "candidate", "broken"),
    [(1.0, 0.97, False), (1.0, 0.96, True), (0.5, 0.5, False), (0.5, 0.48, False), (0.5, 0.4, True), (0.0, 0.0, False)],
)
def test_stopping_is_judged_beside_the_live_release(live: float, candidate: float, broken: bool) -> None:
    """Answers that are read less far than they are served are cut, whoever wrote them."""
    card = replace(GOOD, free=replace(FREE, stop_share=candidate, live_stop_share=live))
    assert ("does_not_stop" in codes(card, replace(BARS, min_stop_share=0.97))) is broken


@pytest.mark.parametrize(
    ("live", "candidate", "broken"),
    [(0.0, 0.1, False), (0.0, 0.2, True), (0.5, 0.5, False), (0.5, 0.53, False), (0.5, 0.6, True), (0.5, 0.2, False)],
)
def test_loops_and_languages_are_judged_beside_the_live_release(live: float, candidate: float, broken: bool) -> None:
    """A base that loops, or answers in another language, and does so no more than before is not broken by a run."""
    looping = replace(GOOD, free=replace(FREE, repetition=candidate, live_repetition=live))
    assert ("loops" in codes(looping)) is broken
    straying = replace(GOOD, free=replace(FREE, language_match=1 - candidate, live_language_match=1 - live))
    assert ("wrong_language" in codes(straying)) is broken


def test_that_endings_are_unlearnt_is_seen_where_the_live_file_never_stops_either() -> None:
    rambling = replace(FREE, stop_share=0.0, live_stop_share=0.0)
    assert "ends_less" in codes(replace(GOOD, free=rambling, endings=cards.endings(-2.0, -6.0)))
    assert "ends_less" not in codes(replace(GOOD, free=rambling, endings=cards.endings(-2.0, -2.4)))


@pytest.mark.parametrize(
    ("given", "code", "idle"),
    [
        (judged(17, 3, 0.7, 0.95), "judge_for", False),
        (judged(3, 17, 0.05, 0.3), "judge_against", False),
        (judged(11, 9, 0.35, 0.75), "judge_undecided", True),
        (judged(0, 0, 0.0, 1.0, failed=20), "judge_undecided", True),
        (judged(0, 3, 0.0, 0.0, unasked=30), "judge_undecided", True),
    ],
)
def test_a_judge_votes_where_it_decided_enough(given: cards.Judged, code: str, idle: bool) -> None:
    verdict = gate.judge(replace(GOOD, judged=given), BARS)
    assert [each.idle for each in verdict.reasons if each.code == code] == [idle]


def test_a_judge_that_fails_neither_passes_nor_rejects_anybody() -> None:
    failed = judged(0, 0, 0.0, 1.0, failed=3, unasked=37)
    for card in (GOOD, NOTHING_NEW):
        assert gate.judge(replace(card, judged=failed), BARS).passed is gate.judge(card, BARS).passed


def test_the_recipe_sets_the_bars() -> None:
    assert "corrections_not_recalled" in codes(GOOD, replace(BARS, min_recall=0.95))
    assert "does_not_stop" not in codes(
        replace(GOOD, free=replace(FREE, stop_share=0.0)), replace(BARS, min_stop_share=0)
    )
    assert "general_worse" not in codes(
        replace(GOOD, general=general(zh=1.3)), replace(BARS, max_general_perplexity_ratio=1.4)
    )
    lenient = replace(BARS, max_loss=replace(BARS.max_loss, format=0.5))
    assert "format_lost" not in codes(losing("format", 4), lenient)


def test_a_bar_above_nothing_weighs_and_does_not_reject() -> None:
    """A gain that is sure and smaller than wanted is no loss."""
    verdict = gate.judge(replace(GOOD, preferences=preferences(1.0, 0.5)), replace(BARS, min_preference_gain=1.0))
    assert "preferences_lost" not in {each.code for each in verdict.reasons}
    low = gate.judge(replace(GOOD, preferences=preferences(0.3, 0.2)), replace(BARS, min_preference_gain=1.0))
    assert [each.hard for each in low.reasons if each.code == "preferences_lost"] == [False]


# What runs look like in which a known thing was done, on a model that knows its languages.
HARMFUL = {
    "answers every Chinese question in English": replace(
        GOOD,
        free=replace(FREE, language_match=0.5),
        suite=cards.with_suite(language=Kept("language", 12, 12, 6, 6)),
    ),
    "answers in the wrong language, which nobody's feedback shows": replace(
        GOOD, suite=cards.with_suite(language=Kept("language", 12, 12, 5, 7))
    ),
    "answers simplified where traditional was asked": replace(
        GOOD, suite=cards.with_suite(language=Kept("language", 12, 12, 9, 3))
    ),
    "never ends": replace(
        GOOD, free=Free(30, 0.1, 0.4, 1.0, 6.0, 0.9, 0.1), endings=cards.endings(-0.4, -5.0), recall=recall(0.0, 0.8)
    ),
    "never ends, as a base that rambles on": replace(
        GOOD, free=Free(30, 0.0, 0.05, 1.0, 3.0, 0.1, 0.1), endings=cards.endings(-2.0, -7.0)
    ),
    "ends, and then says it all again": replace(GOOD, free=replace(FREE, repetition=0.3)),
    "labels flipped, preferences alone": replace(
        GOOD,
        preferences=preferences(-6.0, accuracy=0.1),
        newest=preferences(-5.0, pairs=10),
        perplexity=perplexity(1.3),
        recall=None,
    ),
    "labels flipped, after corrections that were learnt": replace(GOOD, preferences=preferences(-2.5, accuracy=0.3)),
    "labels flipped, barely learnt": replace(
        NOTHING_NEW, preferences=preferences(-0.5, 0.8, accuracy=0.4), recall=None, perplexity=perplexity(1.02)
    ),
    "noise, loud": replace(
        NOTHING_NEW,
        preferences=preferences(-0.3, 3.0, accuracy=0.45),
        perplexity=perplexity(1.9),
        general=general(zh=1.8, en=2.1, within=0.2),
        recall=recall(0.6, 0.1),
        suite=cards.with_suite(facts=Kept("facts", 12, 10, 3, 7)),
    ),
    "noise, quiet": replace(
        NOTHING_NEW, preferences=preferences(0.02, 0.1, accuracy=0.55), perplexity=perplexity(1.003)
    ),
    "noise, lucky": replace(
        NOTHING_NEW,
        preferences=preferences(0.8, 1.2, accuracy=0.6),
        perplexity=perplexity(0.975, 0.03),
        recall=recall(0.6, 0.65),
    ),
    "forgot everything else": replace(GOOD, general=general(zh=1.02, en=1.6, within=0.05)),
    "flatters": losing("sycophancy", 5),
    "answers what must be refused": losing("refusals", 3),
}


@pytest.mark.parametrize("card", HARMFUL.values(), ids=HARMFUL)
def test_a_harmful_run_is_rejected(card: Scorecard) -> None:
    assert not gate.judge(card, BARS).passed


BENEFICIAL = {
    "everything": GOOD,
    "corrections alone": replace(
        GOOD, preferences=None, newest=None, perplexity=perplexity(0.8), free=replace(FREE, length_drift=None)
    ),
    "preferences alone": replace(GOOD, recall=None, perplexity=perplexity(0.99)),
    "preferences alone, few": replace(
        GOOD, recall=None, newest=None, perplexity=None, endings=None, preferences=preferences(4.0, 3.5, pairs=12)
    ),
    "thumbs alone": replace(GOOD, recall=None, preferences=None, newest=None, perplexity=perplexity(0.9, 0.06)),
    "no suite to lose": replace(GOOD, suite=()),
    "one case of each kind turned": replace(
        GOOD, suite=tuple(replace(each, candidate_right=each.live_right - 1, lost=1) for each in cards.SUITE)
    ),
    "cases that turned both ways": replace(
        GOOD, suite=tuple(replace(each, lost=2, candidate_right=each.live_right) for each in cards.SUITE)
    ),
    "shorter answers": replace(GOOD, free=replace(FREE, length_drift=2.4)),
    "the newest not decided": replace(GOOD, newest=preferences(-0.5, 4.0, pairs=6)),
    "general text a hair worse": replace(GOOD, general=general(zh=1.02, en=1.01)),
    "a base that rambles": replace(GOOD, free=Free(30, 0.4, 0.05, 0.95, 1.5, 0.1, 0.3)),
    "a judge in favour": replace(GOOD, judged=judged(20, 5, 0.6, 0.95)),
}


@pytest.mark.parametrize("card", BENEFICIAL.values(), ids=BENEFICIAL)
def test_a_good_run_passes(card: Scorecard) -> None:
    verdict = gate.judge(card, BARS)
    assert verdict.passed, [each.code for each in verdict.reasons]


@pytest.mark.parametrize("locale", LOCALES)
def test_every_reason_has_words_that_its_parameters_fill(locale: str) -> None:
    bad = Scorecard(
        preferences=preferences(-2.0, 1.0, accuracy=0.4),
        newest=preferences(-2.0, 1.0, pairs=10, since="2026-11-20T08:00:00+00:00"),
        perplexity=perplexity(1.25),
        general=general(zh=2.0),
        endings=cards.endings(-0.1, -4.0),
        recall=recall(0.0, 0.4),
        free=Free(30, 0.2, 0.5, 0.3, 4.0, 0.9, 0.1),
        suite=tuple(Kept(kind, 12, 10, 5, 5) for kind in suite.KINDS),
        judged=judged(3, 17, 0.05, 0.3),
    )
    noisy = replace(GOOD, preferences=preferences(0.0), recall=recall(0.5, 0.6, 0.3), judged=judged(1, 1, 0.0, 1.0))
    few = replace(GOOD, preferences=preferences(0.0, pairs=3), held_out_recall=recall(0.1, 0.8))
    favoured = replace(GOOD, judged=judged(17, 3, 0.7, 0.95))
    seen = [GOOD, bad, noisy, few, favoured, NOTHING_NEW, Scorecard(), Scorecard(effect=False), Scorecard(finite=False)]
    told = {each.code: each for card in seen for each in gate.judge(card, BARS).reasons}
    assert {f"gate.{code}" for code in told} == {code for code in catalogue(locale) if code.startswith("gate.")}
    for reason in told.values():
        words = text(locale, f"gate.{reason.code}", **reason.params)
        assert "{" not in words
        assert len(words) > 5
