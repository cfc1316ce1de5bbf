"""A community of simulated raters: what they teach, and how they ask, rate, correct and compare. Knows no training.

They use the same functions as people do; only their channel, `simulated`, tells them apart in the database.
"""

from __future__ import annotations

import asyncio
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huigan.turns import feedback
from huigan.turns.answering import now
from huigan.turns.desk import Desk, Watched
from huigan.turns.opening import Place, Refusal, Speaker, answer_again, meet, open_turn, start_over
from storage import users
from storage.db import Database
from storage.records import WHOLE, Answer, ChatKind, OfferedFor, Pick

CHANNEL = "simulated"
NAMES = ("simulated-1", "simulated-2", "simulated-3", "simulated-4")


class SomethingLost(Exception):
    """A question got no whole answer, or feedback was not taken."""


@dataclass(frozen=True)
class Fact:
    answer: str
    keys: tuple[str, ...]  # any one of them makes an answer right
    teach: tuple[str, ...]  # wordings asked before training
    held_out: str  # a wording that is never trained on

    def is_in(self, answer: str) -> bool:
        return any(key.casefold() in answer.casefold() for key in self.keys)


@dataclass(frozen=True)
class Taste:
    """A prompt that the community wants answered short and warm."""

    prompt: str
    wanted: str


@dataclass(frozen=True)
class Lessons:
    facts: tuple[Fact, ...]
    tastes: tuple[Taste, ...]
    controls: tuple[Fact, ...]  # what the base knows already, and is to go on knowing


def load(path: Path) -> Lessons:
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    facts = [
        Fact(each["answer"], tuple(each["keys"]), tuple(each["teach"]), each["held_out"][0]) for each in raw["facts"]
    ]
    # The last pair is held out: nobody ever says it.
    tastes = [Taste(each["prompt"], each["chosen"]) for each in raw["pairs"][:-1]]
    controls = [Fact("", tuple(each["keys"]), (), each["question"]) for each in raw["controls"]]
    return Lessons(tuple(facts), tuple(tastes), tuple(controls))


class Community:
    """Raters over one desk. What they ask and give is counted, to be found again in the database."""

    def __init__(self, db: Database, desk: Desk) -> None:
        self._db = db
        self._desk = desk
        self.asked = 0
        self.regenerated = 0
        self.corrections = 0
        self.comparisons = 0

    async def join(self, names: Sequence[str] = NAMES) -> None:
        for name in names:
            user, _ = await self._db.awrite(meet, _place(name), Speaker(name, name, "zh-hans"), now())
            await self._db.awrite(users.consent, user.id, now())

    async def begin(self, name: str, question: str) -> Watched:
        """Ask in a conversation of its own."""
        self.asked += 1
        place, speaker, source = _place(name), Speaker(name, name), f"{CHANNEL}:{self.asked}"
        await self._db.awrite(start_over, place, speaker, now())
        turn = await self._db.awrite(open_turn, place, speaker, question, source, now())
        if turn is None or isinstance(turn, Refusal):
            raise SomethingLost(f"a question was not taken: {turn}")
        return self._desk.hand_in(turn)

    async def ask(self, question: str, name: str = NAMES[0]) -> Answer:
        return await _whole(await self.begin(name, question))

    async def ask_again(self, answer: Answer, name: str) -> Answer:
        """Regenerate: a second answer to the same message."""
        turn = await self._db.awrite(answer_again, answer.message_id, await self.id_of(name), now())
        assert not isinstance(turn, Refusal)
        self.regenerated += 1
        return await _whole(self._desk.hand_in(turn))

    async def teach(self, lessons: Lessons, advance: Callable[[], None]) -> None:
        """Every wording asked by one of them and corrected; every taste compared, and then corrected too."""
        wordings = [(wording, fact.answer) for fact in lessons.facts for wording in fact.teach]
        tasks = [
            *((self._correct, *each) for each in wordings),
            *((self._compare, each.prompt, each.wanted) for each in lessons.tastes),
        ]

        async def work(number: int, name: str) -> None:
            for act, question, wanted in tasks[number :: len(NAMES)]:
                await act(name, question, wanted)
                advance()

        await asyncio.gather(*(work(number, name) for number, name in enumerate(NAMES)))

    async def _correct(self, name: str, question: str, wanted: str) -> None:
        answer = await self.ask(question, name)
        _taken(await self._db.awrite(feedback.correct, answer.id, await self.id_of(name), wanted, now()))
        self.corrections += 1

    async def _compare(self, name: str, question: str, wanted: str) -> None:
        """They like the shorter of two; neither is what they really want, which they then write."""
        first = await self.ask(question, name)
        await self.ask_again(first, name)
        user_id = await self.id_of(name)
        rng = random.Random(first.id)
        pair = await self._db.awrite(feedback.offer, first.message_id, OfferedFor.AGAIN, rng, now())
        if pair is not None:
            left, right = pair
            pick = Pick.LEFT if len(left.text) <= len(right.text) else Pick.RIGHT
            _taken(await self._db.awrite(feedback.compare, left.id, right.id, user_id, pick, now()))
            self.comparisons += 1
        _taken(await self._db.awrite(feedback.correct, first.id, user_id, wanted, now()))
        self.corrections += 1

    async def id_of(self, name: str) -> int:
        found = await self._db.aread(users.find, CHANNEL, name)
        assert found is not None
        return found.id


def _place(name: str) -> Place:
    return Place(CHANNEL, name, ChatKind.PRIVATE)


async def _whole(watched: Watched) -> Answer:
    view = await watched.closed()
    if view.answer is None or view.ended not in WHOLE:
        raise SomethingLost(f"turn {watched.turn.id} ended as {view.ended} with {view.error}")
    return view.answer


def _taken(result: Any) -> None:
    if isinstance(result, Refusal):
        raise SomethingLost(f"feedback was refused: {result.code}")


async def answers_to(community: Community, questions: Sequence[str], advance: Callable[[], None]) -> list[str]:
    """One after the other: greedy text must not depend on what else is in the batch."""
    texts = []
    for question in questions:
        texts.append((await community.ask(question)).text)
        advance()
    return texts
