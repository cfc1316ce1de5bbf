"""/forget and /export: all that is kept of a person is given, then gone from every table, and nothing of others'."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from huigan.operate import retention
from huigan.turns import feedback, history
from huigan.turns.erasure import Forgotten, forget
from huigan.turns.export import own_data
from huigan.turns.opening import Refusal
from storage import (
    answers,
    audit,
    chats,
    comparisons,
    correction_prompts,
    dataset_people,
    datasets,
    deliveries,
    invitations,
    messages,
    outbox,
    run_cards,
    runs,
    settings,
    showings,
    traces,
    turns,
    updates,
    users,
)
from storage.db import Database, Session
from storage.records import Answer, CardKind, Ended, Pick, Role, Scope, Seen, Thumb
from storage.tables import metadata
from tests.huigan.turns.conftest import AT, says

SECRET = "秘密"


def answered(db: Database, text: str, who: str, chat: str = "") -> Answer:
    turn = says(db, text, who, chat=chat)

    def close(session: Session) -> Answer:
        turns.open_next(session, turn.id, "w", AT)
        turns.close(session, turn.id, Ended.COMPLETE, AT, text=f"answer to {text}")
        seen = Seen("system", [["message", turn.message_id]], 0, "0" * 64, {})
        given = answers.add(session, turn, f"answer to {text}", seen, Ended.COMPLETE, AT, tag="base:1")
        showings.begin(session, turn.id, "terminal", AT)
        deliveries.add(session, given.id, "terminal", chat or who, [f"{given.id}"], AT)
        return given

    return db.write(close)


def who(db: Database, name: str) -> int:
    user = db.read(users.find, "terminal", name)
    assert user is not None
    return user.id


def everything(db: Database) -> str:
    with db.engine.connect() as connection:
        rows = [str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(select(table))]
    return "\n".join(rows)


@pytest.fixture
def world(db: Database) -> Database:
    """Ann and Bob share a group; Ann also has a private chat. Everything of Ann's holds the secret word."""
    first, second = answered(db, f"{SECRET}一", "ann"), answered(db, f"{SECRET}二", "ann", chat="group")
    bobs = answered(db, "天气", "bob", chat="group")
    ann, bob = who(db, "ann"), who(db, "bob")
    db.write(users.meet, "terminal", "ann", SECRET, None, AT)
    db.write(feedback.correct, first.id, ann, f"{SECRET}三", AT)
    db.write(feedback.rate, second.id, bob, Thumb.UP, AT)
    db.write(feedback.correct, bobs.id, ann, f"{SECRET}四", AT)
    db.write(feedback.rate, bobs.id, bob, Thumb.UP, AT)
    db.write(correction_prompts.add, bobs.id, ann, "terminal", "group", "77", AT)
    db.write(outbox.put, "serving_trouble", {"error": SECRET}, AT, user_id=ann)
    db.write(updates.store, 7, {"message": {"text": SECRET}}, AT, key="1:0:ann")
    db.write(updates.mark_handled, 7, AT)
    for number, lane in enumerate(("rating", "stop", "5:9:reaction"), 8):
        db.write(updates.store, number, {"callback_query": {"text": SECRET}}, AT, key=f"1:0:ann:{lane}")
        db.write(updates.mark_handled, number, AT)
    # Bob goes on from an answer of Ann's.
    db.write(lambda session: says_after(session, second, bob))
    return db


def says_after(session: Session, answer: Answer, user_id: int) -> None:
    messages.add(session, answer.conversation_id, user_id, "接着说", "terminal:bob:on", AT, answer.id)


def test_all_that_is_kept_is_exported(world: Database) -> None:
    kept = world.read(own_data, who(world, "ann"), AT)
    written = json.dumps(kept, ensure_ascii=False)
    assert all(f"{SECRET}{number}" in written for number in "一二三四")
    assert "天气" not in written
    assert [each["thumb"] for each in kept["ratings"]] == ["down", "down"]


def test_nothing_of_the_person_is_left_and_everything_of_the_others_is(world: Database) -> None:
    ann = who(world, "ann")
    assert SECRET in everything(world)
    gone = world.write(forget, ann, AT)
    assert isinstance(gone, Forgotten)
    assert (gone.messages, gone.answers, gone.ratings) == (2, 2, 3)
    left = everything(world)
    assert SECRET not in left
    assert "'ann'" not in left
    assert "天气" in left
    assert "answer to 天气" in left
    assert "接着说" in left
    assert world.read(own_data, who(world, "bob"), AT)["ratings"] != []
    assert world.write(users.meet, "terminal", "ann", "Ann", None, AT).id != ann


def test_a_block_outlives_it(world: Database) -> None:
    ann = who(world, "ann")
    world.write(users.set_role, ann, Role.BLOCKED)
    world.write(forget, ann, AT)
    assert world.write(users.meet, "terminal", "ann", "", None, AT).role is Role.BLOCKED
    assert SECRET not in everything(world)


def test_an_admin_stays_and_whoever_is_being_answered_is_asked_to_wait(db: Database) -> None:
    turn = says(db, "你好", "ann")
    assert db.write(forget, turn.user_id, AT) == Refusal("already_answering")
    db.write(turns.withdraw, turn.id, Ended.WITHDRAWN, AT)
    db.write(users.set_role, turn.user_id, Role.ADMIN)
    db.write(audit.record, turn.user_id, "run.start", AT)
    assert db.write(forget, turn.user_id, AT) == Refusal("admin_stays")
    db.write(users.set_role, turn.user_id, Role.USER)
    assert isinstance(db.write(forget, turn.user_id, AT), Forgotten)
    assert [each.act for each in db.read(audit.newest)] == ["run.start"]


def test_what_was_compared_goes_with_either_answer(world: Database) -> None:
    ann = who(world, "ann")
    [message] = [each for each in world.read(messages.of_user, ann) if each.text == f"{SECRET}一"]
    turn = world.write(turns.wait, message.conversation_id, message.id, ann, AT + timedelta(seconds=1), again=True)
    world.write(turns.close, turn.id, Ended.COMPLETE, AT)
    seen = Seen("system", [], 0, "0" * 64, {})
    second = world.write(answers.add, turn, "another", seen, Ended.COMPLETE, AT, tag="base:1")
    [first] = [each for each in world.read(answers.of_message, message.id) if each.id != second.id]
    world.write(comparisons.add, message.id, first.id, second.id, ann, Pick.RIGHT, AT)
    gone = world.write(forget, ann, AT)
    assert isinstance(gone, Forgotten)
    assert gone.ratings == 4


def test_what_others_were_answered_to_is_not_rebuilt_without_the_words_that_went(world: Database) -> None:
    second = answered(world, f"{SECRET}五", "ann", chat="group")
    bobs = world.write(bob_goes_on, second, who(world, "bob"))
    assert set(world.read(history.prompts_of, [bobs])) == {bobs.id}
    world.write(forget, who(world, "ann"), AT)
    assert world.read(history.prompts_of, [bobs]) == {}


def bob_goes_on(session: Session, from_answer: Answer, user_id: int) -> Answer:
    """An answer to Bob, that was shown what Ann had asked before."""
    conversation_id = from_answer.conversation_id
    said = messages.add(session, conversation_id, user_id, "然后呢", "terminal:bob:then", AT, from_answer.id)
    assert said is not None
    turn = turns.wait(session, conversation_id, said.id, user_id, AT)
    turns.close(session, turn.id, Ended.COMPLETE, AT)
    rows: list[list[int | str]] = [
        ["message", from_answer.message_id],
        ["answer", from_answer.id],
        ["message", said.id],
    ]
    return answers.add(session, turn, "好", Seen("s", rows, 0, "0" * 64, {}), Ended.COMPLETE, AT, tag="base:1")


def test_a_group_may_share_one_conversation(db: Database) -> None:
    one, other = says(db, "甲", "ann", chat="group"), says(db, "乙", "bob", chat="group")
    assert one.conversation_id != other.conversation_id
    group = db.read(chats.find, "terminal", "group")
    assert group is not None
    db.write(chats.set_scope, group.id, Scope.THREAD)
    shared = {says(db, f"丙{name}", name, chat="group").conversation_id for name in ("ann", "bob")}
    assert len(shared) == 1


def test_every_table_is_exported_or_says_that_it_names_nobody() -> None:
    """Whoever adds a table answers for it in storage/traces.py."""
    reached = {table.name for table in metadata.sorted_tables if traces.pointing(table)} | set(traces.REACHED)
    assert reached.isdisjoint(traces.NAMES_NOBODY)
    assert reached | traces.NAMES_NOBODY == set(metadata.tables)


def admin_too(session: Session, user_id: int) -> None:
    """The rows that somebody leaves who is more than a user."""
    run = runs.enqueue(session, "default", {}, "command", AT, by_user_id=user_id)
    assert run is not None
    run_cards.add(session, run.id, user_id, CardKind.PROGRESS, "terminal", "ann", "5", AT)
    settings.put(session, "schedule", "", user_id, AT)
    invitations.make(session, "digest", Role.USER, 1, user_id, AT, expires_at=AT)
    audit.record(session, user_id, "run.start", AT)
    audit.record(session, None, "user.role", AT, user=user_id)
    data = datasets.add(session, None, "sft", (1, 1), {}, {}, "0", "", [], AT)
    dataset_people.add(session, data.id, [("a" * 64, user_id)])


def test_every_row_that_names_somebody_is_in_their_export_and_no_row_of_another(world: Database) -> None:
    ann = who(world, "ann")
    world.write(admin_too, ann)
    kept = world.read(own_data, ann, AT)["records"]
    lacking = {table.name for table in metadata.sorted_tables if traces.pointing(table)} - set(kept)
    assert lacking == {"comparison"}  # of which she made none
    assert {"update", "answer", "delivery", "showing", "user"} <= set(kept)
    assert {row["user_id"] for row in kept["message"]} == {ann}
    assert len(kept["audit"]) == 2
    assert len(kept["update"]) == 4
    assert json.loads(json.dumps(kept)) == kept


def test_of_who_is_forgotten_only_what_they_did_as_an_admin_stays(world: Database) -> None:
    ann = who(world, "ann")
    world.write(admin_too, ann)
    world.write(forget, ann, AT)
    left = world.read(traces.of_user, world.read(users.get, ann))
    # A conversation stays where somebody else went on in it; the user is a row without a name.
    assert set(left) == {"user", "conversation", "run", "audit", "setting", "invitation"}
    assert SECRET not in json.dumps(left, ensure_ascii=False)


def test_old_conversations_go_whole_by_the_days_that_are_set_and_by_default_none_does(world: Database) -> None:
    later = AT + timedelta(days=40)
    world.write(lambda session: answered_at(session, who(world, "bob"), later))
    assert retention.expire(world, None, later) == 0
    assert SECRET in everything(world)
    assert retention.expire(world, 30, later) > 0
    left = everything(world)
    assert "天气" not in left
    assert f"{SECRET}一" not in left
    assert "最近" in left
    assert retention.expire(world, 30, later) == 0
    assert world.read(audit.newest)[0].act == "data.expire"


def answered_at(session: Session, user_id: int, at: datetime) -> None:
    chat = chats.find(session, "terminal", "group")
    assert chat is not None
    talk = chats.begin(session, chat.id, "", user_id, at)
    messages.add(session, talk.id, user_id, "最近", "terminal:bob:late", at)
