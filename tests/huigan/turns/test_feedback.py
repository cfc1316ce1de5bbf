"""Ratings, reasons, corrections, comparisons: repeated without harm, replaced by the newest, refused to strangers."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huigan.turns import feedback
from huigan.turns.desk import Desk
from huigan.turns.opening import Place, Refusal, Speaker, answer_again, meet
from storage import comparisons, ratings, users
from storage.db import Database, Session
from storage.records import Answer, ChatKind, OfferedFor, Pick, Rating, Reason, Role, Thumb
from tests.fakes.ollama import FakeOllama
from tests.huigan.turns.conftest import AT, says
from tests.storage.noun_world import answered, people


@pytest.fixture
async def answer(sqlite_db: Database, desk: Desk, fake: FakeOllama) -> Answer:
    fake.reply("London.")
    given = (await desk.hand_in(says(sqlite_db, "Capital of France?")).closed()).answer
    assert given is not None
    return given


async def answered_again(db: Database, desk: Desk, fake: FakeOllama, first: Answer, text: str) -> Answer:
    fake.reply(text)
    turn = db.write(answer_again, first.message_id, 1, AT)
    assert not isinstance(turn, Refusal)
    given = (await desk.hand_in(turn).closed()).answer
    assert given is not None
    return given


def offered(db: Database, message_id: int, seed: int) -> tuple[Answer, ...]:
    return db.write(feedback.offer, message_id, OfferedFor.AGAIN, random.Random(seed), AT) or ()


def stranger(db: Database) -> int:
    user, _ = db.write(meet, Place("terminal", "eve", ChatKind.PRIVATE), Speaker("eve"), AT)
    return user.id


def test_a_rating_pressed_twice_is_one_and_a_change_of_mind_is_the_newest(sqlite_db: Database, answer: Answer) -> None:
    first = sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT)
    assert sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT) == first
    sqlite_db.write(feedback.rate, answer.id, 1, Thumb.DOWN, AT)
    assert [each.thumb for each in sqlite_db.read(ratings.counting)] == [Thumb.DOWN]
    sqlite_db.write(feedback.rate, answer.id, 1, Thumb.WITHDRAWN, AT)
    assert sqlite_db.read(ratings.counting) == []


def test_a_reason_and_a_correction_are_kept_together_and_go_with_a_thumb_up(
    sqlite_db: Database, answer: Answer
) -> None:
    sqlite_db.write(feedback.rate, answer.id, 1, Thumb.DOWN, AT)
    sqlite_db.write(feedback.give_reason, answer.id, 1, Reason.WRONG, AT)
    sqlite_db.write(feedback.correct, answer.id, 1, " Paris. ", AT)
    [counting] = sqlite_db.read(ratings.counting)
    assert (counting.thumb, counting.reason, counting.correction) == (Thumb.DOWN, Reason.WRONG, "Paris.")
    sqlite_db.write(feedback.give_reason, answer.id, 1, Reason.OTHER, AT)
    [counting] = sqlite_db.read(ratings.counting)
    assert (counting.reason, counting.correction) == (Reason.OTHER, "Paris.")
    sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT)
    [counting] = sqlite_db.read(ratings.counting)
    assert (counting.thumb, counting.reason, counting.correction) == (Thumb.UP, None, None)


@pytest.mark.parametrize(
    ("text", "code"),
    [("  ", "empty_correction"), ("London.", "correction_is_the_answer"), ("x" * 40_000, "message_too_long")],
)
def test_a_correction_that_says_nothing_is_refused(sqlite_db: Database, answer: Answer, text: str, code: str) -> None:
    assert sqlite_db.write(feedback.correct, answer.id, 1, text, AT) == Refusal(code)
    assert sqlite_db.read(ratings.counting) == []


def test_strangers_the_blocked_and_unknown_answers_are_refused(sqlite_db: Database, answer: Answer) -> None:
    eve = stranger(sqlite_db)
    assert sqlite_db.write(feedback.rate, answer.id, eve, Thumb.DOWN, AT) == Refusal("not_yours")
    assert sqlite_db.write(feedback.rate, 999, 1, Thumb.DOWN, AT) == Refusal("no_such_answer")
    sqlite_db.write(users.set_role, 1, Role.BLOCKED)
    assert sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT) == Refusal("blocked")
    assert sqlite_db.write(answer_again, answer.message_id, 1, AT) == Refusal("blocked")


async def test_in_a_group_everybody_may_rate(sqlite_db: Database, desk: Desk) -> None:
    given = (await desk.hand_in(says(sqlite_db, "hi", chat="lab")).closed()).answer
    assert given is not None
    assert isinstance(sqlite_db.write(feedback.rate, given.id, stranger(sqlite_db), Thumb.UP, AT), Rating)


async def test_two_answers_are_compared_in_the_order_they_were_shown(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, answer: Answer
) -> None:
    assert sqlite_db.write(feedback.offer, answer.message_id, OfferedFor.AGAIN, random.Random(1), AT) is None
    second = await answered_again(sqlite_db, desk, fake, answer, "Paris.")
    orders = {tuple(each.id for each in offered(sqlite_db, answer.message_id, seed)) for seed in range(16)}
    assert orders == {(answer.id, second.id), (second.id, answer.id)}
    sqlite_db.write(feedback.compare, second.id, answer.id, 1, Pick.LEFT, AT)
    sqlite_db.write(feedback.compare, second.id, answer.id, 1, Pick.LEFT, AT)
    [picked] = sqlite_db.read(comparisons.counting)
    assert picked.chosen_and_rejected == (second.id, answer.id)
    sqlite_db.write(feedback.compare, answer.id, second.id, 1, Pick.LEFT, AT)
    [picked] = sqlite_db.read(comparisons.counting)
    assert picked.chosen_and_rejected == (answer.id, second.id)
    assert sqlite_db.write(feedback.compare, answer.id, answer.id, 1, Pick.LEFT, AT) == Refusal("not_a_pair")


async def test_two_answers_that_say_the_same_are_not_offered(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, answer: Answer
) -> None:
    await answered_again(sqlite_db, desk, fake, answer, "London.")
    assert sqlite_db.write(feedback.offer, answer.message_id, OfferedFor.AGAIN, random.Random(1), AT) is None


def test_only_the_author_may_have_it_answered_again(sqlite_db: Database, answer: Answer) -> None:
    assert sqlite_db.write(answer_again, answer.message_id, stranger(sqlite_db), AT) == Refusal("not_yours")
    sqlite_db.write(answer_again, answer.message_id, 1, AT)
    assert sqlite_db.write(answer_again, answer.message_id, 1, AT) == Refusal("already_answering")


async def test_a_mind_that_is_changed_back_and_forth_on_both_sides_ends_where_it_ended(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, answer: Answer
) -> None:
    """The pair was shown twice, with the sides swapped, and the first buttons are still there to press."""
    other = await answered_again(sqlite_db, desk, fake, answer, "Paris.")
    assert {offered(sqlite_db, answer.message_id, seed)[0].id for seed in range(16)} == {answer.id, other.id}
    for left, right in ((answer, other), (other, answer), (answer, other)):
        sqlite_db.write(feedback.compare, left.id, right.id, 1, Pick.LEFT, AT)
    [counting] = sqlite_db.read(comparisons.counting)
    assert counting.chosen_and_rejected == (answer.id, other.id)


async def test_a_pick_that_was_not_offered_so_is_refused(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, answer: Answer
) -> None:
    await answered_again(sqlite_db, desk, fake, answer, "Paris.")
    left, right = offered(sqlite_db, answer.message_id, 1)
    assert sqlite_db.write(feedback.compare, right.id, left.id, 1, Pick.LEFT, AT) == Refusal("not_a_pair")
    assert sqlite_db.read(comparisons.counting) == []


def test_what_is_taken_back_is_a_rating_of_that_thumb_and_not_one_of_the_same_moment(
    sqlite_db: Database, answer: Answer
) -> None:
    assert sqlite_db.write(feedback.withdraw, answer.id, 1, Thumb.UP, AT) == Refusal("nothing_to_withdraw")
    up = sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT)
    assert sqlite_db.write(feedback.withdraw, answer.id, 1, Thumb.DOWN, AT) == up
    soon, window = AT + timedelta(seconds=1), timedelta(seconds=2)
    assert sqlite_db.write(feedback.withdraw, answer.id, 1, Thumb.UP, soon, older_than=window) == up
    taken = sqlite_db.write(feedback.withdraw, answer.id, 1, Thumb.UP, AT + window, older_than=window)
    assert isinstance(taken, Rating)
    assert taken.thumb is Thumb.WITHDRAWN
    assert sqlite_db.write(feedback.withdraw, answer.id, 1, Thumb.UP, AT + window) == taken, "twice is once"


def test_an_edit_without_a_new_text_undoes_nothing_said_since(sqlite_db: Database, answer: Answer) -> None:
    sqlite_db.write(feedback.correct, answer.id, 1, "Paris.", AT)
    up = sqlite_db.write(feedback.rate, answer.id, 1, Thumb.UP, AT)
    assert sqlite_db.write(feedback.correct, answer.id, 1, "Paris.", AT, is_edit=True) == up
    sqlite_db.write(feedback.correct, answer.id, 1, "Paris!", AT, is_edit=True)
    [counting] = sqlite_db.read(ratings.counting)
    assert (counting.thumb, counting.correction) == (Thumb.DOWN, "Paris!")


presses = st.tuples(
    st.integers(0, 2),  # who; only the first has asked
    st.integers(0, 3),  # which answer; the last is none
    st.sampled_from([*Thumb, *Reason, "undo up", "undo down", "写"]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(presses, max_size=25))
def test_whatever_is_pressed_by_whomever_each_says_what_they_said_last(
    sqlite_db: Database, script: list[tuple[int, int, str]]
) -> None:
    """The model: in a private chat the asker's newest word on each answer; a stranger's is nothing."""
    raters = sqlite_db.write(people, 3)
    shown = [each.id for each in sqlite_db.write(answered, 3)] + [10**9]
    model: dict[int, Thumb] = {}
    for who, which, act in script:
        for _ in range(2):  # each once more, as a duplicate
            result = sqlite_db.write(pressed, shown[which], raters[who].id, act)
        if who or which == 3:
            assert isinstance(result, Refusal)
            continue
        before = model.get(which, Thumb.WITHDRAWN)
        if act.startswith("undo"):
            model[which] = Thumb.WITHDRAWN if before is Thumb(act.split()[1]) else before
        else:
            model[which] = Thumb(act) if act in set(Thumb) else Thumb.DOWN
    counting = sqlite_db.read(ratings.counting, answer_ids=shown)
    said = {shown[which]: thumb for which, thumb in model.items() if thumb is not Thumb.WITHDRAWN}
    assert {each.answer_id: each.thumb for each in counting} == said
    assert {each.user_id for each in counting} <= {raters[0].id}


def pressed(session: Session, answer_id: int, user_id: int, act: str) -> Rating | Refusal:
    if act in set(Thumb):
        return feedback.rate(session, answer_id, user_id, Thumb(act), AT)
    if act in set(Reason):
        return feedback.give_reason(session, answer_id, user_id, Reason(act), AT)
    if act.startswith("undo"):
        return feedback.withdraw(session, answer_id, user_id, Thumb(act.split()[1]), AT)
    return feedback.correct(session, answer_id, user_id, act, AT)
