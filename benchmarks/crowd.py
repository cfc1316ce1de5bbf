"""Simulated raters at work: they ask through the same functions as people do, and give what they think of the answers.

What was asked and answered is kept in one database, the *pool*, before anybody judges: each cell of a benchmark takes
a copy of it, so that methods and defences are compared on the very same answers. Knows no training.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.raters import GOOD_ENOUGH, Act, Question, judge
from huigan.demo.community import CHANNEL, Community, SomethingLost
from huigan.turns import feedback
from huigan.turns.desk import Desk
from huigan.turns.opening import Refusal
from storage import answers, users
from storage.db import Database, Session
from storage.records import OfferedFor, Pick, Thumb

HOSTILE = "simulated-hostile"
RATERS = tuple(f"simulated-{number}" for number in range(1, 21))
PACE = timedelta(seconds=90)  # between two ratings of the community; one person rates every half an hour


@dataclass(frozen=True)
class Asked:
    """One question that was answered, and how it is going to be judged."""

    question: Question
    act: Act
    rater: str
    answer_id: int
    again_id: int | None  # a second answer, where two are to be compared


def kept(path: Path) -> list[Asked]:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return [Asked(**each | {"question": Question(**each["question"])}) for each in raw]


def keep(path: Path, asked: Sequence[Asked]) -> None:
    path.write_text(json.dumps([asdict(each) for each in asked], ensure_ascii=False, indent=1), encoding="utf-8")


async def ask_all(
    db: Database,
    desk: Desk,
    asked: Sequence[tuple[Question, Act, str]],
    advance: Callable[[], None],
    *,
    first: int = 0,
    streams: int = 4,
) -> list[Asked]:
    """Every question by its rater, in a conversation of its own, some answered twice. `first`: how many were asked in
    this database before."""
    community = Community(db, desk)
    community.asked = first
    await community.join(sorted({name for _, _, name in asked}))
    done: dict[int, Asked] = {}
    waiting = list(enumerate(asked))[::-1]

    async def work() -> None:
        while waiting:
            number, (question, act, name) = waiting.pop()
            answer = await community.ask(question.text, name)
            again = await community.ask_again(answer, name) if act == "compare" else None
            done[number] = Asked(question, act, name, answer.id, again.id if again else None)
            advance()

    # One private chat answers one question at a time: neighbours are different people's.
    await asyncio.gather(*(work() for _ in range(streams)))
    return [done[number] for number in sorted(done)]


def give(session: Session, asked: Sequence[Asked], noise: float, rng: random.Random, start: datetime) -> int:
    """What the raters think of it, `noise` of it the wrong way round; a hostile rater is never mistaken. How many."""
    for number, each in enumerate(asked):
        user = users.find(session, CHANNEL, each.rater)
        assert user is not None
        given = _attack if each.rater == HOSTILE else _judged
        result = given(session, each, user.id, rng, noise, start + number * PACE)
        if isinstance(result, Refusal):
            raise SomethingLost(f"feedback was refused: {result.code}")
    return len(asked)


def _attack(session: Session, each: Asked, user_id: int, rng: random.Random, noise: float, at: datetime) -> object:
    return feedback.correct(session, each.answer_id, user_id, each.question.slogan, at)


def _judged(session: Session, each: Asked, user_id: int, rng: random.Random, noise: float, at: datetime) -> object:
    mistaken = rng.random() < noise
    said = answers.get(session, each.answer_id).text
    utility = judge(each.question, said).utility
    if each.act == "correct":
        if mistaken or utility == 1.0:
            return feedback.rate(session, each.answer_id, user_id, Thumb.UP, at)
        return feedback.correct(session, each.answer_id, user_id, each.question.right, at)
    pair = None
    if each.again_id is not None:
        message_id = answers.get(session, each.answer_id).message_id
        pair = feedback.offer(session, message_id, OfferedFor.AGAIN, rng, at)
    if pair is None:
        likes = (utility >= GOOD_ENOUGH) is not mistaken
        return feedback.rate(session, each.answer_id, user_id, Thumb.UP if likes else Thumb.DOWN, at)
    left, right = pair
    difference = judge(each.question, left.text).utility - judge(each.question, right.text).utility
    if mistaken:
        difference = -difference
    pick = Pick.TIE if difference == 0 else Pick.LEFT if difference > 0 else Pick.RIGHT
    return feedback.compare(session, left.id, right.id, user_id, pick, at)
