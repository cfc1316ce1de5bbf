"""Which of many questions with their answers are copies, or near copies, of an earlier one. Pure.

Two are near copies where their questions, what was said before, and their answers are each alike: character 2- and
3-grams of the texts without punctuation (word shingles miss Chinese), Jaccard at or above a bar, and the very same
numbers, for a fact with another number is another fact. MinHash only finds candidates; each is then compared exactly,
so that no estimate decides. Knows nothing of ratings.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import Any

import numpy as np
from rensa import RMinHash, RMinHashLSH

HASHES, HASH_SEED = 256, 42
FOUND_SHARE = 0.99  # of those just as alike as the bar, this many at least become candidates
ESTIMATE_ERROR = 0.12  # four standard deviations of the Jaccard that 256 hashes estimate
BATCH = 2000
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, without pattern: 2^64 over the golden ratio (Knuth, TAOCP 6.4)
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
    suspected = _suspected(said, places, least)
    sketches = _rows([said[place] for place in suspected])
    banded: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    near: dict[int, int] = {}
    for at, place in enumerate(suspected):
        keys = [*enumerate(each.tobytes() for each in np.split(sketches[at], bands(least)))]
        candidates = sorted({each for key in keys for each in banded[key]})
        likely = np.mean(sketches[candidates] == sketches[at], axis=1) >= least - ESTIMATE_ERROR
        others = (suspected[each] for each, is_likely in zip(candidates, likely, strict=True) if is_likely)
        first = next((each for each in others if are_near(said[each], said[place], least)), None)
        if first is not None:
            near[place] = first
            continue
        for key in keys:
            banded[key].append(at)
    return near


def _suspected(said: Sequence[Said], places: Sequence[int], least: float) -> list[int]:
    """Those that share a band with any other: of most texts there is no other like them."""
    index = RMinHashLSH(threshold=least, num_perm=HASHES, num_bands=bands(least))
    sketches = [*_sketches([said[place] for place in places])]
    for number, sketch in enumerate(sketches):
        index.insert_matrix(sketch, start_key=number * BATCH)
    flags = (flag for sketch in sketches for flag in index.query_duplicate_flags_matrix(sketch))
    return [place for place, flag in zip(places, flags, strict=True) if flag]


def _rows(said: Sequence[Said]) -> Any:
    """Their sketches as an array (texts, HASHES)."""
    parts = [np.array(sketch.to_rows(), np.uint32) for sketch in _sketches(said)]
    return np.concatenate(parts) if parts else np.zeros((0, HASHES), np.uint32)


def bands(least: float) -> int:
    """As few as find enough: fewer and longer ones spare the comparisons of what is only a little alike."""
    rows = (size for size in (8, 4, 2, 1) if 1 - (1 - least**size) ** (HASHES // size) >= FOUND_SHARE)
    return HASHES // next(rows, 1)


def _sketches(said: Sequence[Said]) -> Iterator[Any]:
    """A matrix for each BATCH of them."""
    for start in range(0, len(said), BATCH):
        hashes, offsets = _hashes(said[start : start + BATCH])
        yield RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm=HASHES, seed=HASH_SEED)


def _hashes(said: Sequence[Said]) -> tuple[Any, Any]:
    """The grams of all, as numbers, and where those of each begin. Those of questions and of answers are told apart:
    where each is alike by the bar, both together are."""
    texts = [text * 2 if len(text) == 1 else text for each in said for text in each.parts[:2]]
    codes = np.frombuffer("\0".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    text = np.cumsum(codes == 0)  # of each character the number of its text; two of them are one
    found = []
    for size in (2, 3):
        count = max(0, len(codes) - size + 1)
        mixed = (text[:count] % 2 * 8 + size).astype(np.uint64)
        whole = np.full(count, True)
        for at in range(size):
            mixed = (mixed + codes[at : at + count]) * MIX
            mixed ^= mixed >> np.uint64(29)
            whole &= codes[at : at + count] > 0
        found.append((mixed[whole], text[:count][whole] // 2))
    hashes, owners = (np.concatenate(each) for each in zip(*found, strict=True))
    sizes = np.bincount(owners, minlength=len(said))
    return hashes[np.argsort(owners, kind="stable")], np.r_[0, np.cumsum(sizes)].astype(np.uint64)
