"""The Bot API methods about messages: what each refuses, what it changes. In each the order is Telegram's: parameters,
chat, right, content, flood limit, effect. Files are in media.py. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .calls import Params
from .entities import MAX_ENTITIES, Entity, check_entities, read_entities, strip_ends, utf16_length
from .keyboards import Markup, check_markup
from .markup import parse_markup
from .people import REACTION_EMOJI
from .refusals import NOT_MODIFIED, QUERY_TOO_OLD, bad_request, forbidden, unknown_method
from .world import DRAFT_SECONDS, PRESS_SECONDS, Chat, Draft, Message, PhotoSize, StoredFile, Version

if TYPE_CHECKING:
    from .fake import FakeTelegram

Method = Callable[["FakeTelegram", Params], object]

MAX_TEXT_UNITS = 4096
MAX_CALLBACK_ANSWER = 200
DELETABLE_SECONDS = 48 * 3600
ACTIONS = frozenset(
    {"typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice", "upload_document"}
    | {"choose_sticker", "find_location", "record_video_note", "upload_video_note", "record_audio", "upload_audio"}
)

METHODS: dict[str, Method] = {}


def method(*names: str) -> Callable[[Method], Method]:
    """Method names are case-insensitive, as on Telegram."""

    def register(function: Method) -> Method:
        METHODS.update(dict.fromkeys((name.lower() for name in names), function))
        return function

    return register


def find_chat(fake: FakeTelegram, p: Params) -> Chat:
    if not p.text("chat_id"):
        raise bad_request("chat_id is empty")
    chat = fake.chats.get(p.integer("chat_id"))
    if chat is None:
        raise bad_request("chat not found")
    return chat


def writable_chat(fake: FakeTelegram, p: Params) -> Chat:
    chat = find_chat(fake, p)
    if chat.is_private and chat.owner.has_blocked_bot:
        raise forbidden("bot was blocked by the user")
    if chat.is_private and not chat.bot_is_member:
        raise forbidden("bot can't initiate conversation with a user")
    if not chat.bot_is_member:
        raise forbidden(f"bot was kicked from the {chat.kind} chat")
    return chat


def formatted(p: Params, name: str, entities: str) -> tuple[str, list[Entity]]:
    """Parsed, checked and trimmed. A parse mode wins over given entities, as on Telegram."""
    source = p.text(name)
    if mode := p.text("parse_mode"):
        text, found = parse_markup(source, mode)
    else:
        text, found = source, read_entities(p.decoded(entities, "entities"))
    return strip_ends(text, check_entities(text, found))


def _text(p: Params, too_long: str) -> tuple[str, list[Entity]]:
    if not p.text("text"):
        raise bad_request("message text is empty")
    text, entities = formatted(p, "text", "entities")
    if not text.strip():
        raise bad_request("text must be non-empty")
    if utf16_length(text) > MAX_TEXT_UNITS:
        raise bad_request(too_long)
    return text, entities


def read_markup(p: Params, *, inline_only: bool) -> Markup | None:
    return check_markup(p.decoded("reply_markup", "reply keyboard markup"), inline_only=inline_only)


def find_replied(p: Params, chat: Chat) -> Message | None:
    parameters = p.decoded("reply_parameters", "reply parameters")
    if parameters is None:
        parameters = {"message_id": p.integer("reply_to_message_id")}
        parameters["allow_sending_without_reply"] = p.flag("allow_sending_without_reply")
    if not isinstance(parameters, dict):
        raise bad_request("object expected as reply parameters")
    if not parameters.get("message_id"):
        return None
    replied = chat.find(parameters["message_id"])
    if replied is None and not parameters.get("allow_sending_without_reply"):
        raise bad_request("message to be replied not found")
    return replied


def find_thread(p: Params, chat: Chat) -> int | None:
    thread = p.integer("message_thread_id")
    if thread and thread not in chat.topics:
        raise bad_request("message thread not found")
    return thread or None


def post(fake: FakeTelegram, chat: Chat, message: Message) -> object:
    fake.floods.admit(chat.id, "send", is_group=not chat.is_private)
    message.id = fake.next_message_id(chat)
    message.dropped_entities = max(len(message.entities) - MAX_ENTITIES, 0)
    message.entities = message.entities[:MAX_ENTITIES]
    message.versions.append(Version(message.text, message.entities, message.markup, message.sent_at))
    chat.log.append(message)
    for draft in chat.all_drafts:
        if draft.thread_id == message.thread_id:  # the message takes the draft's place
            draft.shown_until = min(draft.shown_until, fake.clock.now())
    return message.as_json(fake.bot)


@method("sendMessage")
def send_message(fake: FakeTelegram, p: Params) -> object:
    if not p.text("text"):
        raise bad_request("message text is empty")
    chat = writable_chat(fake, p)
    thread, replied = find_thread(p, chat), find_replied(p, chat)
    markup = read_markup(p, inline_only=False)
    text, entities = _text(p, "message is too long")
    message = Message(0, chat, None, fake.clock.now(), text, entities, markup, replied, thread)
    message.asks_for_reply = "force_reply" in (p.decoded("reply_markup", "reply keyboard markup") or {})
    return post(fake, chat, message)


@method("copyMessage")
def copy_message(fake: FakeTelegram, p: Params) -> object:
    chat, source = writable_chat(fake, p), fake.chats.get(p.integer("from_chat_id"))
    if source is None:
        raise bad_request("chat not found")
    original = source.find(p.integer("message_id"))
    if original is None:
        raise bad_request("message to copy not found")
    message = Message(0, chat, None, fake.clock.now(), original.text, original.entities)
    message.markup = read_markup(p, inline_only=False)
    message.file, message.file_kind, message.sizes = original.file, original.file_kind, original.sizes
    message.thread_id = find_thread(p, chat)
    post(fake, chat, message)
    return {"message_id": message.id}


@method("sendMessageDraft")
def send_message_draft(fake: FakeTelegram, p: Params) -> object:
    """Frames after a Stop are taken and shown to nobody: Telegram says only that the button stops further drafts."""
    if not fake.knows_drafts:
        raise unknown_method()
    chat = writable_chat(fake, p)
    if not chat.is_private:
        raise bad_request("TEXTDRAFT_PEER_INVALID")
    if not p.integer("draft_id"):
        raise bad_request("RANDOM_ID_INVALID")
    thread = find_thread(p, chat)
    text, entities = formatted(p, "text", "entities")
    if utf16_length(text) > MAX_TEXT_UNITS:
        raise bad_request("message is too long")
    fake.floods.admit(chat.id, "draft", is_group=False)
    draft = Draft(p.integer("draft_id"), text, entities, p.flag("can_stop") and fake.knows_stop, thread, 0.0)
    draft.keep_on_stop = p.flag("keep_on_stop")
    _show_draft(fake, chat, draft)
    return True


def _show_draft(fake: FakeTelegram, chat: Chat, draft: Draft) -> None:
    shown = next((each for each in chat.all_drafts if each.id == draft.id), None)
    if shown is not None and shown.is_stopped:
        return
    shown = shown if shown in chat.drafts else None
    draft.frames = [*(shown.frames if shown else []), draft.text]
    draft.shown_until = fake.clock.now() + DRAFT_SECONDS
    chat.all_drafts = [each for each in chat.all_drafts if each is not shown] + [draft]


def find_editable(fake: FakeTelegram, p: Params) -> tuple[Chat, Message]:
    if not p.text("chat_id") and not p.text("inline_message_id"):
        raise bad_request("message identifier is not specified" if not p.text("message_id") else "chat_id is empty")
    chat = writable_chat(fake, p)
    if not p.text("message_id"):
        raise bad_request("message identifier is not specified")
    message = chat.find(p.integer("message_id"))
    if message is None:
        raise bad_request("message to edit not found")
    if not message.from_bot:
        raise bad_request("message can't be edited")
    return chat, message


def change(
    fake: FakeTelegram,
    message: Message,
    text: str,
    entities: list[Entity],
    markup: Markup | None,
    media: tuple[StoredFile, str, list[PhotoSize]] | None = None,
) -> object:
    """Refuses what changes nothing. `media` replaces what the message showed."""
    is_same = (text, entities[:MAX_ENTITIES], markup) == (message.text, message.entities, message.markup)
    if is_same and media is None:
        raise bad_request(NOT_MODIFIED)
    fake.floods.admit(message.chat.id, "edit", is_group=not message.chat.is_private)
    at = fake.clock.now()
    if media is not None:
        message.file, message.file_kind, message.sizes = media
    message.dropped_entities = max(len(entities) - MAX_ENTITIES, 0)
    message.changes_to(text, entities[:MAX_ENTITIES], markup, at)
    message.edited_at = at
    return message.as_json(fake.bot)


@method("editMessageText")
def edit_message_text(fake: FakeTelegram, p: Params) -> object:
    """An edit without reply_markup takes the buttons away: so does Telegram."""
    if not p.text("text"):
        raise bad_request("message text is empty")
    _, message = find_editable(fake, p)
    markup = read_markup(p, inline_only=True)
    text, entities = _text(p, "MESSAGE_TOO_LONG")
    if message.file:
        raise bad_request("there is no text in the message to edit")
    return change(fake, message, text, entities, markup)


@method("editMessageReplyMarkup")
def edit_message_reply_markup(fake: FakeTelegram, p: Params) -> object:
    _, message = find_editable(fake, p)
    return change(fake, message, message.text, message.entities, read_markup(p, inline_only=True))


def _deletable(fake: FakeTelegram, chat: Chat, message: Message) -> bool:
    if message.from_bot or chat.is_private:
        return fake.clock.now() - message.sent_at < DELETABLE_SECONDS or chat.bot_is_admin
    return chat.bot_is_admin


@method("deleteMessage")
def delete_message(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    if not p.text("message_id"):
        raise bad_request("message identifier is not specified")
    message = chat.find(p.integer("message_id"))
    if message is None:
        raise bad_request("message to delete not found")
    if not _deletable(fake, chat, message):
        old = message.from_bot or chat.is_private
        raise bad_request("message can't be deleted for everyone" if old else "message can't be deleted")
    message.deleted = True
    return True


@method("deleteMessages")
def delete_messages(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    ids = p.decoded("message_ids", "message identifiers")
    if not isinstance(ids, list) or not ids or not all(isinstance(each, int) for each in ids):
        raise bad_request("message identifiers are not specified")
    if len(ids) > 100:
        raise bad_request("too many message identifiers specified")
    found = [message for each in ids if (message := chat.find(each))]
    if not all(_deletable(fake, chat, message) for message in found):
        raise bad_request("message can't be deleted")
    for message in found:
        message.deleted = True
    return True


@method("setMessageReaction")
def set_message_reaction(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    message = chat.find(p.integer("message_id"))
    if message is None:
        raise bad_request("message to react not found")
    reactions = p.decoded("reaction", "reaction types") or []
    if not isinstance(reactions, list) or not all(isinstance(each, dict) for each in reactions):
        raise bad_request("expected an Array of ReactionType")
    emoji = [each.get("emoji", "") for each in reactions]
    if len(emoji) > 1:  # a bot has one
        raise bad_request("REACTIONS_TOO_MANY")
    if not set(emoji) <= REACTION_EMOJI:
        raise bad_request("REACTION_INVALID")
    message.reactions["bot"] = emoji
    return True


@method("sendChatAction")
def send_chat_action(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    find_thread(p, chat)
    if p.text("action") not in ACTIONS:
        raise bad_request("wrong parameter action in request")
    chat.actions.append(p.text("action"))
    return True


@method("answerCallbackQuery")
def answer_callback_query(fake: FakeTelegram, p: Params) -> object:
    press = next((press for press in fake.presses if press.id == p.text("callback_query_id")), None)
    if press is None or press.answered or fake.clock.now() - press.at > PRESS_SECONDS:
        raise bad_request(QUERY_TOO_OLD)
    if utf16_length(p.text("text")) > MAX_CALLBACK_ANSWER:
        raise bad_request("MESSAGE_TOO_LONG")
    url = p.text("url")
    if url and not url.startswith((f"https://t.me/{fake.bot['username']}?start=", "tg://")):
        raise bad_request("URL_INVALID")
    press.answered, press.answer, press.show_alert, press.url = True, p.text("text"), p.flag("show_alert"), url
    return True
