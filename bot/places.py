"""Where and by whom something was said, from Telegram's words to ours. Pure; knows no database."""

from __future__ import annotations

from dataclasses import dataclass

from telegram import Bot, MaybeInaccessibleMessage, Message, MessageEntity, User
from telegram.constants import ChatType

from bot import CHANNEL
from huigan.texts import locale_of
from huigan.turns.opening import Place, Speaker
from storage.records import ChatKind

ANONYMOUS_ADMIN_ID = 1087968824


@dataclass(frozen=True)
class Spot:
    """Where to write: in groups as a reply, so that it is seen whom it answers."""

    chat_id: int
    thread_id: int | None = None
    reply_to: int | None = None

    @property
    def is_group(self) -> bool:
        return self.chat_id < 0


def place_of(message: Message) -> Place:
    kind = ChatKind.PRIVATE if message.chat.type == ChatType.PRIVATE else ChatKind.GROUP
    thread = str(message.message_thread_id) if message.is_topic_message else ""
    return Place(CHANNEL, str(message.chat.id), kind, message.chat.title or "", thread)


def place_under(message: MaybeInaccessibleMessage) -> Place:
    """Where a button was pressed. A message that is too old to be shown to us names its chat alone."""
    if isinstance(message, Message):
        return place_of(message)
    kind = ChatKind.PRIVATE if message.chat.type == ChatType.PRIVATE else ChatKind.GROUP
    return Place(CHANNEL, str(message.chat.id), kind)


def speaker_of(user: User) -> Speaker:
    return Speaker(str(user.id), user.full_name, locale_of(user.language_code))


def source_of(message: Message) -> str:
    return source(message.chat.id, message.message_id)


def source(chat_id: int, message_id: int) -> str:
    """Names a message for ever: ids alone are unique in private chats only."""
    return f"{CHANNEL}:{chat_id}:{message_id}"


def edited_source_of(message: Message, update_id: int) -> str:
    """Names one version of a message that was edited."""
    return f"{source_of(message)}:e{update_id}"


def message_id_in(source: str) -> int:
    return int(source.split(":")[2])


def spot_of(message: MaybeInaccessibleMessage) -> Spot:
    """Beside `message`, which in a group is replied to."""
    in_topic = isinstance(message, Message) and message.is_topic_message
    thread_id = message.message_thread_id if in_topic and isinstance(message, Message) else None
    return Spot(message.chat.id, thread_id, message.message_id if message.chat.id < 0 else None)


def replied_to(message: Message) -> Message | None:
    """What it is a reply to. In a topic, whatever is no reply comes as one to the message that began the topic."""
    reply = message.reply_to_message
    return None if reply is None or reply.forum_topic_created else reply


def said_to_us(message: Message, bot: Bot) -> str | None:
    """What was said to the bot, in a text or beside a file, without its name; None if it was not spoken to: in a group
    it is by mention or reply, also where it sees everything."""
    said = message.text or message.caption or ""
    marked = message.parse_entities if message.text else message.parse_caption_entities
    mentions = [text for entity, text in marked([MessageEntity.MENTION]).items() if _names(text, bot)]
    named = bool(mentions) or any(
        entity.user is not None and entity.user.id == bot.id for entity in marked([MessageEntity.TEXT_MENTION])
    )
    reply = replied_to(message)
    replied = reply is not None and reply.from_user is not None and reply.from_user.id == bot.id
    if message.chat.type != ChatType.PRIVATE and not named and not replied:
        return None
    for mention in mentions:
        said = said.replace(mention, " ", 1)
    return said.strip()


def _names(mention: str, bot: Bot) -> bool:
    return mention.lower() == f"@{bot.username}".lower()


def is_machine(user: User) -> bool:
    return user.is_bot and user.id != ANONYMOUS_ADMIN_ID
