"""What keeps one loud or hostile person from moving the release. Pure: no I/O, clock or dice.

    trust      how often somebody agrees with others who judged the same, shrunk to a prior
    bursts     many judgements faster than anybody reads
    campaigns  a wording that one person's texts repeat over several questions, and nobody else's texts hold
    by √n      who judges much counts more than who judges little, but not in proportion

What is held back by these is quarantined, not deleted: it counts as soon as somebody else says the same. Nothing here
can tell a lone truth from a lone lie; it makes sure that one person alone does not teach either.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import numpy as np

from trainer.copies import alike, plain
from trainer.measures import CJK

# Beta(4, 1): who was never compared is trusted 0.8, and nobody is distrusted for a disagreement or two.
PRIOR_AGREED, PRIOR_DIFFERED = 4.0, 1.0
# Of what two people judged in common no more counts: else one hostile person could pull down whoever judges with them.
MOST_A_PARTNER = 3.0
MAJORITY = 0.6  # of the trust on both sides: two against one have it, one against one has not

# People skim 60 characters a second at most and press for a second; a burst is three times as fast as that.
SKIMMED_CHARACTERS_A_SECOND, PRESS_SECONDS, TOO_FAST = 60.0, 1.0, 3.0

# A wording: five Chinese characters, three words, or four of both: size, and how many words of it at least. A word says
# more than a character. Shorter ones are language, not a message.
WORDINGS = ((5, 0), (4, 2), (3, 3))
UNITS = re.compile(rf"{CJK.pattern}|[^\W{CJK.pattern[1:-1]}]+")
MIX = 0x9E3779B97F4A7C15  # odd, without pattern: 2^64 over the golden ratio (Knuth, TAOCP 6.4)
TEXTS_AT_ONCE = 5000
SAME_QUESTION = 0.8  # Jaccard: asked again in almost the same words, it is no other question
# Were it a habit of everybody, the others would have been expected to use it this often.
EXPECTED_OF_OTHERS = 3.0
OTHERS = 2  # fewer than these who could support a wording, and its lone use says nothing


@dataclass(frozen=True)
class Vote:
    """One judgement: `key` names it, `choice` is what they say of `subject`. `characters` had to be read for it."""

    key: Hashable
    rater_id: int
    subject: Hashable
    choice: Hashable
    at: datetime
    characters: int = 0


@dataclass(frozen=True)
class Approved:
    """A text that somebody wrote or liked as the answer to a question; `given` is all that it was given to."""

    key: Hashable
    rater_id: int
    question: str
    text: str
    at: datetime
    given: str = ""


@dataclass(frozen=True)
class Heard:
    """What was said at some time: by the release to what it was given, or by people."""

    text: str
    at: datetime
    given: str = ""
    rater_ids: frozenset[int] = frozenset()  # those who said it; nobody, where the release did

    def is_not_only(self, rater_id: int) -> bool:
        return self.rater_ids != {rater_id}


class Units(dict[str, int]):
    """A number for each unit that was asked for: a Chinese character (even, from 2) or a word of others (odd)."""

    def __missing__(self, unit: str) -> int:
        self[unit] = 2 * len(self) + 2 + (len(unit) > 1)
        return self[unit]


def trusted(votes: Iterable[Vote]) -> dict[int, float]:
    """Of each rater the posterior mean that they agree with another, by whom they judged with."""
    together: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])  # agreed, in common
    raters: set[int] = set()
    for said in by_subject(votes).values():
        raters |= said.keys()
        for one, choice in said.items():
            for other, theirs in said.items():
                if one != other:
                    together[one, other][0] += choice == theirs
                    together[one, other][1] += 1
    agreed: dict[int, float] = defaultdict(float)
    counted: dict[int, float] = defaultdict(float)
    for (one, _), (same, common) in sorted(together.items()):
        weight = min(MOST_A_PARTNER, common)
        agreed[one] += weight * same / common
        counted[one] += weight
    prior = PRIOR_AGREED + PRIOR_DIFFERED
    return {each: (PRIOR_AGREED + agreed[each]) / (prior + counted[each]) for each in sorted(raters)}


def by_subject(votes: Iterable[Vote]) -> dict[Hashable, dict[int, Hashable]]:
    """What each rater says of each subject; who says two things of one subject says the last."""
    found: dict[Hashable, dict[int, Hashable]] = defaultdict(dict)
    for each in votes:
        found[each.subject][each.rater_id] = each.choice
    return found


def decided(said: Mapping[int, Hashable], trust: Mapping[int, float]) -> Hashable | None:
    """What most of the trust says of one subject, None where that is no clear majority."""
    sides: dict[Hashable, float] = defaultdict(float)
    for rater_id, choice in sorted(said.items()):
        sides[choice] += trust.get(rater_id, PRIOR_AGREED / (PRIOR_AGREED + PRIOR_DIFFERED))
    best = max(sides, key=sides.__getitem__)
    return best if sides[best] > MAJORITY * sum(sides.values()) else None


def distrusted(votes: Sequence[Vote], trust: Mapping[int, float], bar: float) -> set[Hashable]:
    """The judgements of raters below the bar that nobody above it makes, too."""
    return _unsupported(votes, {each.key for each in votes if trust.get(each.rater_id, 1.0) < bar})


def bursts(votes: Sequence[Vote], least: int) -> set[Hashable]:
    """The judgements that came with `least` or more others far faster than reading allows, unless others say the same.

    All at one instant is no person's speed but a clock that stood still: an import, or a simulation.
    """
    held: set[Hashable] = set()
    of_rater: dict[int, list[Vote]] = defaultdict(list)
    for each in sorted(votes, key=lambda vote: vote.at):
        of_rater[each.rater_id].append(each)
    for mine in of_rater.values():
        needed = [PRESS_SECONDS + each.characters / SKIMMED_CHARACTERS_A_SECOND for each in mine]
        for first in range(len(mine) - least + 1):
            window = mine[first : first + least]
            seconds = (window[-1].at - window[0].at).total_seconds()
            if 0 < seconds * TOO_FAST < sum(needed[first + 1 : first + least]):
                held |= {each.key for each in window}
    return _unsupported(votes, held)


def _unsupported(votes: Iterable[Vote], held: set[Hashable]) -> set[Hashable]:
    """Without those of which somebody else, whose judgement is not held itself, says the same."""
    said = {(each.subject, each.choice, each.rater_id) for each in votes if each.key not in held}
    by_choice: dict[tuple[Hashable, Hashable], set[int]] = defaultdict(set)
    for subject, choice, rater_id in said:
        by_choice[subject, choice].add(rater_id)
    return {
        each.key for each in votes if each.key in held and not by_choice[each.subject, each.choice] - {each.rater_id}
    }


def campaigns(approved: Sequence[Approved], others: Iterable[Heard], least: int) -> set[Hashable]:
    """The texts that hold a wording which one rater's texts repeat over `least` questions or more, though what these
    were given to did not have it, and which was heard from nobody else before: not in texts that somebody else approved
    of, nor in `others`, what the release said by itself and what people asked.

    Who runs one campaign is looked at more closely: two questions make the next.
    """
    raters = Counter(each.rater_id for each in approved)
    if len(raters) <= OTHERS:
        return set()
    held: set[Hashable] = set()
    found = _lone(approved, [*others])
    for rater_id in sorted({rater_id for rater_id, _ in found}):
        mine = [places for (whose, _), places in sorted(found.items()) if whose == rater_id]
        spread = [(_questions([approved[place] for place in places]), places) for places in mine]
        rest = len(approved) - raters[rater_id]
        telling = [
            (asked, places) for asked, places in spread if rest * len(places) / raters[rater_id] >= EXPECTED_OF_OTHERS
        ]
        if any(asked >= least for asked, _ in telling):
            held |= {approved[place].key for asked, places in telling if asked >= 2 for place in places}
    return held


def _questions(texts: Iterable[Approved]) -> int:
    """How many different questions they answer."""
    known: list[str] = []
    for question in sorted({plain(each.question) for each in texts}):
        if all(alike(question, each) < SAME_QUESTION for each in known):
            known.append(question)
    return len(known)


def _lone(approved: Sequence[Approved], others: Sequence[Heard]) -> dict[tuple[int, int], list[int]]:
    """By rater and wording the places of their texts, two at least, that hold it though nobody else said it before."""
    index = Units()
    wordings, places = _wordings([each.text for each in approved], index)
    rater = np.array([each.rater_id for each in approved], np.int64)[places]
    order = np.argsort(wordings, kind="stable")
    wordings, places, rater = wordings[order], places[order], rater[order]
    starts = np.flatnonzero(np.r_[True, wordings[1:] != wordings[:-1]][: len(wordings)])
    if not len(starts):
        return {}
    sizes = np.diff(np.r_[starts, len(wordings)])
    lone = (np.minimum.reduceat(rater, starts) == np.maximum.reduceat(rater, starts)) & (sizes >= 2)
    chosen = np.repeat(lone, sizes)
    found: dict[int, set[int]] = defaultdict(set)
    for wording, place in zip(wordings[chosen].tolist(), places[chosen].tolist(), strict=True):
        found[wording].add(place)
    wanted = np.array(sorted(found), np.uint64)
    echoed = _held(
        sorted({place for each in found.values() for place in each}), [each.given for each in approved], wanted, index
    )
    own = {wording: sorted(place for place in held if wording not in echoed[place]) for wording, held in found.items()}
    heard = _heard(own, approved, others, wanted, index)
    return {
        (approved[held[0]].rater_id, wording): held
        for wording, held in own.items()
        if len(held) >= 2 and wording not in heard
    }


def _heard(
    own: Mapping[int, Sequence[int]],
    approved: Sequence[Approved],
    others: Sequence[Heard],
    wanted: Any,
    index: Units,
) -> set[int]:
    """The wordings that somebody else had said when the rater first used them."""
    said = _held(range(len(others)), [each.text for each in others], wanted, index)
    given = _held([place for place, each in said.items() if each], [each.given for each in others], wanted, index)
    heard: set[int] = set()
    for place, wordings in said.items():
        for wording in wordings - given.get(place, set()):
            uses = [approved[each] for each in own.get(wording, ())]
            if (
                uses
                and others[place].at <= min(each.at for each in uses)
                and others[place].is_not_only(uses[0].rater_id)
            ):
                heard.add(wording)
    return heard


def _held(places: Sequence[int], texts: Sequence[str], wanted: Any, index: Units) -> dict[int, set[int]]:
    """Which of the wanted wordings the texts at those places hold."""
    found: dict[int, set[int]] = {place: set() for place in places}
    for start in range(0, len(places), TEXTS_AT_ONCE):
        part = places[start : start + TEXTS_AT_ONCE]
        wordings, at = _wordings([texts[place] for place in part], index)
        chosen = np.isin(wordings, wanted)
        for wording, place in zip(wordings[chosen].tolist(), at[chosen].tolist(), strict=True):
            found[part[place]].add(wording)
    return found


def _wordings(texts: Sequence[str], index: Units) -> tuple[Any, Any]:
    """Every wording of every text as a number, and the place of its text.

    `index` grows by the units that are new.
    """
    units: list[int] = []
    lengths = []
    for text in texts:
        mine = [*map(index.__getitem__, UNITS.findall(_folded(text)))]
        units += [*mine, 0]
        lengths.append(len(mine) + 1)
    numbers = np.array(units, np.uint64)
    places = np.repeat(np.arange(len(texts)), lengths)
    found = []
    for size, least_words in WORDINGS:
        count = max(0, len(numbers) - size + 1)
        mixed = np.full(count, size, np.uint64)
        whole = np.full(count, True)
        words = np.zeros(count, np.int64)
        for at in range(size):
            part = numbers[at : at + count]
            mixed = mixed * MIX + part
            whole &= part > 0
            words += (part % 2).astype(np.int64)
        whole &= words >= least_words
        found.append((mixed[whole], places[:count][whole]))
    wordings, of = (np.concatenate(each) for each in zip(*found, strict=True))
    return wordings, of


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def weights(counts: Mapping[int, int]) -> dict[int, float]:
    """How much each example of a rater with so many counts: all of theirs together grow with √n, from the median on."""
    middle = median(counts.values()) if counts else 0
    return {rater_id: min(1.0, math.sqrt(middle / count)) for rater_id, count in counts.items()}
