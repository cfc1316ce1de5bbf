"""What people said of answers, and the examples made of it: the nouns between the database and a data set. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Literal

from storage.recipe import Stage
from storage.records import Answer, Comparison, Rating

Task = Literal["answers", "pairs", "thumbs"]
Split = Literal["train", "held_out"]
Prompt = tuple[tuple[str, str], ...]  # (role, content), the system message first

TASKS: tuple[Task, ...] = ("answers", "pairs", "thumbs")
SPLITS: tuple[Split, ...] = ("train", "held_out")
TASK_OF: dict[Stage, Task] = {"sft": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "thumbs"}
# Strongest first: an example that has several is called after it. "again": somebody only asked for another answer.
SOURCES = ("correction", "pick", "thumbs", "again", "replay")


@dataclass(frozen=True)
class Exchange:
    """An answer, the exact messages it was given to, and everyone whose words are among them."""

    answer: Answer
    prompt: Prompt
    author_ids: frozenset[int]
    has_images: bool = False  # which the prompt does not hold: without them the answer would teach to invent
    asker_id: int | None = None  # who wrote the question
    owner_id: int | None = None  # whose conversation it is: who began it

    @property
    def question(self) -> str:
        return self.prompt[-1][1]


@dataclass(frozen=True)
class Regeneration:
    """Somebody asked for another answer to the same message, and from the second one on the talk `went_on_at`."""

    turn_id: int
    user_id: int
    first_answer_id: int
    second_answer_id: int
    went_on_at: datetime | None = None


@dataclass(frozen=True)
class Feedback:
    """All that counts up to a watermark, as one snapshot of the database has it."""

    ratings: Sequence[Rating]
    comparisons: Sequence[Comparison]
    exchanges: Mapping[int, Exchange]  # by answer id
    consenting_ids: frozenset[int]
    regenerations: Sequence[Regeneration] = ()
    simulated_ids: frozenset[int] = frozenset()  # raters who are programs: how fast they judge says nothing
    system: str = ""  # the recipe's, which is the operator's and is trained as it is served


@dataclass(frozen=True)
class Example:
    """One row to learn from: `answers` is one text, or (chosen, rejected) in a pair; `label` is a thumb's."""

    task: Task
    prompt: Prompt
    answers: tuple[str, ...]
    source: str
    label: bool | None = None
    split: Split = "train"
    conversation_ids: frozenset[int] = frozenset()
    rater_ids: frozenset[int] = frozenset()
    rating_ids: frozenset[int] = frozenset()
    comparison_ids: frozenset[int] = frozenset()
    turn_ids: frozenset[int] = frozenset()  # of answers that were asked for again
    weight: float = 1.0  # how much it counts in training, in (0, 1]
    rated_at: datetime | None = None  # the earliest judgement behind it; None in what is replayed
    owner_id: int | None = None  # whose conversation it was first said in
    author_ids: frozenset[int] = frozenset()  # whose words are in its prompt

    @property
    def person_ids(self) -> frozenset[int]:
        """Everyone whose words or judgements it holds."""
        return self.rater_ids | self.author_ids

    @property
    def conversation_id(self) -> int | None:
        """The earliest of its conversations."""
        return min(self.conversation_ids, default=None)

    @property
    def teaches(self) -> str:
        """The answer it makes likelier; of a disliked one, that."""
        return self.answers[0]

    @cached_property
    def sha256(self) -> str:
        """Of the content alone: whoever said it, wherever, it is the same example."""
        return digest([self.task, self.prompt, self.answers, self.label])

    def row(self) -> dict[str, Any]:
        """As TRL reads it: conversational, with an explicit prompt."""
        said = [[{"role": "assistant", "content": text}] for text in self.answers]
        row: dict[str, Any] = {"prompt": [{"role": role, "content": content} for role, content in self.prompt]}
        if self.task == "pairs":
            return row | {"chosen": said[0], "rejected": said[1]}
        return row | {"completion": said[0]} | ({} if self.label is None else {"label": self.label})


@dataclass
class Dropped:
    """Counts what is left out while letting the rest pass."""

    reasons: Counter[str] = field(default_factory=Counter)

    def unless(self, fine: bool, reason: str) -> bool:
        if not fine:
            self.reasons[reason] += 1
        return fine


def digest(value: object) -> str:
    """sha256 over canonical JSON: ASCII, sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_held_out(conversation_id: int, seed: int, share: float) -> bool:
    """By a hash that is stable over machines, runs and growing data: a conversation never crosses over."""
    return _drawn(f"{seed}:{conversation_id}") < share


def is_held_out_user(user_id: int, seed: int, share: float) -> bool:
    return _drawn(f"{seed}:user:{user_id}") < share


@lru_cache(maxsize=100_000)
def _drawn(name: str) -> float:
    """From 0 to 1, evenly."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
