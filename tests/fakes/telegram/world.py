"""What exists in the fake's Telegram: chats, messages, drafts, presses, files, and how each looks in JSON. It decides
nothing: who may do what is in methods.py (the bot) and people.py (everyone else)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .entities import Entity
from .keyboards import Markup

if TYPE_CHECKING:
    from .people import Person

JSON = dict[str, Any]

DRAFT_SECONDS = 30
PRESS_SECONDS = 15


@dataclass(frozen=True)
class StoredFile:
    id: str
    path: str
    name: str
    mime_type: str
    content: bytes = field(repr=False)

    def as_json(self) -> JSON:
        return {"file_id": self.id, "file_unique_id": f"u{self.id}", "file_size": len(self.content)}


@dataclass(frozen=True)
class PhotoSize:
    file: StoredFile
    width: int
    height: int

    def as_json(self) -> JSON:
        return self.file.as_json() | {"width": self.width, "height": self.height}


@dataclass(frozen=True)
class Version:
    """A message's content between two edits."""

    text: str
    entities: list[Entity]
    markup: Markup | None
    at: float


@dataclass(eq=False)
class Message:
    """A message as users see it now; what it was before is in `versions`. A file's caption is its `text`."""

    id: int
    chat: Chat
    sender: Person | None  # None: the bot
    sent_at: float
    text: str = ""
    entities: list[Entity] = field(default_factory=list)
    markup: Markup | None = None
    reply_to: Message | None = None
    thread_id: int | None = None
    file: StoredFile | None = None
    file_kind: str = ""  # document, photo, voice, sticker, video
    sizes: list[PhotoSize] = field(default_factory=list)  # of a photo, the smallest first; `file` is the largest
    album: str = ""  # shared by what was sent as one
    service: JSON = field(default_factory=dict)  # what a message without content tells, as who came into a group
    more: JSON = field(default_factory=dict)  # where it was forwarded from; a place, a contact, a dice
    edited_at: float | None = None
    deleted: bool = False
    versions: list[Version] = field(default_factory=list)
    reactions: dict[int | str, list[str]] = field(default_factory=dict)
    anonymous_reactions: dict[int, list[str]] = field(default_factory=dict)  # by whom Telegram tells nobody
    dropped_entities: int = 0
    asks_for_reply: bool = False  # sent with ForceReply

    @property
    def from_bot(self) -> bool:
        return self.sender is None

    @property
    def edits(self) -> int:
        return max(len(self.versions) - 1, 0)

    @property
    def history(self) -> list[str]:
        return [version.text for version in self.versions]

    @property
    def keys(self) -> list[JSON]:
        rows: list[list[JSON]] = (self.markup or {}).get("inline_keyboard", [])
        return [button for row in rows for button in row]

    @property
    def buttons(self) -> list[str]:
        return [button["text"] for button in self.keys]

    def changes_to(self, text: str, entities: list[Entity], markup: Markup | None, at: float) -> None:
        self.text, self.entities, self.markup = text, entities, markup
        self.versions.append(Version(text, entities, markup, at))

    def as_json(self, bot: JSON, *, with_reply: bool = True) -> JSON:
        found: JSON = {"message_id": self.id, "date": int(self.sent_at), "chat": self.chat.as_json()}
        found["from"] = self.sender.as_json() if self.sender else bot
        found |= self.service | ({"media_group_id": self.album} if self.album else {})
        found |= self.more
        if self.text:
            found["caption" if self.file else "text"] = self.text
        if self.entities:
            found["caption_entities" if self.file else "entities"] = self.entities
        if self.file:
            found[self.file_kind] = self._file_as_json(self.file)
        found |= self._thread_as_json()
        if self.reply_to and with_reply:
            found["reply_to_message"] = self.reply_to.as_json(bot, with_reply=False)
        elif self.thread_id is not None and with_reply:
            found["reply_to_message"] = self.chat.topic_as_json(self.thread_id)
        if self.markup:
            found["reply_markup"] = self.markup
        if self.edited_at is not None:
            found["edit_date"] = int(self.edited_at)
        return found

    def _thread_as_json(self) -> JSON:
        """A topic's messages reply to what began it, where they reply to nothing else; without topics, replies in a
        supergroup have the number of the first message of their chain for a thread."""
        if self.thread_id is not None:
            return {"message_thread_id": self.thread_id, "is_topic_message": True}
        if self.chat.kind != "supergroup" or not self.reply_to:
            return {}
        first = self.reply_to
        while first.reply_to:
            first = first.reply_to
        return {"message_thread_id": first.id}

    def _file_as_json(self, file: StoredFile) -> object:
        if self.file_kind == "photo":
            return [size.as_json() for size in self.sizes]
        if self.file_kind == "sticker":
            flat = {"type": "regular", "width": 512, "height": 512, "is_animated": False, "is_video": False}
            return file.as_json() | flat | {"emoji": "🍵"}
        extra: JSON = {"voice": {"duration": 1}, "video": {"duration": 1, "width": 640, "height": 480}}.get(
            self.file_kind, {"file_name": file.name}
        )
        return file.as_json() | extra | {"mime_type": file.mime_type}


@dataclass(eq=False)
class Draft:
    id: int
    text: str
    entities: list[Entity]
    can_stop: bool
    thread_id: int | None
    shown_until: float
    keep_on_stop: bool = False
    is_stopped: bool = False
    frames: list[str] = field(default_factory=list)  # those that were seen


@dataclass(eq=False)
class Press:
    """One press of a button and what the bot said to it."""

    id: str
    person: Person
    message: Message
    data: str
    at: float
    answered: bool = False
    answer: str = ""
    show_alert: bool = False
    url: str = ""


@dataclass(eq=False)
class Chat:
    id: int
    kind: str  # private, group, supergroup
    title: str
    members: list[Person]
    owner: Person
    clock: Clock
    bot_is_member: bool = True
    bot_is_admin: bool = False
    privacy_mode: bool = True
    is_forum: bool = False
    topics: dict[int, str] = field(default_factory=dict)
    log: list[Message] = field(default_factory=list)
    all_drafts: list[Draft] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)  # "typing" and such, in order

    @property
    def is_private(self) -> bool:
        return self.kind == "private"

    @property
    def messages(self) -> list[Message]:
        return [message for message in self.log if not message.deleted]

    @property
    def answers(self) -> list[Message]:
        """What the bot has written and not deleted."""
        return [message for message in self.messages if message.from_bot]

    @property
    def last_answer(self) -> Message | None:
        return self.answers[-1] if self.answers else None

    @property
    def drafts(self) -> list[Draft]:
        """Those on the screen now."""
        return [draft for draft in self.all_drafts if draft.shown_until > self.clock.now()]

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    def find(self, message_id: int) -> Message | None:
        return next((each for each in reversed(self.log) if each.id == message_id and not each.deleted), None)

    def topic_as_json(self, thread_id: int) -> JSON:
        """The message that began the topic."""
        created = {"name": self.topics[thread_id], "icon_color": 7322096}
        about = {"message_id": thread_id, "date": int(self.clock.now()), "chat": self.as_json()}
        thread = {"message_thread_id": thread_id, "is_topic_message": True, "forum_topic_created": created}
        return about | thread | {"from": self.owner.as_json()}

    def as_json(self) -> JSON:
        if self.is_private:
            return {"id": self.id, "type": "private", **self.owner.names()}
        found: JSON = {"id": self.id, "type": self.kind, "title": self.title}
        return found | ({"is_forum": True} if self.is_forum else {})
