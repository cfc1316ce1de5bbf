"""What a turn reads of a conversation that has gone on for long."""

from __future__ import annotations

import pytest

from huigan.turns import history
from huigan.turns.history import begins_to_forget, lines_for
from huigan.turns.opening import Place, Speaker, meet
from storage import answers, messages, turns
from storage.db import Database, Session
from storage.records import Answer, ChatKind, Ended, Seen
from tests.huigan.turns.conftest import AT


def talk(session: Session, exchanges: int) -> list[int]:
    """Message ids of a conversation in which m0 was answered with a0, and so on."""
    _, conversation = meet(session, Place("terminal", "ann", ChatKind.PRIVATE), Speaker("ann"), AT)
    return [say(session, conversation.id, f"{number}") for number in range(exchanges)]


def say(session: Session, conversation_id: int, text: str, parent: int | None = None) -> int:
    message = messages.add(session, conversation_id, 1, f"m{text}", f"s{text}", AT, parent)
    assert message is not None
    turn = turns.wait(session, conversation_id, message.id, 1, AT)
    answers.add(session, turn, f"a{text}", Seen("", [], 0, "", {}), Ended.COMPLETE, AT, tag="t")
    return message.id


def texts(session: Session, message_id: int) -> list[str]:
    return [line.text for line in lines_for(session, message_id)[0]]


def test_of_a_long_conversation_the_newest_messages_are_read(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "HISTORY_MESSAGES", 3)
    said = sqlite_db.write(talk, 6)
    assert sqlite_db.read(texts, said[-1]) == ["m3", "a3", "m4", "a4", "m5"]


def test_a_reply_to_an_answer_of_long_ago_continues_from_there(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "HISTORY_MESSAGES", 3)
    said = sqlite_db.write(talk, 6)
    [old] = sqlite_db.read(answers.of_message, said[1])
    reply = sqlite_db.write(say, 1, "reply", old.id)
    assert sqlite_db.read(texts, reply) == ["m0", "a0", "m1", "a1", "mreply"]


def test_only_the_first_answer_that_lacked_the_oldest_messages_begins_to_forget(sqlite_db: Database) -> None:
    def answered(session: Session, dropped: list[int]) -> list[Answer]:
        _, conversation = meet(session, Place("terminal", "ann", ChatKind.PRIVATE), Speaker("ann"), AT)
        made = []
        for number, count in enumerate(dropped):
            message = messages.add(session, conversation.id, 1, "m", f"s{number}", AT)
            assert message is not None
            turn = turns.wait(session, conversation.id, message.id, 1, AT)
            seen = Seen("", [], count, "", {})
            made.append(answers.add(session, turn, "a", seen, Ended.COMPLETE, AT, tag="t"))
        return made

    made = sqlite_db.write(answered, [0, 2, 0, 4])
    assert [sqlite_db.read(begins_to_forget, each) for each in made] == [False, True, False, False]
