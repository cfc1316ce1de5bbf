"""The faults, as a table: who is struck, by what, and when. A cell is one of them with a seed, in a folder of its own.

What strikes, and who is asked afterwards, is in runs.py, chats.py, keepers.py and engines.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.grounds import Grounds


@dataclass
class Came:
    """What came of a cell."""

    how: str  # in a word or two, to be counted
    broken: list[str] = field(default_factory=list)
    kills: int = 0  # processes that SIGKILL really ended
    strikes: int = 1  # of the fault, whatever it is


class NotHere(Exception):
    """This machine cannot have that fault."""


@dataclass(frozen=True)
class Cell:
    grounds: Grounds
    folder: Path  # empty
    rng: random.Random


@dataclass(frozen=True)
class Fault:
    kind: str
    who: str
    what: str
    when: str
    play: Callable[..., Came]
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, str]:
        return self.who, self.what, self.when

    @property
    def name(self) -> str:
        return "-".join(self.place).replace(" ", "_").replace(",", "")

    def strike(self, grounds: Grounds, folder: Path, seed: int) -> Came:
        folder.mkdir(parents=True)
        return self.play(Cell(grounds, folder, random.Random(f"{seed} {self.name}")), **self.told)
