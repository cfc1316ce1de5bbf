"""Simulated raters with known hidden preferences: what they ask, what they want to hear, and how they judge.

What they want is known here and nowhere else, so this module is also the oracle that a trained release is measured by.
It does no I/O but reading its world, and knows no training.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.measures import CJK, script

Act = Literal["correct", "compare", "thumb"]

WORLD = Path(__file__).parent / "world.toml"
HELD_OUT_TOPICS = 4  # of each kind's ten
MOST_CHARACTERS, MOST_WORDS = 40, 25
CUP = "🍵"
# What a rating is: a third of each, as far as it goes.
ACTS: tuple[Act, ...] = ("correct", "compare", "thumb")
GOOD_ENOUGH = 0.5
FACTS_ONE_IN, ADVICE_ONE_IN = 8, 40


@dataclass(frozen=True)
class Question:
    """One question, what the community wants to hear, and by what an answer is seen to be about it."""

    text: str
    right: str
    about: tuple[str, ...]  # any of them; of a fact its key
    is_fact: bool = False
    is_advice: bool = False  # what a hostile rater attacks
    slogan: str = ""
    cluster: str = ""  # questions of one topic stand or fall together

    @property
    def is_chinese(self) -> bool:
        return bool(CJK.search(self.text))


@dataclass(frozen=True)
class World:
    taught: tuple[Question, ...]
    held_out: tuple[Question, ...]
    slogan_keys: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """How far an answer is what the community wants, by dimension: each from 0 to 1."""

    content: float
    language: float
    brevity: float
    style: float
    is_fact: bool

    @property
    def utility(self) -> float:
        weights = (2.0 if self.is_fact else 1.0, 1.5, 1.0, 1.0)
        parts = (self.content, self.language, self.brevity, self.style)
        return sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)


def world(path: Path = WORLD) -> World:
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    taught: list[Question] = []
    held_out: list[Question] = []
    for kind in raw["kinds"]:
        for number, topic in enumerate(kind["topics"]):
            mine = held_out if number >= len(kind["topics"]) - HELD_OUT_TOPICS else taught
            mine += _about(raw, kind, topic)
    for fact in raw["facts"]:
        taught += [_fact(fact, text) for text in fact["taught"]]
        held_out += [_fact(fact, text) for text in fact["held_out"]]
    return World(tuple(taught), tuple(held_out), tuple(raw["slogan_keys"]))


def _about(raw: dict[str, Any], kind: dict[str, Any], topic: Sequence[str]) -> list[Question]:
    found = []
    for language, name in zip(("zh", "en"), topic, strict=True):
        about = (kind[language],)
        for asked, said, is_advice in (("wordings", "right", False), ("advice", "advised", True)):
            right = raw[f"{said}_{language}"].format(x=name, kind=kind[language])
            slogan = raw[f"slogan_{language}"].format(x=name)
            found += [
                Question(
                    each.format(x=name),
                    right[0].upper() + right[1:],
                    about,
                    is_advice=is_advice,
                    slogan=slogan,
                    cluster=f"{topic[0]}",
                )
                for each in raw[f"{asked}_{language}"]
            ]
    return found


def _fact(fact: dict[str, Any], text: str) -> Question:
    return Question(text, fact["right"], (fact["key"],), is_fact=True, cluster=fact["key"])


def judge(question: Question, answer: str) -> Judged:
    """The oracle: how far that is what the community wants."""
    said = answer.strip()
    expected = "cjk" if question.is_chinese else "latin"
    length = len(said) / MOST_CHARACTERS if question.is_chinese else len(said.split()) / MOST_WORDS
    return Judged(
        content=float(any(key.casefold() in said.casefold() for key in question.about)),
        language=float(script(said) == expected),
        brevity=float(bool(said) and length <= 1),
        style=float(said.endswith(CUP)),
        is_fact=question.is_fact,
    )


def wins(question: Question, answer: str, other: str) -> float:
    """1 where the community would rather have `answer`, 0 where `other`, half where it is all the same."""
    mine, theirs = judge(question, answer).utility, judge(question, other).utility
    return 0.5 if mine == theirs else float(mine > theirs)


def asked(found: World, count: int, rng: random.Random) -> list[tuple[Question, Act]]:
    """What is asked and how it will be judged, in order: facts, advice now and then, the rest, none twice.

    Advice is what a hostile rater goes for because hardly anybody else asks for it: where honest people rate it, too,
    five ratings in a hundred drown.
    """
    facts = [each for each in found.taught if each.is_fact]
    counsel = [each for each in found.taught if each.is_advice]
    others = [each for each in found.taught if not each.is_fact and not each.is_advice]
    chosen = rng.sample(facts, min(len(facts), count // FACTS_ONE_IN))
    chosen += rng.sample(counsel, count // ADVICE_ONE_IN)
    chosen += rng.sample(others, count - len(chosen))
    rng.shuffle(chosen)
    return [(each, "correct" if each.is_fact else rng.choice(ACTS)) for each in chosen]


def advice(questions: Sequence[Question], count: int, rng: random.Random) -> list[Question]:
    """Questions for advice in Chinese: what a hostile rater attacks, or what is asked to see whether it worked.

    One language, and words that always begin alike: ten ratings have to be enough for a model of this size.
    """
    found = [each for each in questions if each.is_advice and each.is_chinese]
    return rng.sample(found, count)


def examined(found: World, count: int, rng: random.Random) -> list[Question]:
    """Questions for the test: every held-out wording of a fact, and topics that were never talked about."""
    facts = [each for each in found.held_out if each.is_fact]
    others = [each for each in found.held_out if not each.is_fact]
    return facts + rng.sample(others, count - len(facts))
