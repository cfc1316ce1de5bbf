"""A message comes in: the person, the chat, the conversation, the message and its turn are stored at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from huigan.turns import admission
from huigan.turns.refusals import Refusal as Refusal  # for everybody who opens
from storage import answers, attachments, chats, deliveries, deployments, messages, turns, users
from storage.db import Session
from storage.records import (
    WHOLE,
    AttachmentKind,
    ChatKind,
    Conversation,
    Live,
    Message,
    Role,
    Turn,
    TurnState,
    User,
)

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
class Enclosed:
    """A file that came with what was said, and is on our disk already."""

    kind: AttachmentKind
    name: str
    mime_type: str
    sha256: str
    size_bytes: int
    path: str


def meet(session: Session, place: Place, speaker: Speaker, at: datetime) -> tuple[User, Conversation]:
    """The user, and their current conversation in that place."""
    user = users.meet(session, place.channel, speaker.external_id, speaker.name, speaker.locale, at)
    chat = chats.meet(session, place.channel, place.chat, place.kind, place.title, at)
    return user, chats.current(session, chat.id, place.thread, user.id, at)


def refused(session: Session, place: Place, speaker: Speaker, at: datetime) -> Refusal | None:
    """Why a question of theirs would not be answered now: for who wants to know before fetching what came with it."""
    user, conversation = meet(session, place, speaker, at)
    if user.role is Role.BLOCKED:
        return Refusal("blocked")
    return admission.refusal(session, user, chats.get(session, conversation.chat_id), at)


def answering(session: Session, place: Place, speaker: Speaker, reply_to: str | None) -> Live | None:
    """The release that would answer what they say there now: for who wants to know what it can see. Reads only."""
    user, chat = users.find(session, place.channel, speaker.external_id), chats.find(session, place.channel, place.chat)
    parent = _parent(session, place, reply_to)
    current = chats.newest(session, chat.id, place.thread, user.id) if user is not None and chat is not None else None
    conversation_id = parent[1] if parent is not None else current.id if current is not None else None
    if conversation_id is None:
        return deployments.live(session)
    return deployments.for_turn(session, conversation_id, sampled=False)


def open_turn(
    session: Session,
    place: Place,
    speaker: Speaker,
    text: str,
    source: str,
    at: datetime,
    *,
    reply_to: str | None = None,
    enclosed: Sequence[Enclosed] = (),
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
    refused = admission.refusal(session, user, chats.get(session, conversation.chat_id), at)
    if refused is not None:
        return refused
    parent = _parent(session, place, reply_to)
    if parent is not None:
        conversation = chats.conversation_of(session, parent[1])
    message = messages.add(session, conversation.id, user.id, text, source, at, parent[0] if parent else None)
    assert message is not None
    _enclose(session, message.id, enclosed, at)
    return turns.wait(session, conversation.id, message.id, user.id, at)


def _enclose(session: Session, message_id: int, enclosed: Sequence[Enclosed], at: datetime) -> None:
    for each in enclosed:
        attachments.add(session, message_id, at, **asdict(each))


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
    chat = chats.get(session, chats.conversation_of(session, message.conversation_id).chat_id)
    refused = admission.refusal(session, users.get(session, user_id), chat, at)
    if refused is not None:
        return refused
    if any(turn.state is not TurnState.CLOSED for turn in turns.of_message(session, message_id)):
        return Refusal("already_answering")
    # What failed or broke off is tried again as it was asked; only a whole answer is to be answered otherwise.
    again = any(answer.ended in WHOLE for answer in answers.of_message(session, message_id))
    return turns.wait(session, message.conversation_id, message_id, user_id, at, again=again)


def edit(
    session: Session,
    place: Place,
    speaker: Speaker,
    text: str,
    source: str,
    edited_source: str,
    at: datetime,
    *,
    enclosed: Sequence[Enclosed] | None = None,
) -> Message | Refusal | None:
    """Keep the edited version of a question, for its author to have it answered. None where there is nothing to answer:
    what was no question of theirs, or says what it said before. `enclosed` None: what came with the original."""
    user = users.find(session, place.channel, speaker.external_id)
    said = messages.by_source(session, source)
    if user is None or user.role is Role.BLOCKED or said is None or said.user_id != user.id or not text.strip():
        return None
    newest = messages.newest_version(session, said.id)
    if newest.source == edited_source:  # an update that is replayed
        return newest
    if newest.text == text:
        return None
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return Refusal("message_too_long")
    where = (said.conversation_id, user.id)
    version = messages.add(session, *where, text, edited_source, at, said.parent_answer_id, replaces_id=said.id)
    assert version is not None
    _enclose(session, version.id, _of_original(session, said.id) if enclosed is None else enclosed, at)
    return version


def _of_original(session: Session, message_id: int) -> list[Enclosed]:
    files = attachments.of_messages(session, [message_id]).get(message_id, [])
    return [Enclosed(each.kind, each.name, each.mime_type, each.sha256, each.size_bytes, each.path) for each in files]


def answer_edited(session: Session, message_id: int, user_id: int, at: datetime) -> Turn | Refusal:
    """An answer to an edited version, once: the newest one counts."""
    version = messages.many(session, [message_id]).get(message_id)
    if version is None or version.replaces_id is None or turns.of_message(session, message_id):
        return Refusal("stale_button")
    if messages.newest_version(session, version.replaces_id).id != message_id:
        return Refusal("newer_version")
    return answer_again(session, message_id, user_id, at)


def start_over(session: Session, place: Place, speaker: Speaker, at: datetime) -> Conversation:
    """/new."""
    user, current = meet(session, place, speaker, at)
    return chats.begin(session, current.chat_id, place.thread, user.id, at)
