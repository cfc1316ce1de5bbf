"""`huigan chat`: the same turns in a terminal, for machines without a Telegram token.

Keys and slash commands do the same, so that it also works through a pipe. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import random
import signal
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from huigan.texts import locale_of, told
from huigan.texts import text as words
from huigan.texts.printable import printable
from huigan.turns import feedback
from huigan.turns.answering import Phase, View
from huigan.turns.desk import Desk, Watched
from huigan.turns.history import begins_to_forget
from huigan.turns.opening import Place, Refusal, Speaker, answer_again, meet, open_turn, start_over
from storage import deliveries, users
from storage.db import Database
from storage.records import Answer, ChatKind, Comparison, Ended, OfferedFor, Pick, Rating, Reason, Thumb, Turn

logger = logging.getLogger(__name__)

CHANNEL = "terminal"
KEYS = {"f2": "/up", "f3": "/down", "f4": "/fix", "f5": "/again", "f6": "/new"}
FRAME_SECONDS = 0.05
RECOVER_SECONDS = 3.0
MAX_NAME = 64  # characters, the database's limit

ReadLine = Callable[[str], Awaitable[str]]  # raises EOFError at the end


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Chat:
    """One person at one terminal."""

    db: Database
    desk: Desk
    locale: str
    read_line: ReadLine
    write: Callable[[str], None]
    user_id: int
    place: Place
    speaker: Speaker
    last: Answer | None = None
    last_message_id: int | None = None

    def say(self, code: str, **params: object) -> None:
        self.write(words(self.locale, code, **params) + "\n")

    def tell(self, refusal: Refusal) -> None:
        self.write(told(self.locale, "refusal", refusal.code, refusal.params) + "\n")


async def run(db: Database, desk: Desk, locale: str, *, who: str | None = None) -> None:
    """Chat until the input ends. Whoever has the terminal has consented by using it: it is their own machine."""
    name = (who or _user_name())[:MAX_NAME]
    reader = _typed(locale) if sys.stdin is not None and sys.stdin.isatty() else _piped()
    place, speaker = Place(CHANNEL, name, ChatKind.TERMINAL), Speaker(name, name, locale)
    user, _ = await db.awrite(meet, place, speaker, now())
    chat = Chat(db, desk, locale, reader, _write, user.id, place, speaker)
    await db.awrite(users.consent, user.id, now())
    chat.say("chat.welcome")
    waiting = await _recover(chat)
    recovering = asyncio.create_task(_keep_recovering(chat))
    try:
        for turn in waiting:
            await _follow(chat, desk.hand_in(turn))
        await _converse(chat)
    finally:
        recovering.cancel()


async def _recover(chat: Chat) -> list[Turn]:
    """Tell of answers that were cut off. Returns the turns that still wait for theirs."""
    interrupted, waiting = await chat.desk.recover()
    for turn, _answer in interrupted:
        if turn.user_id == chat.user_id:
            chat.say("error.interrupted")
            chat.last_message_id = turn.message_id
    return [turn for turn in waiting if turn.user_id == chat.user_id]


async def _keep_recovering(chat: Chat) -> None:
    """A turn that a killed process left open is seen to be dead after a while, and holds up the conversation until."""
    while True:
        await asyncio.sleep(RECOVER_SECONDS)
        try:
            await _recover(chat)
        except Exception:
            # The edge of one round: the database may be back at the next.
            logger.exception("looking for turns that were cut off failed")


async def _converse(chat: Chat) -> None:
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            await _hear(chat, await chat.read_line("› "))


async def _hear(chat: Chat, line: str) -> None:
    """Raises EOFError where it ends the chat."""
    line = line.strip()
    if line in {"/quit", "/exit"}:
        raise EOFError
    if line.startswith("/"):
        await _command(chat, line)
    elif line:
        await _ask(chat, line)


async def _asked(chat: Chat, prompt: str) -> str:
    """What is said to a question of ours; Ctrl-C leaves it open."""
    try:
        return (await chat.read_line(prompt)).strip()
    except KeyboardInterrupt:
        return ""


async def _ask(chat: Chat, text: str) -> None:
    source = f"{CHANNEL}:{uuid.uuid4().hex}"
    turn = await chat.db.awrite(open_turn, chat.place, chat.speaker, text, source, now())
    if isinstance(turn, Refusal):
        chat.tell(turn)
    elif turn is not None:
        chat.last_message_id = turn.message_id
        await _follow(chat, chat.desk.hand_in(turn))


async def _follow(chat: Chat, watched: Watched) -> View:
    """Print an answer as it comes; Ctrl-C stops it, and Ollama with it."""
    shown = 0
    with _interruptible(watched):
        async for view in watched.watch():
            if view.phase is Phase.ANSWERING or view.text:
                chat.write(view.text[shown:])
                shown = max(shown, len(view.text))
            await asyncio.sleep(FRAME_SECONDS if view.phase is Phase.ANSWERING else 0)
    await _close(chat, watched.view)
    return watched.view


async def _close(chat: Chat, view: View) -> None:
    chat.write("\n")
    if view.answer is not None:
        chat.last = view.answer
        await chat.db.awrite(
            deliveries.add, view.answer.id, CHANNEL, chat.place.chat, [f"answer:{view.answer.id}"], now()
        )
    if view.error is not None:
        chat.write(told(chat.locale, "error", view.error, view.params) + "\n")
    elif view.ended in {Ended.LENGTH, Ended.STOPPED}:
        chat.say(f"ended.{view.ended}")
    if view.answer is not None and await chat.db.aread(begins_to_forget, view.answer):
        chat.say("ended.forgot", dropped=view.answer.seen.dropped)


@contextlib.contextmanager
def _interruptible(watched: Watched) -> Iterator[None]:
    """While it is entered, Ctrl-C stops the turn instead of the program."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, watched.stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


async def _command(chat: Chat, line: str) -> None:
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        chat.say("chat.help")
    else:
        await command(chat, rest.strip())


async def _rate(chat: Chat, thumb: Thumb, reason: str = "") -> None:
    if chat.last is None:
        chat.say("chat.nothing_yet")
        return
    rated = await chat.db.awrite(feedback.rate, chat.last.id, chat.user_id, thumb, now())
    if isinstance(rated, Rating) and reason in set(Reason):
        rated = await chat.db.awrite(feedback.give_reason, chat.last.id, chat.user_id, Reason(reason), now())
    chat.tell(rated) if isinstance(rated, Refusal) else chat.say(f"rating.{rated.thumb}")


async def _fix(chat: Chat, text: str) -> None:
    if chat.last is None:
        chat.say("chat.nothing_yet")
        return
    if not text:
        chat.say("chat.fix_prompt")
        text = await _asked(chat, "✏️ ")
        if text.startswith("/"):  # a key, or a command: no correction
            await _hear(chat, text)
            return
    rated = await chat.db.awrite(feedback.correct, chat.last.id, chat.user_id, text, now())
    chat.tell(rated) if isinstance(rated, Refusal) else chat.say("correction.thanks")


async def _again(chat: Chat, _: str) -> None:
    """Another answer, and, once there are two that differ, which is the better."""
    if chat.last_message_id is None:
        chat.say("chat.nothing_yet")
        return
    turn = await chat.db.awrite(answer_again, chat.last_message_id, chat.user_id, now())
    if isinstance(turn, Refusal):
        chat.tell(turn)
        return
    view = await _follow(chat, chat.desk.hand_in(turn))
    why = OfferedFor.AGAIN
    pair = await chat.db.awrite(feedback.offer, turn.message_id, why, random.Random(), now()) if view.answer else None
    if pair is not None:
        await _compare(chat, *pair)


async def _compare(chat: Chat, left: Answer, right: Answer) -> None:
    chat.say("comparison.ask")
    chat.write(f"[1] {left.text}\n[2] {right.text}\n")
    picks = {"1": Pick.LEFT, "2": Pick.RIGHT, "=": Pick.TIE}
    said = await _asked(chat, "1 / 2 / = ")
    pick = picks.get(said)
    if pick is None:  # it was no answer to this
        await _hear(chat, said)
        return
    result = await chat.db.awrite(feedback.compare, left.id, right.id, chat.user_id, pick, now())
    if isinstance(result, Comparison):
        chat.last = left if pick is Pick.LEFT else right if pick is Pick.RIGHT else chat.last
        chat.say("comparison.thanks")
    else:
        chat.tell(result)


async def _new(chat: Chat, _: str) -> None:
    await chat.db.awrite(start_over, chat.place, chat.speaker, now())
    chat.last = chat.last_message_id = None
    chat.say("bot.new")


async def _why(chat: Chat, _: str) -> None:
    """Which release answered, and what it was given."""
    if chat.last is None:
        chat.say("chat.nothing_yet")
        return
    last = chat.last
    chat.say(
        "chat.why",
        tag=last.tag,
        release=last.release_id,
        lines=len(last.seen.row_ids),
        dropped=last.seen.dropped,
        prompt_tokens=last.prompt_tokens,
        answer_tokens=last.answer_tokens,
    )


COMMANDS: dict[str, Callable[[Chat, str], Awaitable[None]]] = {
    "/up": lambda chat, _: _rate(chat, Thumb.UP),
    "/down": lambda chat, reason: _rate(chat, Thumb.DOWN, reason),
    "/withdraw": lambda chat, _: _rate(chat, Thumb.WITHDRAWN),
    "/fix": _fix,
    "/again": _again,
    "/new": _new,
    "/why": _why,
}


def _typed(locale: str) -> ReadLine:
    """A line editor with the keys of KEYS; Ctrl-C empties the line, and on an empty one ends the chat."""
    bindings = KeyBindings()

    @bindings.add("c-c", filter=Condition(lambda: bool(get_app().current_buffer.text)))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    def bind(key: str, command: str) -> None:
        @bindings.add(key)
        def _(event: KeyPressEvent) -> None:
            event.app.exit(result=command)

    for key, command in KEYS.items():
        bind(key, command)
    session: PromptSession[str] = PromptSession(
        history=InMemoryHistory(), key_bindings=bindings, bottom_toolbar=HTML(words(locale, "chat.toolbar"))
    )

    async def read(prompt: str) -> str:
        with patch_stdout(raw=True):
            return str(await session.prompt_async(prompt))

    return read


def _piped() -> ReadLine:
    """Lines from a pipe or file. Its threads die with the program, which waits for the loop's own to end: they would
    wait for a line that nobody writes."""
    lines = None
    if sys.stdin is not None:  # it was closed
        lines = open(os.dup(sys.stdin.fileno()), encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123

    async def read(_prompt: str) -> str:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[str] = loop.create_future()

        def put(line: str) -> None:
            if not came.done():
                came.set_result(line)

        def wait() -> None:
            line = lines.readline() if lines is not None else ""
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(put, line)

        threading.Thread(target=wait, daemon=True).start()
        if not (line := await came):
            raise EOFError
        return line.rstrip("\n")

    return read


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have none
        return f"uid {os.getuid()}"


def _write(text: str) -> None:
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def locale_of_terminal() -> str:
    """Of the environment; English where it names no language, as the commands' own help is."""
    spoken = os.environ.get("LC_ALL") or os.environ.get("LANG") or "C"
    return "en" if spoken.partition(".")[0] in {"C", "POSIX"} else locale_of(spoken)
