"""One open turn a conversation, oldest first; a turn closes once, and only its worker's word is kept."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from storage import turns
from storage.db import Database, Session
from storage.records import Ended, Turn, TurnState
from storage.tables import turn
from tests.storage.noun_world import AT, conversation, message

which = st.integers(0, 9)
workers = st.sampled_from(["w1", "w2"])
acts = st.one_of(
    st.tuples(st.just("ask")),
    st.tuples(st.just("open"), which, workers),
    st.tuples(st.just("checkpoint"), which, workers),
    st.tuples(st.just("withdraw"), which, st.sampled_from(Ended)),
)


class Story:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.talk = conversation(session)
        self.ids: list[int] = []

    def all(self) -> list[Turn]:
        return [turns.get(self.session, each) for each in self.ids]

    def chosen(self, number: int) -> Turn | None:
        return turns.get(self.session, self.ids[number % len(self.ids)]) if self.ids else None

    def ask(self) -> None:
        said = message(self.session, self.talk)
        self.ids.append(turns.wait(self.session, self.talk.id, said.id, self.talk.user_id, AT).id)

    def open(self, number: int, worker: str) -> None:
        if (wanted := self.chosen(number)) is None:
            return
        is_next = [each.id for each in self.all() if each.state is not TurnState.CLOSED][:1] == [wanted.id]
        opened = turns.open_next(self.session, wanted.id, worker, AT)
        assert (opened is not None) == (is_next and wanted.state is TurnState.WAITING)

    def checkpoint(self, number: int, worker: str) -> None:
        if (wanted := self.chosen(number)) is None:
            return
        is_its_own = (wanted.state, wanted.worker) == (TurnState.OPEN, worker)
        kept = turns.checkpoint(self.session, wanted.id, worker, f"{worker} says", "t", AT)
        assert (kept is not None) == is_its_own
        assert turns.get(self.session, wanted.id).text == (f"{worker} says" if is_its_own else wanted.text)

    def withdraw(self, number: int, ended: Ended) -> None:
        if (wanted := self.chosen(number)) is None:
            return
        was_waiting = wanted.state is TurnState.WAITING
        closed = turns.withdraw(self.session, wanted.id, ended, AT)
        assert (closed is not None) == was_waiting
        assert turns.get(self.session, wanted.id) == (closed or wanted)

    def close(self, number: int, ended: Ended) -> None:
        if (wanted := self.chosen(number)) is None:
            return
        closed = turns.close(self.session, wanted.id, ended, AT)
        assert (closed is not None) == (wanted.state is not TurnState.CLOSED)
        assert turns.get(self.session, wanted.id) == (closed or wanted)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(acts | st.tuples(st.just("close"), which, st.sampled_from(Ended)), max_size=25))
def test_no_order_of_events_opens_two_turns_of_a_conversation(db: Database, script: list[tuple[object, ...]]) -> None:
    def play(session: Session) -> None:
        story = Story(session)
        for name, *args in script:
            getattr(story, str(name))(*args)
            states = [each.state for each in story.all()]
            assert states.count(TurnState.OPEN) <= 1
            unclosed = [each for each in story.all() if each.state is not TurnState.CLOSED]
            assert turns.unclosed(session, story.talk.id) == unclosed

    db.write(play)


def test_the_database_itself_refuses_a_second_open_turn(db: Database) -> None:
    def open_two(session: Session) -> None:
        talk = conversation(session)
        said = message(session, talk)
        row = {"conversation_id": talk.id, "message_id": said.id, "user_id": talk.user_id, "asked_at": AT}
        for _ in range(2):
            session.execute(insert(turn).values(**row, state=TurnState.OPEN))

    with pytest.raises(IntegrityError):
        db.write(open_two)


def test_of_many_workers_one_opens_a_turn(db: Database) -> None:
    def ask(session: Session) -> int:
        talk = conversation(session)
        return turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT).id

    asked, opened = db.write(ask), []
    threads = [
        threading.Thread(target=lambda name=name: opened.append(db.write(turns.open_next, asked, name, AT)))
        for name in ("w1", "w2", "w3", "w4")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in opened) == 1


def test_of_two_texts_kept_side_by_side_the_longer_stays_and_none_is_kept_of_a_closed_turn(db: Database) -> None:
    def play(session: Session) -> list[str]:
        talk = conversation(session)
        asked = turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT).id
        turns.open_next(session, asked, "w1", AT)
        found = []
        for keep in (
            lambda: turns.keep(session, asked, "苦尽甘来"),
            lambda: turns.checkpoint(session, asked, "w1", "苦尽", "t", AT),
            lambda: turns.checkpoint(session, asked, "w1", "苦尽甘来。", "t", AT),
            lambda: turns.close(session, asked, Ended.COMPLETE, AT),
            lambda: turns.keep(session, asked, "苦尽甘来。太晚"),
        ):
            keep()
            found.append(turns.get(session, asked).text)
        return found

    assert db.write(play) == ["苦尽甘来", "苦尽甘来", "苦尽甘来。", "苦尽甘来。", "苦尽甘来。"]
