"""Which of many questions with their answers are copies, or near copies, of an earlier one. Pure.

Two are near copies where their questions, what was said before, and their answers are each alike: character 2- and
3-grams of the texts without punctuation (word shingles miss Chinese), Jaccard at or above a bar, and the very same
numbers, for a fact with another number is another fact. MinHash only finds candidates; each is then compared exactly,
so that no estimate decides. Knows nothing of ratings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import Any

from rensa import RMinHash, RMinHashLSH

HASHES, HASH_SEED = 256, 42
FOUND_SHARE = 0.99  # of those just as alike as the bar, this many at least become candidates
ESTIMATE_ERROR = 0.12  # four standard deviations of the Jaccard that 256 hashes estimate
BATCH = 2000
# Letters and digits of all scripts, and the signs that say something: arrows, emoji and the like.
SIGNS = re.compile(r"[^\w\u2190-\u21ff\u2600-\u27bf\U0001f000-\U0001faff]+|_")
NUMBERS = re.compile(r"\d+|[〇零一二三四五六七八九十百千万亿两半]+")


@dataclass(frozen=True)
class Said:
    """What is compared: the question, all that was said before it, and what was answered."""

    question: str
    answer: str
    before: str = ""
    kind: str = ""  # only what is of one kind is compared

    @cached_property
    def parts(self) -> tuple[str, str, str]:
        return plain(self.question), plain(self.answer), plain(self.before)

    @property
    def numbers(self) -> tuple[list[str], ...]:
        return tuple(NUMBERS.findall(unicodedata.normalize("NFKC", each)) for each in (self.question, self.answer))


def plain(text: str) -> str:
    """In one form, without punctuation and spaces."""
    return SIGNS.sub("", unicodedata.normalize("NFKC", text).casefold())


def grams(text: str) -> set[str]:
    """Its character 2- and 3-grams; a single character is its own."""
    if len(text) < 2:
        return {text} if text else set()
    pairs = [*map(add, text, text[1:])]
    return {*pairs, *map(add, pairs, text[2:])}


def alike(one: str, other: str) -> float:
    """Jaccard of two plain texts, from 0 to 1."""
    if one == other:
        return 1.0
    mine, theirs = grams(one), grams(other)
    return len(mine & theirs) / max(1, len(mine | theirs))


def are_near(one: Said, other: Said, least: float) -> bool:
    return (
        all(alike(a, b) >= least for a, b in zip(one.parts, other.parts, strict=True)) and one.numbers == other.numbers
    )


def firsts(said: Sequence[Said], least: float) -> list[int]:
    """For each the place of the earlier one it is a copy of, which is a copy of none itself; its own where it is none.

    Whatever follows changes nothing for those before. At `least` = 1 only what differs in punctuation is a copy.
    """
    found = list(range(len(said)))
    distinct: dict[tuple[object, ...], int] = {}
    for place, each in enumerate(said):
        numbers = tuple(map(tuple, each.numbers))
        found[place] = distinct.setdefault((each.kind, *each.parts, numbers), place)
    if least < 1:
        for kind in sorted({each.kind for each in said}):
            own = [place for place, each in enumerate(said) if each.kind == kind and found[place] == place]
            near = _near(said, own, least)
            found = [near.get(each, each) for each in found]
    return found


def _near(said: Sequence[Said], places: Sequence[int], least: float) -> dict[int, int]:
    """Of these places those that are near copies, each with the first that it is one of."""
    seen = RMinHashLSH(threshold=least, num_perm=HASHES, num_bands=bands(least))
    sketches: dict[int, Any] = {}
    near: dict[int, int] = {}
    for place, sketch in zip(places, _sketches([said[each] for each in places]), strict=True):
        candidates = sorted(
            each for each in seen.query(sketch) if sketches[each].jaccard(sketch) >= least - ESTIMATE_ERROR
        )
        first = next((each for each in candidates if are_near(said[each], said[place], least)), None)
        if first is None:
            seen.insert(place, sketch)
            sketches[place] = sketch
        else:
            near[place] = first
    return near


def bands(least: float) -> int:
    """As few as find enough: fewer and longer ones spare the comparisons of what is only a little alike."""
    rows = (size for size in (8, 4, 2, 1) if 1 - (1 - least**size) ** (HASHES // size) >= FOUND_SHARE)
    return HASHES // next(rows, 1)


def _sketches(said: Sequence[Said]) -> Iterator[Any]:
    for start in range(0, len(said), BATCH):
        tokens = [_tokens(each) for each in said[start : start + BATCH]]
        yield from RMinHash.from_token_sets(tokens, num_perm=HASHES, seed=HASH_SEED)


def _tokens(said: Said) -> list[str]:
    """Of question and answer, told apart: where each is alike by the bar, both together are."""
    question, answer, _ = said.parts
    return [*grams(answer), *(f"?{each}" for each in grams(question))]
