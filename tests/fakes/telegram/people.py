"""What people do: write, edit, press, react, block. Each act changes the chat at once and tells the bot only if
Telegram would (privacy mode, the admin rule for reactions, allowed_updates). Knows nothing of HTTP."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from telegram.constants import ReactionEmoji

from .entities import Entity, spot_entities, utf16_length
from .world import JSON, Chat, Draft, Message, PhotoSize, Press, StoredFile, Version

if TYPE_CHECKING:
    from .fake import FakeTelegram

MAX_TEXT_UNITS = 4096
MAX_ALBUM = 10
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
        **how: Any,
    ) -> Message:
        """One message of at most 4096 UTF-16 units; for longer texts see `pastes`."""
        assert 0 < utf16_length(text) <= MAX_TEXT_UNITS, "a client would not send this as one message: use pastes"
        found = [*spot_entities(text), *entities]
        return self._posts(chat, text=text, entities=found, reply_to=reply_to, thread=thread, **how)

    def forwards(self, chat: Chat, text: str, *, hidden: str = "A friend", **how: Any) -> Message:
        """What somebody else wrote, who hides their account."""
        origin: JSON = {"type": "hidden_user", "sender_user_name": hidden, "date": int(self._fake.clock.now())}
        return self.says(chat, text, more={"forward_origin": origin}, **how)

    def pastes(
        self, chat: Chat, text: str, *, reply_to: Message | None = None, thread: int | None = None
    ) -> list[Message]:
        """A text of any length, cut into messages as clients cut it: at 4096 units, preferring a line's end. All in
        the same second, one behind the other; the first alone is a reply."""
        with self._fake.changing(), self._fake.clock.standing_still():
            replies = itertools.chain([reply_to], itertools.repeat(None))
            pieces = zip(_cut_as_clients_do(text), replies, strict=False)
            return [self.says(chat, piece, reply_to=reply, thread=thread) for piece, reply in pieces]

    def starts(self, payload: str = "") -> Message:
        """The Start button of a private chat, or a link `t.me/<bot>?start=<payload>` that was followed."""
        assert re.fullmatch(r"[A-Za-z0-9_-]{0,64}", payload), f"clients open no link with {payload!r}"
        return self.says(self._fake.private(self), f"/start {payload}".strip())

    def follows(self, link: str) -> Message:
        parts = urlsplit(link)
        assert (parts.hostname, parts.path[1:]) == ("t.me", self._fake.bot["username"]), f"no link to the bot: {link}"
        return self.starts(parse_qs(parts.query)["start"][0])

    def sends_document(
        self, chat: Chat, name: str, content: bytes, *, caption: str = "", mime_type: str = "text/plain", **how: Any
    ) -> Message:
        file = self._fake.store_file(name, content, mime_type)
        return self._posts(chat, text=caption, file=file, kind="document", **how)

    def sends_photo(self, chat: Chat, content: bytes, *, caption: str = "", **how: Any) -> Message:
        """Any bytes: clients make a JPEG of what people choose, and no test needs more than its size."""
        sizes = self._fake.store_photo(content)
        return self._posts(chat, text=caption, file=sizes[-1].file, kind="photo", sizes=sizes, **how)

    def sends_album(self, chat: Chat, contents: Sequence[bytes], *, caption: str = "", **how: Any) -> list[Message]:
        """Several photos at once: as many messages with one media_group_id, the caption on the first."""
        assert 2 <= len(contents) <= MAX_ALBUM, f"an album has 2 to {MAX_ALBUM} photos"
        with self._fake.changing(), self._fake.clock.standing_still():
            how["album"] = self._fake.next_album()
            captions = [caption, *[""] * (len(contents) - 1)]
            pairs = zip(contents, captions, strict=True)
            return [self.sends_photo(chat, content, caption=words, **how) for content, words in pairs]

    def sends_voice(self, chat: Chat, content: bytes, **how: Any) -> Message:
        file = self._fake.store_file("voice.ogg", content, "audio/ogg")
        return self._posts(chat, file=file, kind="voice", **how)

    def sends_sticker(self, chat: Chat, **how: Any) -> Message:
        return self._posts(chat, file=self._fake.store_file("tea.webp", b"RIFF", "image/webp"), kind="sticker", **how)

    def sends_video(self, chat: Chat, content: bytes, *, caption: str = "", **how: Any) -> Message:
        file = self._fake.store_file("video.mp4", content, "video/mp4")
        return self._posts(chat, text=caption, file=file, kind="video", **how)

    def sends_other(self, chat: Chat, kind: str, content: JSON, **how: Any) -> Message:
        """A place, a contact, a dice: what has neither words nor a file."""
        return self._posts(chat, more={kind: content}, **how)

    def edits(self, message: Message, text: str) -> Message:
        """A text, or a caption. It stays a reply to what it replied to; the bot is told where it saw the message."""
        assert message.sender is self, "people edit only what they wrote themselves"
        assert text or message.file, "clients send no empty edit"
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
        """Set one's reactions to exactly these; none withdraws. Digits are a custom emoji's id. The bot is told in
        private chats, and in groups if it is an admin there: by whom, or as counts where that is hidden."""
        unknown = {each for each in emoji if each not in REACTION_EMOJI and not each.isdigit()}
        assert not unknown, f"clients do not offer {unknown}"
        with self._fake.changing():
            all_of_them: dict[Any, list[str]] = message.anonymous_reactions if anonymously else message.reactions
            before = all_of_them.get(self.id, [])
            all_of_them[self.id] = list(emoji)
            if self._tells_reactions(message.chat) and before != list(emoji):
                kind, payload = self._reaction(message, before, list(emoji), anonymously=anonymously)
                self._fake.updates.add(kind, payload)

    def stops_draft(self, chat: Chat) -> Draft:
        """The Stop button beside a draft that was sent with can_stop: it goes from the screen, unless keep_on_stop."""
        with self._fake.changing():
            draft = next((each for each in reversed(chat.drafts) if each.can_stop and not each.is_stopped), None)
            assert draft is not None, "there is no draft with a Stop button on the screen"
            draft.is_stopped = True
            if not draft.keep_on_stop:
                draft.shown_until = self._fake.clock.now()
            payload: JSON = {"chat": chat.as_json(), "draft_id": draft.id}
            if draft.thread_id is not None:
                payload["message_thread_id"] = draft.thread_id
            self._fake.updates.add("stopped_message_generation", payload)
        return draft

    def blocks(self) -> None:
        self._moves_bot(self._fake.private(self), "member", "kicked")
        self.has_blocked_bot = True

    def unblocks(self) -> None:
        self.has_blocked_bot = False
        self._moves_bot(self._fake.private(self), "kicked", "member")

    def adds_bot(self, group: Chat) -> None:
        """Told twice: as membership, and as a message without content in the group."""
        group.bot_is_member = True
        self._moves_bot(group, "left", "member")
        self._posts(group, service={"new_chat_members": [self._fake.bot]})

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
        sizes: Sequence[PhotoSize] = (),
        album: str = "",
        service: JSON | None = None,
        more: JSON | None = None,
    ) -> Message:
        assert self in chat.members, f"{self} is not a member of {chat.title}"
        assert not (chat.is_private and self.has_blocked_bot), f"{self} must unblock the bot first"
        assert thread is None or thread in chat.topics, f"{chat.title} has no topic {thread}"
        with self._fake.changing():
            at = self._fake.clock.now()
            found = list(entities) or spot_entities(text)
            message = Message(self._fake.next_message_id(chat), chat, self, at, text, found)
            message.sizes, message.album, message.service = list(sizes), album, service or {}
            message.more = more or {}
            message.reply_to, message.thread_id, message.file, message.file_kind = reply_to, thread, file, kind
            message.versions.append(Version(text, found, None, at))
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
            counted = Counter(each for emoji in message.anonymous_reactions.values() for each in emoji)
            counts = [{"type": _reaction_type(each), "total_count": number} for each, number in counted.items()]
            return "message_reaction_count", {**about, "reactions": counts}
        old, new = ([_reaction_type(each) for each in emoji] for emoji in (before, after))
        return "message_reaction", {**about, "user": self.as_json(), "old_reaction": old, "new_reaction": new}

    def _tells_reactions(self, chat: Chat) -> bool:
        if chat.is_private:
            return not self.has_blocked_bot
        return chat.bot_is_member and chat.bot_is_admin

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


def _reaction_type(emoji: str) -> JSON:
    if emoji.isdigit():
        return {"type": "custom_emoji", "custom_emoji_id": emoji}
    return {"type": "emoji", "emoji": emoji}
