"""Bets against a claim, which may be looked at whenever one likes: the mathematics of docs/canary.md. Pure.

Whoever bets against what is true wins nothing on average, and turns 1 into 1/α with a probability of at most α,
however often it is looked at and whenever one stops (Ville 1939). So capital that has grown to 1/α is a proof against
the claim, at an error rate of α. Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
arXiv 2010.09686.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# The capital is divided among these: each stakes that part of its own on every bet. Evenly spaced in the logarithm, for
# nobody knows how large a difference is ("diversified Kelly betting" of the paper). None stakes all: one loss in a row
# of gains must not be the end.
STAKES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
KEPT = 0.98  # of what counted in a 👍 share, after one more thumb: the last fifty or so tell
MOST = 600.0  # of a capital's logarithm: what is proven beyond doubt need not overflow


@dataclass(frozen=True)
class Bet:
    """What one observation has gained, negative for a loss, and the most it could have lost; known before it was made.
    Where the claim holds it gains nothing on average, whatever came before."""

    gain: float
    most_lost: float


@dataclass(frozen=True)
class Thumbed:
    """The first thumb of one conversation, in the order in which they were given."""

    is_candidates: bool
    share: float  # the chance that the candidate had of answering it
    is_up: bool


def capital(bets: Iterable[Bet]) -> float:
    """What has become of 1."""
    now = 1.0
    for now in capitals(bets):  # noqa: B007
        pass
    return now


def capitals(bets: Iterable[Bet]) -> Iterator[float]:
    """What has become of 1 after each bet."""
    logarithms = [0.0] * len(STAKES)
    for bet in bets:
        odds = bet.gain / bet.most_lost
        logarithms = [before + math.log1p(stake * odds) for before, stake in zip(logarithms, STAKES, strict=True)]
        yield sum(math.exp(min(each, MOST)) for each in logarithms) / len(STAKES)


def that_better(observed: Iterable[Thumbed], margin: float = 0.0) -> Iterator[Bet]:
    """Against the claim that the candidate's 👍 share is below the live one's, or above it by no more than minus
    `margin`: 0 asks for proof that it is liked better, more that it is liked about as well."""
    for each, middle in _with_middles(observed):
        allowed = each.share * (1 - each.share) * margin
        lost = max(each.share * (1 - middle), (1 - each.share) * middle)
        yield Bet(_score(each, middle) + allowed, lost - allowed)


def that_worse(observed: Iterable[Thumbed], margin: float = 0.0) -> Iterator[Bet]:
    """Against the claim that the candidate's 👍 share is no more than `margin` below the live one's."""
    for each, middle in _with_middles(observed):
        allowed = each.share * (1 - each.share) * margin
        lost = max((1 - each.share) * (1 - middle), each.share * middle)
        yield Bet(-_score(each, middle) - allowed, lost + allowed)


def that_preferred(picks: Iterable[int], margin: float = 0.0) -> Iterator[Bet]:
    """Of picks between two answers to one message (1 the candidate's, -1 the live one's, 0 neither): against the claim
    that the candidate's wins, less its losses, are at most minus `margin` of all."""
    for pick in picks:
        yield Bet(pick + margin, 1 - margin)


def that_not_preferred(picks: Iterable[int], margin: float = 0.0) -> Iterator[Bet]:
    """Against the claim that its losses, less its wins, are at most `margin` of all."""
    for pick in picks:
        yield Bet(-pick - margin, 1 + margin)


def that_below(ups: Sequence[bool], bar: float) -> Iterator[Bet]:
    """Against the claim that the 👍 share is at least `bar`, which is between 0 and 1."""
    for is_up in ups:
        yield Bet(bar - is_up, 1 - bar)


def _score(each: Thumbed, middle: float) -> float:
    """How far an 👍 or 👎 speaks for the candidate. Which release answered was a lot's to say, so on average this is
    share · (1 - share) · (difference of the two 👍 shares), whatever `middle` is, whoever rates and however moods
    drift; and with a good `middle` also nothing where one of the two is only rated more often."""
    return (each.is_candidates - each.share) * (each.is_up - middle)


def _with_middles(observed: Iterable[Thumbed]) -> Iterator[tuple[Thumbed, float]]:
    """Each with the 👍 share of what came before it, shrunk to a half; what is long past has faded."""
    ups, count = 1.0, 2.0
    for each in observed:
        yield each, ups / count
        ups, count = KEPT * ups + each.is_up, KEPT * count + 1
