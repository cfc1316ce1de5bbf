"""What people do: write, edit, press, react, block. Each act changes the chat at once and tells the bot only if
Telegram would (privacy mode, the admin rule for reactions, allowed_updates). Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from telegram.constants import ReactionEmoji

from .entities import Entity, spot_entities, utf16_length
from .world import JSON, Chat, Message, Press, StoredFile, Version

if TYPE_CHECKING:
    from .fake import FakeTelegram

MAX_TEXT_UNITS = 4096
REACTION_EMOJI = frozenset(str(emoji.value) for emoji in ReactionEmoji)


class Person:
    def __init__(self, fake: FakeTelegram, user_id: int, first_name: str, language_code: str, username: str) -> None:
        self._fake = fake
        self.id = user_id
        self.first_name = first_name
        self.language_code = language_code
        self.username = username
        self.has_blocked_bot = False

    def __repr__(self) -> str:
        return self.first_name

    def names(self) -> JSON:
        return {"first_name": self.first_name} | ({"username": self.username} if self.username else {})

    def as_json(self) -> JSON:
        code = {"language_code": self.language_code} if self.language_code else {}
        return {"id": self.id, "is_bot": False, **self.names(), **code}

    def says(
        self,
        chat: Chat,
        text: str,
        *,
        reply_to: Message | None = None,
        entities: Sequence[Entity] = (),
        thread: int | None = None,
    ) -> Message:
        """One message of at most 4096 UTF-16 units; for longer texts see `pastes`."""
        assert 0 < utf16_length(text) <= MAX_TEXT_UNITS, "a client would not send this as one message: use pastes"
        found = [*spot_entities(text), *entities]
        return self._posts(chat, text=text, entities=found, reply_to=reply_to, thread=thread)

    def pastes(self, chat: Chat, text: str, *, thread: int | None = None) -> list[Message]:
        """A text of any length, cut into messages as clients cut it: at 4096 units, preferring a line's end."""
        return [self.says(chat, piece, thread=thread) for piece in _cut_as_clients_do(text)]

    def sends_document(
        self, chat: Chat, name: str, content: bytes, *, caption: str = "", mime_type: str = "text/plain"
    ) -> Message:
        return self._posts(chat, text=caption, file=self._fake.store_file(name, content, mime_type), kind="document")

    def sends_photo(self, chat: Chat, content: bytes, *, caption: str = "") -> Message:
        file = self._fake.store_file("photo.jpg", content, "image/jpeg")
        return self._posts(chat, text=caption, file=file, kind="photo")

    def sends_voice(self, chat: Chat, content: bytes) -> Message:
        file = self._fake.store_file("voice.ogg", content, "audio/ogg")
        return self._posts(chat, file=file, kind="voice")

    def edits(self, message: Message, text: str) -> Message:
        assert message.sender is self, "people edit only what they wrote themselves"
        with self._fake.changing():
            at = self._fake.clock.now()
            message.changes_to(text, spot_entities(text), None, at)
            message.edited_at = at
            if self._fake.bot_sees(message):
                self._fake.updates.add("edited_message", message.as_json(self._fake.bot))
        return message

    def deletes(self, message: Message) -> None:
        """Telegram tells bots nothing of this."""
        with self._fake.changing():
            message.deleted = True

    def presses(self, message: Message, button: str) -> Press:
        """Press the button with this text or callback data, as it is on the screen now."""
        assert self in message.chat.members, f"{self} is not in the chat: use forges_press"
        wanted = [key for key in message.keys if button in (key["text"], key.get("callback_data"))]
        assert wanted, f"no button {button!r} under {message.text!r}: there are {message.buttons}"
        return self._press(message, wanted[0].get("callback_data", ""))

    def forges_press(self, message: Message, data: str) -> Press:
        """What only a manipulated client sends: any data, under any message, from anyone."""
        return self._press(message, data)

    def reacts(self, message: Message, *emoji: str, anonymously: bool = False) -> None:
        """Set one's reactions to exactly these; none withdraws."""
        assert set(emoji) <= REACTION_EMOJI, f"clients do not offer {set(emoji) - REACTION_EMOJI}"
        with self._fake.changing():
            key: int | str = "anonymous" if anonymously else self.id
            before = message.reactions.get(key, [])
            message.reactions[key] = list(emoji)
            if message.chat.is_private or message.chat.bot_is_admin:
                kind, payload = self._reaction(message, before, list(emoji), anonymously=anonymously)
                self._fake.updates.add(kind, payload)

    def stops_draft(self, chat: Chat) -> None:
        """The Stop button beside a draft that was sent with can_stop."""
        with self._fake.changing():
            draft = next((draft for draft in reversed(chat.drafts) if draft.can_stop), None)
            assert draft is not None, "there is no draft with a Stop button on the screen"
            payload: JSON = {"chat": chat.as_json(), "draft_id": draft.id}
            if draft.thread_id is not None:
                payload["message_thread_id"] = draft.thread_id
            self._fake.updates.add("stopped_message_generation", payload)

    def blocks(self) -> None:
        self._moves_bot(self._fake.private(self), "member", "kicked")
        self.has_blocked_bot = True

    def unblocks(self) -> None:
        self.has_blocked_bot = False
        self._moves_bot(self._fake.private(self), "kicked", "member")

    def adds_bot(self, group: Chat) -> None:
        group.bot_is_member = True
        self._moves_bot(group, "left", "member")

    def removes_bot(self, group: Chat) -> None:
        group.bot_is_member = group.bot_is_admin = False
        self._moves_bot(group, "member", "kicked")

    def promotes_bot(self, group: Chat) -> None:
        group.bot_is_admin = True
        self._moves_bot(group, "member", "administrator")

    def _posts(
        self,
        chat: Chat,
        *,
        text: str = "",
        entities: Sequence[Entity] = (),
        reply_to: Message | None = None,
        thread: int | None = None,
        file: StoredFile | None = None,
        kind: str = "",
    ) -> Message:
        assert self in chat.members, f"{self} is not a member of {chat.title}"
        assert not (chat.is_private and self.has_blocked_bot), f"{self} must unblock the bot first"
        assert thread is None or thread in chat.topics, f"{chat.title} has no topic {thread}"
        with self._fake.changing():
            at = self._fake.clock.now()
            message = Message(self._fake.next_message_id(chat), chat, self, at, text, list(entities))
            message.reply_to, message.thread_id, message.file, message.file_kind = reply_to, thread, file, kind
            message.versions.append(Version(text, list(entities), None, at))
            chat.log.append(message)
            if self._fake.bot_sees(message):
                self._fake.updates.add("message", message.as_json(self._fake.bot))
        return message

    def _press(self, message: Message, data: str) -> Press:
        with self._fake.changing():
            press = Press(self._fake.next_query_id(), self, message, data, self._fake.clock.now())
            self._fake.presses.append(press)
            query = {"id": press.id, "from": self.as_json(), "chat_instance": str(message.chat.id), "data": data}
            shown = message.as_json(self._fake.bot)
            if message.deleted:
                shown = {"message_id": message.id, "chat": message.chat.as_json(), "date": 0}
            self._fake.updates.add("callback_query", {**query, "message": shown})
        return press

    def _reaction(
        self, message: Message, before: list[str], after: list[str], *, anonymously: bool
    ) -> tuple[str, JSON]:
        about = {"chat": message.chat.as_json(), "message_id": message.id, "date": int(self._fake.clock.now())}
        if anonymously:
            counts = [{"type": {"type": "emoji", "emoji": each}, "total_count": 1} for each in after]
            return "message_reaction_count", {**about, "reactions": counts}
        old, new = ([{"type": "emoji", "emoji": each} for each in emoji] for emoji in (before, after))
        return "message_reaction", {**about, "user": self.as_json(), "old_reaction": old, "new_reaction": new}

    def _moves_bot(self, chat: Chat, before: str, after: str) -> None:
        with self._fake.changing():
            old, new = (self._fake.bot_membership(status) for status in (before, after))
            payload = {"chat": chat.as_json(), "from": self.as_json(), "date": int(self._fake.clock.now())}
            self._fake.updates.add("my_chat_member", {**payload, "old_chat_member": old, "new_chat_member": new})


def _cut_as_clients_do(text: str) -> list[str]:
    pieces = []
    while utf16_length(text) > MAX_TEXT_UNITS:
        end = len(text.encode("utf-16-le")[: MAX_TEXT_UNITS * 2].decode("utf-16-le", "ignore"))
        line_end = text.rfind("\n", end // 2, end)
        end = line_end if line_end > 0 else end
        pieces.append(text[:end])
        text = text[end:].lstrip("\n")
    return [*pieces, text] if text.strip() else pieces
