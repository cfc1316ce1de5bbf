"""What users said. Inserted only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, select

from storage.db import Session
from storage.records import Message
from storage.rows import add_once, batches, every, first
from storage.tables import message

OF_ID = select(message).where(message.c.id == bindparam("id"))
OF_SOURCE = select(message).where(message.c.source == bindparam("source"))


def add(
    session: Session,
    conversation_id: int,
    user_id: int,
    text: str,
    source: str,
    at: datetime,
    parent_answer_id: int | None = None,
    replaces_id: int | None = None,
) -> Message | None:
    """None if a message from that source is there already: an update that is replayed says nothing new. `replaces_id`
    is the message as it was first said, of which this is an edited version."""
    return add_once(
        session,
        Message,
        message,
        conversation_id=conversation_id,
        user_id=user_id,
        text=text,
        source=source,
        parent_answer_id=parent_answer_id,
        replaces_id=replaces_id,
        sent_at=at,
    )


def get(session: Session, message_id: int) -> Message:
    """Raises LookupError."""
    found = first(session, Message, OF_ID, id=message_id)
    if found is None:
        raise LookupError(f"message {message_id} is unknown")
    return found


def by_source(session: Session, source: str) -> Message | None:
    return first(session, Message, OF_SOURCE, source=source)


def newest_version(session: Session, message_id: int) -> Message:
    """The message as it was last edited: itself, where it never was. Raises LookupError."""
    said = get(session, message_id)
    edited = select(message).where(
        message.c.conversation_id == said.conversation_id, message.c.replaces_id == message_id
    )
    return first(session, Message, edited.order_by(message.c.id.desc()).limit(1)) or said


def of_conversation(
    session: Session, conversation_id: int, *, up_to: int | None = None, limit: int | None = None
) -> list[Message]:
    """Oldest first, with `up_to` none newer than that message, with `limit` the newest so many."""
    query = select(message).where(message.c.conversation_id == conversation_id).order_by(message.c.id.desc())
    if up_to is not None:
        query = query.where(message.c.id <= up_to)
    return every(session, Message, query.limit(limit))[::-1]


def of_conversations(session: Session, conversation_ids: Iterable[int]) -> list[Message]:
    """All that was said in them, by id."""
    queries = (select(message).where(message.c.conversation_id.in_(ids)) for ids in batches(conversation_ids))
    return sorted((found for query in queries for found in every(session, Message, query)), key=lambda each: each.id)


def before(session: Session, message_id: int, user_id: int) -> Message | None:
    """What that user said last before it, wherever."""
    query = select(message).where(message.c.user_id == user_id, message.c.id < message_id)
    return first(session, Message, query.order_by(message.c.id.desc()).limit(1))


def many(session: Session, message_ids: Iterable[int]) -> dict[int, Message]:
    queries = (select(message).where(message.c.id.in_(ids)) for ids in batches(message_ids))
    return {found.id: found for query in queries for found in every(session, Message, query)}


def of_user(session: Session, user_id: int) -> list[Message]:
    """Oldest first."""
    return every(session, Message, select(message).where(message.c.user_id == user_id).order_by(message.c.id))
