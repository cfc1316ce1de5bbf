"""The bets of a canary, looked at after every single thumb: how often they cry wolf, and how soon they see one.

Error rates are those of the promise (α), within the chance of so many simulated canaries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from math import sqrt

import pytest

from huigan.operate import betting
from huigan.operate.betting import Bet, Thumbed

ALPHA = 0.05
CANARIES = 200
THUMBS = 400
CHANCE = 3 * sqrt(ALPHA * (1 - ALPHA) / CANARIES)  # three standard errors of a share of CANARIES

Share = Callable[[int], float]


def conversations(
    rng: random.Random, live: Share, candidate: Share, share: float, *, count: int = THUMBS, oftener: float = 1.0
) -> Iterator[Thumbed]:
    """Each rated once. `oftener`: how many times as often a candidate's answer is rated at all."""
    chance = share * oftener / (share * oftener + 1 - share)
    for number in range(count):
        is_candidates = rng.random() < chance
        ups = (candidate if is_candidates else live)(number)
        yield Thumbed(is_candidates, share, rng.random() < ups)


def ends(
    make: Callable[[random.Random], Iterable[Bet]], *, canaries: int = CANARIES, alpha: float = ALPHA
) -> list[int]:
    """After how many each simulated canary was decided, of those that ever were."""
    found = []
    for number in range(canaries):
        capitals = enumerate(betting.capitals(make(random.Random(number))), 1)
        reached = next((count for count, capital in capitals if capital >= 1 / alpha), None)
        found += [] if reached is None else [reached]
    return found


def always(ups: float) -> Share:
    return lambda number: ups


def moody(number: int) -> float:
    """From 0.9 to 0.5 and back, twice."""
    return 0.7 + 0.2 * (1 - abs(number % 250 - 125) / 62.5)


@pytest.mark.parametrize("ups", [0.5, 0.9])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_canary_as_good_as_the_live_release_is_seldom_proven_anything(ups: float, share: float) -> None:
    same = always(ups)
    for claim in (betting.that_better, betting.that_worse):
        false = ends(lambda rng, claim=claim: claim(conversations(rng, same, same, share)))
        assert len(false) / CANARIES <= ALPHA + CHANCE


def test_whoever_peeks_at_an_ordinary_test_is_fooled_by_the_same_canaries() -> None:
    """Else the tests here would hold whatever the bets are worth."""

    def is_fooled(rng: random.Random) -> bool:
        counts = {True: [0, 0], False: [0, 0]}
        for each in conversations(rng, always(0.7), always(0.7), 0.5):
            counts[each.is_candidates][each.is_up] += 1
            (downs, ups), (others_downs, others_ups) = counts[True], counts[False]
            ours, others = downs + ups, others_downs + others_ups
            spread = sqrt((ups + others_ups) * (downs + others_downs)) / (ours + others)
            if min(ours, others) >= 20 and spread > 0:
                z = (ups / ours - others_ups / others) / (spread * sqrt(1 / ours + 1 / others))
                if z > 1.645:
                    return True
        return False

    assert sum(is_fooled(random.Random(number)) for number in range(CANARIES)) / CANARIES > ALPHA + CHANCE


def test_a_worse_canary_is_not_promoted_nor_a_better_one_withdrawn() -> None:
    good, bad = always(0.8), always(0.7)
    assert len(ends(lambda rng: betting.that_better(conversations(rng, good, bad, 0.2)))) / CANARIES <= ALPHA
    assert len(ends(lambda rng: betting.that_worse(conversations(rng, bad, good, 0.2)))) / CANARIES <= ALPHA


@pytest.mark.parametrize("claim", [betting.that_better, betting.that_worse])
def test_neither_moods_that_drift_nor_answers_that_are_rated_oftener_are_taken_for_a_difference(
    claim: Callable[[Iterable[Thumbed]], Iterator[Bet]],
) -> None:
    false = ends(lambda rng: claim(conversations(rng, moody, moody, 0.2, oftener=2.0)))
    assert len(false) / CANARIES <= ALPHA + CHANCE


def test_harm_is_seen_before_many_have_seen_it() -> None:
    seen = ends(lambda rng: betting.that_worse(conversations(rng, always(0.7), always(0.4), 0.2)), canaries=100)
    assert len(seen) >= 90
    assert sorted(seen)[50] < 200


def test_a_clear_gain_is_proven() -> None:
    better = (always(0.6), always(0.8), 0.5)
    seen = ends(lambda rng: betting.that_better(conversations(rng, *better)), canaries=100)
    assert len(seen) >= 85
    assert sorted(seen)[50] < 300


def test_a_margin_asks_whether_it_is_liked_about_as_well() -> None:
    same, worse = always(0.7), always(0.6)
    as_well = ends(
        lambda rng: betting.that_better(conversations(rng, same, same, 0.5, count=1500), margin=0.1), canaries=60
    )
    assert len(as_well) >= 45
    at_the_margin = ends(lambda rng: betting.that_better(conversations(rng, same, worse, 0.5), margin=0.1))
    assert len(at_the_margin) / CANARIES <= ALPHA + CHANCE


def picks(rng: random.Random, wins: float, losses: float) -> Iterator[int]:
    for _ in range(THUMBS):
        dice = rng.random()
        yield 1 if dice < wins else -1 if dice < wins + losses else 0


def test_picks_between_equals_seldom_prove_anything_and_clear_ones_soon_do() -> None:
    for claim in (betting.that_preferred, betting.that_not_preferred):
        false = ends(lambda rng, claim=claim: claim(picks(rng, 0.4, 0.4)))
        assert len(false) / CANARIES <= ALPHA + CHANCE
    seen = ends(lambda rng: betting.that_preferred(picks(rng, 0.52, 0.28)), canaries=100)
    assert len(seen) >= 95
    assert sorted(seen)[50] < 150


def test_a_share_below_a_bar_is_seen_and_one_at_it_is_not() -> None:
    def thumbs(rng: random.Random, ups: float) -> Iterator[Bet]:
        return betting.that_below([rng.random() < ups for _ in range(THUMBS)], 0.6)

    assert len(ends(lambda rng: thumbs(rng, 0.6))) / CANARIES <= ALPHA + CHANCE
    assert len(ends(lambda rng: thumbs(rng, 0.45), canaries=100)) >= 95


def test_nothing_seen_proves_nothing_and_everything_seen_does_not_overflow() -> None:
    assert betting.capital([]) == 1.0
    assert betting.capital(betting.that_preferred([1] * 20_000)) > 1e200
    assert betting.capital(betting.that_not_preferred([1] * 20_000)) == pytest.approx(0.0)
