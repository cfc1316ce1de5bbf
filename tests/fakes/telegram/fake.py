"""A strict fake of the Telegram Bot API for tests: a server for the bot, and people for the test to write with.

    fake = FakeTelegram()
    with fake.running():
        alice = fake.user("Alice")
        chat = fake.private(alice)
        alice.says(chat, "你好")
        answer = fake.wait_for(lambda: chat.last_answer)
        alice.presses(answer, "👍")

It refuses what Telegram refuses, in Telegram's words. Unknown parameters are accepted and recorded, as on Telegram.
What it does not know: channels, inline mode, payments, business chats, albums sent by a bot, and that Telegram finds
links and commands in a bot's own text by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from . import pictures
from .calls import Call
from .clock import Clock
from .faults import ANY_METHOD, Fault
from .floods import FloodControl, Limits
from .people import Person
from .updates import UpdateQueue
from .webhook import Webhook
from .wire import Wire
from .world import JSON, Chat, Message, PhotoSize, Press, StoredFile

TOKEN = "123456789:fake-token-for-tests-0123456789abcde"
T = TypeVar("T")


class FakeTelegram:
    def __init__(
        self,
        token: str = TOKEN,
        *,
        username: str = "huigan_bot",
        clock: Clock | None = None,
        limits: Limits | None = Limits(),  # noqa: B008 - a frozen value
        is_local_server: bool = True,
        local_files: Path | None = None,
        knows_drafts: bool = True,
        knows_stop: bool = True,
    ) -> None:
        """`limits=None` turns flood control off. A local server takes http webhooks on any port, serves any file; run
        with --local it keeps files in a folder, `local_files`, tells where they lie there, and serves none by HTTP.
        An old one knows no drafts (404), or no Stop beside them (before Bot API 10.3: can_stop is ignored)."""
        self.token = token
        self.bot: JSON = {"id": int(token.partition(":")[0]), "is_bot": True, "first_name": "Huigan"}
        self.bot["username"] = username
        self.clock = clock or Clock()
        self.floods = FloodControl(self.clock, limits)
        self.is_local_server, self.local_files = is_local_server, local_files
        self.knows_drafts, self.knows_stop = knows_drafts, knows_stop
        self.is_stopping = False
        self.updates = UpdateQueue()
        self.webhook = Webhook(self)
        self.people: dict[int, Person] = {}
        self.chats: dict[int, Chat] = {}
        self.files: dict[str, StoredFile] = {}
        self.photos: dict[str, list[PhotoSize]] = {}  # by the id of any of their sizes
        self.presses: list[Press] = []
        self.calls: list[Call] = []
        self.crashes: list[Exception] = []  # errors of the fake's own
        self.commands: dict[tuple[str, int, str], list[JSON]] = {}
        self.lock = threading.RLock()
        self._condition = threading.Condition(self.lock)
        self._faults: list[Fault] = []
        self._numbers = itertools.count(1)
        self._private_message_ids = itertools.count(1)
        self._group_message_ids: dict[int, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        self._wire = Wire(self)
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._stop: asyncio.Event | None = None

    # The server

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/bot"

    @property
    def base_file_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/file/bot"

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeTelegram]:
        """Serve in a thread of this process. May be entered again: the port stays the same."""
        listening = socket.create_server(("127.0.0.1", self._port))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer, by Nagle's rule
        self._port, self.is_stopping = listening.getsockname()[1], False
        started = threading.Event()
        thread = threading.Thread(target=self._serve, args=(listening, started), name="fake-telegram", daemon=True)
        thread.start()
        try:
            assert started.wait(10), "the server did not start"
            yield self
        finally:
            self.is_stopping = True
            self.wake()
            thread.join(timeout=10)
            listening.close()
        if self.crashes:
            raise AssertionError("the fake itself is broken") from self.crashes[0]

    def _serve(self, listening: socket.socket, started: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._woken, self._stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
            try:
                await self._wire.serve(listening, started, self._stop)
            finally:
                self._loop = self._woken = self._stop = None

        asyncio.run(main())

    # People and places

    def user(self, first_name: str, *, language_code: str = "zh-hans", username: str = "") -> Person:
        number = next(self._numbers)
        # Beyond 32 bits, as real ids are by now.
        person = Person(self, 5_000_000_000 + number, first_name, language_code, username)
        self.people[person.id] = person
        return person

    def private(self, person: Person, *, started: bool = True) -> Chat:
        """The chat of this person with the bot; before /start the bot may not write there."""
        if person.id not in self.chats:
            self.chats[person.id] = Chat(person.id, "private", person.first_name, [person], person, self.clock, started)
        return self.chats[person.id]

    def group(
        self,
        title: str,
        *,
        members: Sequence[Person],
        bot_is_admin: bool = False,
        privacy_mode: bool = True,
        forum: bool = False,
    ) -> Chat:
        """A supergroup whose owner is the first member."""
        chat_id = -1_000_000_000_000 - next(self._numbers)
        chat = Chat(chat_id, "supergroup", title, list(members), members[0], self.clock)
        chat.bot_is_admin, chat.privacy_mode, chat.is_forum = bot_is_admin, privacy_mode, forum
        self.chats[chat_id] = chat
        return chat

    def topic(self, chat: Chat, name: str) -> int:
        """A new forum topic: its message_thread_id."""
        assert chat.is_forum, f"{chat.title} is no forum"
        thread = self.next_message_id(chat)
        chat.topics[thread] = name
        return thread

    # What happens

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, then wake everyone who waits."""
        with self._condition:
            yield
            self._condition.notify_all()
        self.wake()

    def wake(self) -> None:
        loop, woken, stop = self._loop, self._woken, self._stop
        if loop is None or woken is None or stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has just closed: nobody waits on it any more
            loop.call_soon_threadsafe(woken.set)
            if self.is_stopping:
                loop.call_soon_threadsafe(stop.set)

    async def changed(self, timeout_seconds: float) -> None:
        """On the server's loop: until something happens, or the time is over."""
        assert self._woken is not None
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._woken.wait()

    def record(self, call: Call) -> None:
        with self.changing():
            self.calls.append(call)

    def bot_sees(self, message: Message) -> bool:
        """Privacy mode: without admin rights a bot in a group gets commands, mentions, replies to itself, and what
        is told of the group."""
        chat = message.chat
        if chat.is_private:
            chat.bot_is_member = True
            return not chat.owner.has_blocked_bot
        if not chat.bot_is_member:
            return False
        if chat.bot_is_admin or not chat.privacy_mode or message.service:
            return True
        return bool(message.reply_to and message.reply_to.from_bot) or self._is_addressed(message)

    def _is_addressed(self, message: Message) -> bool:
        name = f"@{self.bot['username']}".lower()
        units = message.text.encode("utf-16-le")
        for entity in message.entities:
            begin, end = entity["offset"] * 2, (entity["offset"] + entity["length"]) * 2
            covered = units[begin:end].decode("utf-16-le").lower()
            if entity["type"] == "mention" and covered == name:
                return True
            if entity["type"] == "text_mention" and entity["user"]["id"] == self.bot["id"]:
                return True
            if entity["type"] == "bot_command" and begin == 0 and covered.partition("@")[2] in ("", name[1:]):
                return True
        return False

    def deliver_again(self, update: JSON | None = None) -> None:
        """The same update once more, by default the last delivered: a duplicate, as networks make them."""
        with self.changing():
            self.updates.repeat(update or self.updates.delivered[-1])

    def bot_membership(self, status: str) -> JSON:
        if status == "kicked":
            return {"status": "kicked", "user": self.bot, "until_date": 0}
        if status != "administrator":
            return {"status": status, "user": self.bot}
        rights = (
            "can_be_edited is_anonymous can_manage_chat can_delete_messages can_manage_video_chats can_change_info "
            "can_restrict_members can_promote_members can_invite_users can_post_stories can_edit_stories "
            "can_delete_stories"
        )
        return {"status": status, "user": self.bot, **dict.fromkeys(rights.split(), False)}

    def store_file(self, name: str, content: bytes, mime_type: str) -> StoredFile:
        number = next(self._numbers)
        folder = "photos" if mime_type.startswith("image/") else "documents"
        path = f"{folder}/file_{number}.{name.rpartition('.')[2]}"
        if self.local_files is not None:
            path = str(self.local_files / path)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
        file = StoredFile(f"file-{number}", path, name, mime_type, content)
        self.files[file.id] = file
        return file

    def store_photo(self, content: bytes) -> list[PhotoSize]:
        """The sizes that Telegram makes of a picture, the smallest first; the largest is what was sent."""
        width, height = pictures.size(content) or (1280, 960)
        longer = max(width, height)
        smaller = [pictures.scaled(width, height, side) for side in pictures.SMALLER_SIDES if side < longer]
        made = [(pictures.png(*each), *each) for each in smaller]
        made.append((content, *pictures.scaled(width, height, min(longer, pictures.LARGEST_SIDE))))
        sizes = [PhotoSize(self.store_file("photo.jpg", each, "image/jpeg"), w, h) for each, w, h in made]
        self.photos |= {size.file.id: sizes for size in sizes}
        return sizes

    def next_album(self) -> str:
        return str(13_000_000_000_000_000 + next(self._numbers))

    def next_message_id(self, chat: Chat) -> int:
        """Counted over all private chats together, but in each supergroup from 1: ids alone identify nothing."""
        return next(self._private_message_ids if chat.is_private else self._group_message_ids[chat.id])

    def next_query_id(self) -> str:
        return str(4_000_000_000_000_000_000 + next(self._numbers))

    # Faults

    def inject(
        self, method: str, *, status: int, retry_after: int = 1, times: float = 1, description: str = "",
        after_effect: bool = False,
    ) -> Fault:  # fmt: skip
        """Answer the next calls with this error; 5xx comes as a proxy's HTML."""
        return self._order(
            Fault(method, times, status, description, retry_after_seconds=retry_after, after_effect=after_effect)
        )

    def drop(self, method: str = ANY_METHOD, *, times: float = 1, after_effect: bool = False) -> Fault:
        """Close the connection without an answer, before or after the call took effect."""
        return self._order(Fault(method, times, drops=True, after_effect=after_effect))

    def delay(self, method: str, *, seconds: float, times: float = 1, after_effect: bool = False) -> Fault:
        return self._order(Fault(method, times, delay_seconds=seconds, after_effect=after_effect))

    def _order(self, fault: Fault) -> Fault:
        with self.lock:
            self._faults.append(fault)
        return fault

    def fault_for(self, method: str) -> Fault | None:
        with self.lock:
            fault = next((fault for fault in self._faults if fault.fits(method)), None)
            if fault:
                fault.strike()
            return fault

    # What a test sees

    @property
    def refusals(self) -> list[Call]:
        """Calls that Telegram would have refused and no test ordered: a good bot makes none."""
        return [call for call in self.calls if call.is_refusal]

    def calls_to(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method.lower() == method.lower()]

    def wait_for(self, predicate: Callable[[], T | None], timeout: float = 10.0, *, about: str = "") -> T:
        """The predicate's first true value; on time-out an AssertionError with all that happened."""
        ends_at = time.monotonic() + timeout
        with self._condition:
            while not (found := predicate()):
                if time.monotonic() > ends_at:
                    raise AssertionError(self._timed_out(timeout, about))
                self._condition.wait(0.05)  # time itself may make it true
        return found

    async def until(self, predicate: Callable[[], T | None], timeout: float = 10.0, *, about: str = "") -> T:
        """`wait_for` for async tests."""
        ends_at = time.monotonic() + timeout
        while True:
            with self.lock:
                if found := predicate():
                    return found
            if time.monotonic() > ends_at:
                raise AssertionError(self._timed_out(timeout, about))
            await asyncio.sleep(0.01)

    def _timed_out(self, timeout: float, about: str) -> str:
        return f"not within {timeout} s{': ' + about if about else ''}\n{self.transcript()}"

    def transcript(self) -> str:
        """Everything a person needs to see why a test failed."""
        with self.lock:
            lines = [line for chat in self.chats.values() for line in self._chat_lines(chat)]
            pending = Counter(key for update in self.updates.pending for key in update if key != "update_id")
            lines.append(f"updates not confirmed: {dict(pending)}")
            lines += [_call_line(call) for call in self.calls[-25:]]
        return "\n".join(lines)

    def _chat_lines(self, chat: Chat) -> Iterator[str]:
        yield f"{chat.kind} {chat.title!r} ({chat.id})"
        for message in chat.log:
            marks = f" [{' | '.join(message.buttons)}]" if message.buttons else ""
            marks += f" (edited {message.edits}x)" if message.edits else ""
            marks += " (deleted)" if message.deleted else ""
            yield f"  {message.id} {message.sender or 'BOT'}: {message.text!r}{marks}"
        for draft in chat.drafts:
            yield f"  draft {draft.id}: {draft.text!r}"


def _call_line(call: Call) -> str:
    params = ", ".join(f"{name}={value!r}" for name, value in call.params.items())
    return f"  {call.method} {params:.200} -> {call.status} {call.description}"
