"""Where people talk, and the conversations in it. Knows nothing of what is said."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import Chat, ChatKind, Conversation, Scope
from storage.rows import add, add_once, batches, first
from storage.tables import chat, conversation

OF_NAME = select(chat).where(chat.c.channel == bindparam("channel"), chat.c.external_id == bindparam("external_id"))
OF_ID = select(chat).where(chat.c.id == bindparam("id"))
CONVERSATION_OF_ID = select(conversation).where(conversation.c.id == bindparam("id"))


def meet(session: Session, channel: str, external_id: str, kind: ChatKind, title: str, at: datetime) -> Chat:
    known = find(session, channel, external_id)
    if known is None:
        added = add_once(
            session, Chat, chat, channel=channel, external_id=external_id, kind=kind, title=title, created_at=at
        )
        known = added or find(session, channel, external_id)
        assert known is not None
    return known


def find(session: Session, channel: str, external_id: str) -> Chat | None:
    return first(session, Chat, OF_NAME, channel=channel, external_id=external_id)


def get(session: Session, chat_id: int) -> Chat:
    """Raises LookupError."""
    found = first(session, Chat, OF_ID, id=chat_id)
    if found is None:
        raise LookupError(f"chat {chat_id} is unknown")
    return found


def set_system(session: Session, chat_id: int, system: str | None) -> None:
    session.execute(sql_update(chat).where(chat.c.id == chat_id).values(system=system))


def admit(session: Session, chat_id: int, at: datetime) -> None:
    """Who speaks in it is answered, also where the bot is not open to all."""
    session.execute(sql_update(chat).where(chat.c.id == chat_id).values(admitted_at=at))


def ids_of_kind(session: Session, channel: str, kind: ChatKind) -> set[str]:
    """As the channel names them."""
    return set(session.scalars(select(chat.c.external_id).where(chat.c.channel == channel, chat.c.kind == kind)))


def set_scope(session: Session, chat_id: int, scope: Scope) -> None:
    session.execute(sql_update(chat).where(chat.c.id == chat_id).values(scope=scope))


def set_locale(session: Session, chat_id: int, locale: str | None) -> None:
    session.execute(sql_update(chat).where(chat.c.id == chat_id).values(locale=locale))


def current(session: Session, chat_id: int, thread: str, user_id: int, at: datetime) -> Conversation:
    """As `newest`; begun if there is none."""
    return newest(session, chat_id, thread, user_id) or begin(session, chat_id, thread, user_id, at)


def newest(session: Session, chat_id: int, thread: str, user_id: int) -> Conversation | None:
    """The newest conversation in that thread, of that user or of all, as the chat has it."""
    mine = (conversation.c.chat_id == chat_id) & (conversation.c.thread == thread)
    if get(session, chat_id).scope is Scope.USER:
        mine &= conversation.c.user_id == user_id
    return first(session, Conversation, select(conversation).where(mine).order_by(conversation.c.id.desc()).limit(1))


def begin(session: Session, chat_id: int, thread: str, user_id: int, at: datetime) -> Conversation:
    """What /new does: what came before is kept, and no longer shown to the release."""
    return add(session, Conversation, conversation, chat_id=chat_id, thread=thread, user_id=user_id, started_at=at)


def conversation_of(session: Session, conversation_id: int) -> Conversation:
    """Raises LookupError."""
    found = first(session, Conversation, CONVERSATION_OF_ID, id=conversation_id)
    if found is None:
        raise LookupError(f"conversation {conversation_id} is unknown")
    return found


def owners(session: Session, conversation_ids: Iterable[int]) -> dict[int, int]:
    """Who began each of those conversations."""
    queries = (
        select(conversation.c.id, conversation.c.user_id).where(conversation.c.id.in_(ids))
        for ids in batches(conversation_ids)
    )
    return {found: user_id for query in queries for found, user_id in session.execute(query)}
