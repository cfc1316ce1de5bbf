"""What releases are judged by: the first thumb of a conversation, the first pick of a message, failures, waiting."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count

import pytest

from storage import answers, chats, comparisons, messages, ratings, trial_figures, turns, users
from storage.db import Database, Session
from storage.records import Answer, ChatKind, Ended, Pick, Seen, Thumb
from tests.storage.noun_world import AT
from tests.storage.test_deployments import two

LIVE, OTHER = 1, 2
LATER = AT + timedelta(hours=1)
MANY = 1000


class Talk:
    """One conversation of somebody's, with answers by either release."""

    numbers: Iterator[int] = count()

    def __init__(self, db: Database, who: str = "ann") -> None:
        self.db = db
        self.id, self.user_id = db.write(self._begin, who)

    def _begin(self, session: Session, who: str) -> tuple[int, int]:
        user = users.meet(session, "telegram", who, who, None, AT)
        chat = chats.meet(session, "telegram", who, ChatKind.PRIVATE, "", AT)
        return chats.begin(session, chat.id, "", user.id, AT).id, user.id

    def answer(
        self,
        release: int,
        *,
        message: int | None = None,
        at: datetime = LATER,
        ended: Ended = Ended.COMPLETE,
        error: str | None = None,
        seconds: tuple[float, float] = (0.5, 2.5),
        tokens: int = 101,
        by_the_cpu: bool = False,
    ) -> Answer:
        def give(session: Session) -> Answer:
            said = messages.add(session, self.id, self.user_id, "?", f"t:{next(self.numbers)}", AT)
            assert said is not None
            message_id = message or said.id
            turn = turns.wait(session, self.id, message_id, self.user_id, at)
            tag = {LIVE: "live:1", OTHER: "other:1"}[release]
            turns.close(session, turn.id, ended, at, text="!", error=error, tag=tag)
            options = {"num_gpu": 0} if by_the_cpu else {}
            figures = {"first_token_seconds": seconds[0], "total_seconds": seconds[1], "answer_tokens": tokens}
            seen = Seen("s", [], 0, "0", options)
            return answers.add(session, turn, "!", seen, ended, at, tag=tag, release_id=release, **figures)  # type: ignore[arg-type]

        return self.db.write(give)

    def rate(self, answer: Answer, thumb: Thumb, who: str | None = None) -> None:
        def give(session: Session) -> None:
            user_id = self.user_id if who is None else users.meet(session, "telegram", who, who, None, AT).id
            ratings.add(session, answer.id, user_id, thumb, LATER)

        self.db.write(give)


@pytest.fixture
def known(db: Database) -> Database:
    db.write(two)
    return db


def thumbs(db: Database, limit: int = MANY) -> list[tuple[int, int, Thumb]]:
    found = db.read(trial_figures.first_thumbs, (LIVE, OTHER), LATER, limit)
    return [(each.conversation_id, each.release_id, each.thumb) for each in found]


def test_a_conversation_counts_once_by_its_first_thumb(known: Database) -> None:
    one, other = Talk(known), Talk(known, "bob")
    first, second = one.answer(LIVE), one.answer(OTHER)
    one.rate(second, Thumb.DOWN)
    one.rate(first, Thumb.UP)
    one.rate(second, Thumb.UP, who="bob")
    one.rate(second, Thumb.UP)  # changed: what was counted stays
    other.rate(other.answer(LIVE, at=AT), Thumb.UP)  # given before
    other.rate(other.answer(LIVE), Thumb.UP)
    assert thumbs(known) == [(one.id, OTHER, Thumb.DOWN), (other.id, LIVE, Thumb.UP)]
    assert thumbs(known, limit=1) == [(other.id, LIVE, Thumb.UP)]


def test_a_rating_that_was_taken_back_before_it_was_looked_at_still_counts_as_given(known: Database) -> None:
    talk = Talk(known)
    answer = talk.answer(OTHER)
    talk.rate(answer, Thumb.UP)
    talk.rate(answer, Thumb.WITHDRAWN)
    assert thumbs(known) == [(talk.id, OTHER, Thumb.UP)]


def test_a_message_counts_once_by_its_first_pick_between_the_two(known: Database) -> None:
    talk = Talk(known)
    live = talk.answer(LIVE)
    tried = talk.answer(OTHER, message=live.message_id)
    twice = talk.answer(LIVE, message=live.message_id)
    second = talk.answer(OTHER)
    seconds_other = talk.answer(LIVE, message=second.message_id)

    def pick(left: Answer, right: Answer, which: Pick) -> None:
        known.write(comparisons.add, left.message_id, left.id, right.id, talk.user_id, which, LATER)

    pick(live, twice, Pick.LEFT)  # both the live one's
    pick(live, tried, Pick.RIGHT)
    pick(live, tried, Pick.LEFT)
    pick(second, seconds_other, Pick.TIE)
    found = known.read(trial_figures.first_picks, (OTHER, LIVE), LATER, MANY)
    assert [each.chosen_release_id for each in found] == [OTHER, None]
    assert known.read(trial_figures.first_picks, (OTHER, LIVE), LATER + timedelta(hours=1), MANY) == []


def test_a_release_is_blamed_for_what_is_its_doing(known: Database) -> None:
    talk = Talk(known)
    for ended, error in (
        (Ended.COMPLETE, None),
        (Ended.LENGTH, None),
        (Ended.STOPPED, None),
        (Ended.BROKEN, "crashed"),
        (Ended.FAILED, "empty_answer"),
        (Ended.FAILED, "not_running"),
        (Ended.INTERRUPTED, "interrupted"),
        (Ended.WITHDRAWN, None),
    ):
        talk.answer(OTHER, ended=ended, error=error)
    talk.answer(OTHER, at=LATER + timedelta(hours=2))
    within = (LATER, LATER + timedelta(hours=1))
    assert known.read(trial_figures.endings, "other:1", *within) == (5, 2)
    assert known.read(trial_figures.endings, "live:1", *within) == (0, 0)


def test_waiting_is_told_newest_first_and_what_the_cpu_gave_is_known(known: Database) -> None:
    talk = Talk(known)
    for number in (1.0, 2.0, 3.0):
        talk.answer(OTHER, seconds=(number, 10.0), by_the_cpu=number == 2.0)
    found = known.read(trial_figures.waits, OTHER, LATER, LATER + timedelta(hours=1), 2)
    assert [(each.first_token_seconds, each.by_the_cpu) for each in found] == [(3.0, False), (2.0, True)]
