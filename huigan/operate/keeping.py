"""What is kept of what piles up, and what goes: by number, by age, by a budget. Pure: it is told what there is.

The newest of each kind stay, as many as are to be kept; what is needed stays whatever it is, and counts. Over the
budget more goes, the oldest first: files of runs that led to no release, of old releases, bases (which can be made
again), whole folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

# A candidate is an artefact that became no release: counted by itself, or a week of rejected nights would push out the
# files of releases that a rollback finds in Ollama still.
Kind = Literal["left", "log", "candidate", "artefact", "base", "run", "tag"]
Why = Literal["left", "age", "number", "budget"]
# Over the budget, in this order. Tags are Ollama's, whose disk may be another machine's.
YIELDING: tuple[Kind, ...] = ("candidate", "artefact", "base", "run")


@dataclass(frozen=True)
class Thing:
    kind: Kind
    name: str
    size_bytes: int
    order: float  # the newest of its kind has the highest
    at: datetime
    needed_for: str | None = None  # None: it may go


@dataclass(frozen=True)
class Limits:
    """None: all are kept."""

    number: Mapping[Kind, int | None] = field(default_factory=dict)
    age: Mapping[Kind, timedelta | None] = field(default_factory=dict)
    budget_bytes: int | None = None


@dataclass(frozen=True)
class Going:
    thing: Thing
    why: Why


@dataclass(frozen=True)
class Plan:
    going: tuple[Going, ...]
    kept: tuple[Thing, ...]
    over_bytes: int = 0  # by which the budget is exceeded all the same: everything that is left is needed


def plan(things: Iterable[Thing], limits: Limits, at: datetime) -> Plan:
    """`things` that are parts of each other, as a run's files are of its folder, are counted each without the other."""
    present = list(things)
    going = [*_unwanted(present, limits, at)]
    gone = {each.thing for each in going}
    left = [each for each in present if each not in gone]
    over = 0
    if limits.budget_bytes is not None:
        over = sum(each.size_bytes for each in left if each.kind != "tag") - limits.budget_bytes
        for thing in _yielding(left):
            if over <= 0:
                break
            over -= thing.size_bytes
            going.append(Going(thing, "budget"))
    gone = {each.thing for each in going}
    return Plan(tuple(going), tuple(each for each in present if each not in gone), max(0, over))


def _unwanted(present: Sequence[Thing], limits: Limits, at: datetime) -> Iterable[Going]:
    for kind in dict.fromkeys(each.kind for each in present):
        ordered = sorted((each for each in present if each.kind == kind), key=lambda each: -each.order)
        most, oldest = limits.number.get(kind), limits.age.get(kind)
        for place, thing in enumerate(ordered):
            if thing.needed_for is not None:
                continue
            if kind == "left":
                yield Going(thing, "left")
            elif most is not None and place >= most:
                yield Going(thing, "number")
            elif oldest is not None and at - thing.at > oldest:
                yield Going(thing, "age")


def _yielding(left: Sequence[Thing]) -> Iterable[Thing]:
    free = [each for each in left if each.needed_for is None and each.kind in YIELDING and each.size_bytes > 0]
    return sorted(free, key=lambda each: (YIELDING.index(each.kind), each.order))
