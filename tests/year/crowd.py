"""People of a simulated year: they ask, are answered, and say what they think of it; some forget themselves or opt out.

Rows are written by the very functions that a channel calls, at simulated times. Each person's words hold a name that
nobody else's hold, so that what is left of them anywhere can be found. The ledger says what must still be there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from huigan.turns import erasure, feedback, withdrawal
from huigan.turns.erasure import Forgotten
from storage import answers, chats, deployments, messages, turns, users
from storage.db import Database, Session
from storage.records import Answer, ChatKind, Comparison, Ended, OfferedFor, Pick, Rating, Role, Seen, Thumb, User

CHANNEL = "telegram"
FIRST, MOST = 8, 40
SYLLABLES = ("ka", "lo", "mi", "nu", "re", "so", "ti", "va", "we", "zu")
CHARACTERS = (
    "茶壶山路竹林清晨书店雨伞火车面条邻居灯笼河边钥匙橘子木桥信纸风筝石板蓝布冬瓜码头"
    "钟楼菜园小猫票根棉衣酱油楼梯渔船槐树算盘口琴月台葡萄石榴画册黄昏炉子芝麻屋檐铃铛"
)
WORDS = [CHARACTERS[at : at + 2] for at in range(0, len(CHARACTERS), 2)]


@dataclass
class Person:
    user: User
    name: str
    trusts: bool = True  # consents now
    since: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """A judgement: who gave it and whose question it was about, and when that was asked."""

    people: tuple[int, int]
    asked_at: datetime


@dataclass
class Ledger:
    """What was given and must be there, by kind and number."""

    ratings: dict[int, Given] = field(default_factory=dict)
    comparisons: dict[int, Given] = field(default_factory=dict)

    def forget(self, user_id: int) -> None:
        self._drop(lambda given: user_id in given.people)

    def expire(self, quiet_before: datetime) -> None:
        self._drop(lambda given: given.asked_at < quiet_before)

    def _drop(self, goes: Callable[[Given], bool]) -> None:
        for kept in (self.ratings, self.comparisons):
            for number in [number for number, given in kept.items() if goes(given)]:
                del kept[number]


class Crowd:
    """`liked` gives the share of its answers that people like, of a release by its run; None is the base."""

    def __init__(self, db: Database, rng: random.Random, liked: Callable[[int | None], float]) -> None:
        self.db, self._rng, self._liked_of = db, rng, liked
        self._liked: dict[int | None, float] = {}  # by release
        self.people: list[Person] = []
        self.ledger = Ledger()
        self.gone: dict[str, datetime] = {}  # names of who forgot themselves, or opted out and stays away; since when
        self.counts = {"people": 0, "answers": 0, "ratings": 0, "comparisons": 0, "forgot": 0, "declined": 0}
        self._met = 0

    def join(self, at: datetime, *, role: Role | None = None) -> Person:
        self._met += 1
        self.counts["people"] += 1
        name = "".join(SYLLABLES[int(digit)] for digit in f"{self._met:03d}")
        person = Person(self.db.write(_join, str(1000 + self._met), name, role, at), name)
        self.people.append(person)
        return person

    def day(self, morning: datetime, wanted: int) -> None:
        """Some of them talk, between ten in the morning and ten in the evening."""
        rng, at = self._rng, morning + timedelta(hours=2)
        for _ in range(wanted):
            at += timedelta(minutes=rng.randint(5, 60))
            asker, rater = rng.choice(self.people), rng.choice(self.people)
            text = f"{asker.name}想问{'和'.join(rng.sample(WORDS, 5))}怎么样？"
            said = [f"{' '.join(rng.sample(WORDS, 6))}。" for _ in range(rng.choice((1, 1, 2)))]
            self.db.write(self._turn, asker, rater, text, said, at)

    def _turn(self, session: Session, asker: Person, rater: Person, text: str, said: list[str], at: datetime) -> None:
        rng = self._rng
        given = self._asked(session, asker.user, text, said, at)
        self.counts["answers"] += len(given)
        if len(given) == 2:
            offered = feedback.offer(session, given[0].message_id, OfferedFor.AGAIN, rng, at)
            if offered is not None:
                left, right = (self._liked[each.release_id] for each in offered)
                pick = Pick.LEFT if rng.random() < left / (left + right) else Pick.RIGHT
                made = feedback.compare(session, offered[0].id, offered[1].id, asker.user.id, pick, at)
                assert isinstance(made, Comparison), made
                self.ledger.comparisons[made.id] = Given((asker.user.id, asker.user.id), at)
                self.counts["comparisons"] += 1
        judges = {asker.user.id: asker}
        if asker.trusts:  # a group's: others see it too
            judges[rater.user.id] = rater
        for judge in judges.values():
            self._rate(session, given[-1], judge, asker, at)

    def _rate(self, session: Session, answer: Answer, judge: Person, asker: Person, at: datetime) -> None:
        rng = self._rng
        likes = rng.random() < self._liked[answer.release_id]
        if not likes and rng.random() < 0.6:
            text = f"{judge.name}觉得是{'、'.join(rng.sample(WORDS, 5))}。"
            made = feedback.correct(session, answer.id, judge.user.id, text, at)
        else:
            made = feedback.rate(session, answer.id, judge.user.id, Thumb.UP if likes else Thumb.DOWN, at)
        if isinstance(made, Rating):
            self.ledger.ratings[made.id] = Given((judge.user.id, asker.user.id), at)
            self.counts["ratings"] += 1

    def _asked(self, session: Session, user: User, text: str, said: list[str], at: datetime) -> list[Answer]:
        """Answered by what answers there; a second time, where it is asked again, by what is tried, if anything is."""
        chat = chats.meet(session, CHANNEL, user.external_id, ChatKind.PRIVATE, "", at)
        talk = chats.begin(session, chat.id, "", user.id, at)
        message = messages.add(session, talk.id, user.id, text, f"year:{user.id}:{at.isoformat()}", at)
        assert message is not None
        given = []
        for place, each in enumerate(said):
            answers_it = deployments.for_turn(session, talk.id, sampled=place > 0)
            assert answers_it is not None
            self._liked[answers_it.release.id] = self._liked_of(answers_it.artefact.run_id)
            seen = Seen(answers_it.artefact.system, [["message", message.id]], 0, "digest", {})
            tag, release_id = answers_it.release.tag, answers_it.release.id
            turn = turns.wait(session, talk.id, message.id, user.id, at)
            turns.close(session, turn.id, Ended.COMPLETE, at, text=each)
            given.append(answers.add(session, turn, each, seen, Ended.COMPLETE, at, tag=tag, release_id=release_id))
        return given

    def forget_one(self, at: datetime) -> Person | None:
        person = self._somebody()
        if person is None:
            return None
        done = self.db.write(erasure.forget, person.user.id, at)
        assert isinstance(done, Forgotten), done
        self.people.remove(person)
        self.ledger.forget(person.user.id)
        self.gone[person.name] = at
        self.counts["forgot"] += 1
        return person

    def decline_one(self, at: datetime) -> Person | None:
        """They go on talking, and nothing of theirs is learnt from."""
        person = self._somebody()
        if person is None or not person.trusts:
            return None
        self.db.write(withdrawal.decline, person.user.id, at)
        person.trusts = False
        self.gone[person.name] = at
        self.counts["declined"] += 1
        return person

    def _somebody(self) -> Person | None:
        plain = [each for each in self.people if each.user.role is Role.USER]
        return self._rng.choice(plain) if len(plain) > FIRST else None


def _join(session: Session, external_id: str, name: str, role: Role | None, at: datetime) -> User:
    met = users.meet(session, CHANNEL, external_id, name, "zh", at)
    chats.meet(session, CHANNEL, external_id, ChatKind.PRIVATE, "", at)
    users.consent(session, met.id, at)
    return users.set_role(session, met.id, role) if role else met
