"""Rows that others need to stand on: users, a conversation, messages, answers."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

from storage import answers, chats, messages, turns, users
from storage.db import Session
from storage.records import Answer, ChatKind, Conversation, Ended, Message, Seen, User

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
_numbers = count()


def people(session: Session, number: int) -> list[User]:
    return [users.meet(session, "telegram", f"u{each}", "", None, AT) for each in range(number)]


def conversation(session: Session) -> Conversation:
    """A new one each time."""
    chat = chats.meet(session, "telegram", "1", ChatKind.PRIVATE, "", AT)
    return chats.begin(session, chat.id, "", people(session, 1)[0].id, AT)


def message(session: Session, talk: Conversation) -> Message:
    said = messages.add(session, talk.id, talk.user_id, "?", f"test:{next(_numbers)}", AT)
    assert said is not None
    return said


def answered(session: Session, number: int) -> list[Answer]:
    """That many answers, each to a message of its own."""
    talk = conversation(session)
    made = []
    for _ in range(number):
        turn = turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT)
        made.append(answers.add(session, turn, "!", Seen("s", [], 0, "0", {}), Ended.COMPLETE, AT, tag="t"))
    return made
