"""A message comes in: the person, the chat, the conversation, the message and its turn are stored at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from storage import answers, chats, deliveries, messages, turns, users
from storage.records import WHOLE, ChatKind, Conversation, Role, Turn, TurnState, User

MAX_MESSAGE_CHARACTERS = 32_000  # about 32k Chinese tokens: more than any context we serve with


@dataclass(frozen=True)
class Place:
    """Where somebody speaks, as the channel names it. `thread` is a forum topic, or empty."""

    channel: str
    chat: str
    kind: ChatKind
    title: str = ""
    thread: str = ""


@dataclass(frozen=True)
class Speaker:
    external_id: str
    name: str = ""
    locale: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Nothing was done, and why: a code for `huigan.texts`."""

    code: str


def meet(session: Session, place: Place, speaker: Speaker, at: datetime) -> tuple[User, Conversation]:
    """The user, and their current conversation in that place."""
    user = users.meet(session, place.channel, speaker.external_id, speaker.name, speaker.locale, at)
    chat = chats.meet(session, place.channel, place.chat, place.kind, place.title, at)
    return user, chats.current(session, chat.id, place.thread, user.id, at)


def open_turn(
    session: Session,
    place: Place,
    speaker: Speaker,
    text: str,
    source: str,
    at: datetime,
    *,
    reply_to: str | None = None,
) -> Turn | Refusal | None:
    """Store what was said and the turn that will answer it.

    `source` names the message in its channel: said twice (an update that is replayed), it returns the turn that is
    still to be answered, or None where that is done. `reply_to` is the channel message it answers, if it was ours.
    """
    user, conversation = meet(session, place, speaker, at)
    if user.role is Role.BLOCKED:
        return Refusal("blocked")
    if not text.strip():
        return Refusal("empty_message")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return Refusal("message_too_long")
    known = messages.by_source(session, source)
    if known is not None:
        return next((turn for turn in turns.of_message(session, known.id) if turn.state is not TurnState.CLOSED), None)
    parent = _parent(session, place, reply_to)
    if parent is not None:
        conversation = chats.conversation_of(session, parent[1])
    message = messages.add(session, conversation.id, user.id, text, source, at, parent[0] if parent else None)
    assert message is not None
    return turns.wait(session, conversation.id, message.id, user.id, at)


def _parent(session: Session, place: Place, reply_to: str | None) -> tuple[int, int] | None:
    """The answer and conversation that a reply continues from; None where it replies to nothing of ours."""
    shown = None if reply_to is None else deliveries.find(session, place.channel, place.chat, reply_to)
    if shown is None:
        return None
    return shown.answer_id, answers.get(session, shown.answer_id).conversation_id


def answer_again(session: Session, message_id: int, user_id: int, at: datetime) -> Turn | Refusal:
    """A second answer to a message: regenerated, or tried again after a failure. Only its author may ask."""
    message = messages.get(session, message_id)
    if message.user_id != user_id:
        return Refusal("not_yours")
    if users.get(session, user_id).role is Role.BLOCKED:
        return Refusal("blocked")
    if any(turn.state is not TurnState.CLOSED for turn in turns.of_message(session, message_id)):
        return Refusal("already_answering")
    # What failed or broke off is tried again as it was asked; only a whole answer is to be answered otherwise.
    again = any(answer.ended in WHOLE for answer in answers.of_message(session, message_id))
    return turns.wait(session, message.conversation_id, message_id, user_id, at, again=again)


def start_over(session: Session, place: Place, speaker: Speaker, at: datetime) -> Conversation:
    """/new."""
    user, current = meet(session, place, speaker, at)
    return chats.begin(session, current.chat_id, place.thread, user.id, at)
