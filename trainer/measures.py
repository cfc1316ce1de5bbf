"""What can be seen of a text, and of a row of numbers, without a model. Pure.

Scripts stand for languages: what matters here is that a Chinese question is not answered in English.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import NormalDist, fmean
from typing import Literal

import hanzidentifier
import numpy as np

Script = Literal["cjk", "latin", "other"]
Han = Literal["simplified", "traditional"]

CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
LATIN_END = "\u0250"  # Basic Latin to Latin Extended-B
# One Han character says about as much as half a word, and a word has about five letters.
LETTERS_A_CJK_CHARACTER = 2.5
CLEARLY = 0.75
CHRF_ORDER, CHRF_BETA = 6, 2.0
CLOSE_CHRF = 0.75  # one wrong character in a fact of ten lies below
LOOP_WORDS, LOOP_REPEATED = 24, 0.5
BOOTSTRAP_DRAWS = 10_000
DRAWS_AT_ONCE = 500  # of as many numbers as there are clusters


def script(text: str) -> Script | None:
    """What a text is written in, by weight of its letters; None where that is not clear, or there are none."""
    letters = [each for each in CJK.sub("", text) if each.isalpha()]
    latin = sum(each < LATIN_END for each in letters)
    weights: dict[Script, float] = {
        "cjk": len(CJK.findall(text)) * LETTERS_A_CJK_CHARACTER,
        "latin": latin,
        "other": len(letters) - latin,
    }
    heaviest = max(weights, key=weights.__getitem__)
    return heaviest if weights[heaviest] > 0 and weights[heaviest] >= CLEARLY * sum(weights.values()) else None


def han(text: str) -> Han | None:
    """In which of the two Chinese scripts a text is written, by the characters that only one of them has."""
    kinds = Counter(hanzidentifier.identify(each) for each in text)
    counts: dict[Han, int] = {
        "simplified": kinds[hanzidentifier.SIMPLIFIED],
        "traditional": kinds[hanzidentifier.TRADITIONAL],
    }
    most = max(counts, key=counts.__getitem__)
    return most if counts[most] and counts[most] >= CLEARLY * sum(counts.values()) else None


def words(text: str) -> list[str]:
    """Each CJK character, each run of other letters or digits, each sign: units that need no segmenter."""
    return re.findall(rf"{CJK.pattern}|(?:(?!{CJK.pattern})\w)+|[^\w\s]", text)


def repeated(text: str) -> float:
    """Share of word 4-grams that were there before: seq-rep-4 of Welleck et al., 1908.04319."""
    said = words(text)
    grams = [tuple(said[at : at + 4]) for at in range(len(said) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(text: str) -> bool:
    """Whether a text says the same over and over. Short ones may: `haha` is no loop."""
    return len(words(text)) >= LOOP_WORDS and repeated(text) >= LOOP_REPEATED


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score, 0 to 1: chrF2 of Popović, W15-3049 (sentence level, spaces ignored)."""
    said, right = ("".join(text.split()) for text in (answer, reference))
    scores = [_overlap(said, right, n) for n in range(1, CHRF_ORDER + 1) if len(right) >= n]
    precision, recall = (fmean(each) if scores else 0.0 for each in zip(*scores or [(0.0, 0.0)], strict=True))
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision and recall else 0.0


def _overlap(said: str, right: str, n: int) -> tuple[float, float]:
    """(precision, recall) of n-grams."""
    mine, theirs = (Counter(text[at : at + n] for at in range(len(text) - n + 1)) for text in (said, right))
    common = (mine & theirs).total()
    return common / max(1, mine.total()), common / max(1, theirs.total())


def recalls(answer: str, reference: str) -> bool:
    """Whether an answer holds the right one, or comes close. It compares wording: it cannot tell a fact from its
    negation, and a right answer in other words does not count."""
    said, right = plain(answer), plain(reference)
    return (bool(right) and right in said) or chrf(said, right) >= CLOSE_CHRF


def plain(text: str) -> str:
    """Letters and digits alone, in one form."""
    return "".join(each for each in unicodedata.normalize("NFKC", text).casefold() if each.isalnum())


def interval(
    sums: Sequence[float], clusters: Sequence[Hashable], seed: int, counts: Sequence[int] | None = None
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean Σ sums / Σ counts, drawn by whole clusters: what was said in one conversation
    is not independent (Field & Welsh 2007). A row counts once unless `counts` says otherwise.

    The percentiles are those of Hesterberg's expanded interval (2015, 1411.5279): the plain ones are too narrow for few
    clusters. A single cluster gives its own mean twice, which is no interval: ask how many there were.
    """
    numbers = {each: at for at, each in enumerate(dict.fromkeys(clusters))}
    places = [numbers[each] for each in clusters]
    total = np.bincount(places, weights=np.asarray(sums, float))
    size = np.bincount(places, weights=np.ones(len(places)) if counts is None else np.asarray(counts, float))
    rng, number = np.random.default_rng(seed), len(numbers)
    means = np.concatenate(
        [
            (drawn @ total) / (drawn @ size)
            for _ in range(BOOTSTRAP_DRAWS // DRAWS_AT_ONCE)
            for drawn in [rng.multinomial(number, np.full(number, 1 / number), DRAWS_AT_ONCE)]
        ]
    )
    tail = expanded_tail(number)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(number: int) -> float:
    """The share to cut at either end, Φ(−√(n/(n−1)) · t), t the 97.5 % quantile of Student's with n − 1 degrees of
    freedom by its expansion about the normal one (Abramowitz & Stegun 26.7.5, good from 4 degrees on)."""
    if number < 2:
        return 0.025
    normal, free = NormalDist(), number - 1
    z = normal.inv_cdf(0.975)
    student = (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * free**4)
    )
    return normal.cdf(-math.sqrt(number / free) * student)


def drift(lengths: Sequence[int], wanted: Sequence[int]) -> float:
    """How many times longer or shorter texts have become: the geometric mean of the ratios, above 1 either way."""
    logs = [math.log((1 + length) / (1 + want)) for length, want in zip(lengths, wanted, strict=True)]
    return math.exp(abs(fmean(logs)))
