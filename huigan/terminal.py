"""`huigan chat`: the same turns in a terminal, for machines without a Telegram token.

Keys and slash commands do the same, so that it also works through a pipe. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import random
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from huigan.texts import locale_of, told
from huigan.texts import text as words
from huigan.turns import feedback
from huigan.turns.answering import Phase, View
from huigan.turns.desk import Desk, Watched
from huigan.turns.history import begins_to_forget
from huigan.turns.opening import Place, Refusal, Speaker, answer_again, meet, open_turn, start_over
from storage import deliveries, users
from storage.db import Database
from storage.records import Answer, ChatKind, Comparison, Ended, Pick, Rating, Reason, Thumb

CHANNEL = "terminal"
KEYS = {"f2": "/up", "f3": "/down", "f4": "/fix", "f5": "/again", "f6": "/new"}
FRAME_SECONDS = 0.05

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
        self.write(told(self.locale, "refusal", refusal.code) + "\n")


async def run(db: Database, desk: Desk, locale: str, *, who: str | None = None) -> None:
    """Chat until the input ends. Whoever has the terminal has consented by using it: it is their own machine."""
    name = who or getpass.getuser()
    reader = _typed(locale) if sys.stdin.isatty() else _piped
    place, speaker = Place(CHANNEL, name, ChatKind.TERMINAL), Speaker(name, name, locale)
    user, _ = await db.awrite(meet, place, speaker, now())
    chat = Chat(db, desk, locale, reader, _write, user.id, place, speaker)
    await db.awrite(users.consent, user.id, now())
    interrupted, waiting = await desk.recover()
    mine = [turn for turn in waiting if turn.user_id == user.id]
    chat.say("chat.welcome")
    for turn in mine:
        await _follow(chat, desk.hand_in(turn))
    for turn, _answer in interrupted:
        if turn.user_id == user.id:
            chat.say("error.interrupted")
            chat.last_message_id = turn.message_id
    await _converse(chat)


async def _converse(chat: Chat) -> None:
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (line := (await chat.read_line("› ")).strip()) not in {"/quit", "/exit"}:
            if line.startswith("/"):
                await _command(chat, line)
            elif line:
                await _ask(chat, line)


async def _ask(chat: Chat, text: str) -> None:
    source = f"{CHANNEL}:{uuid.uuid4().hex}"
    turn = await chat.db.awrite(open_turn, chat.place, chat.speaker, text, source, now())
    if isinstance(turn, Refusal):
        chat.tell(turn)
    elif turn is not None:
        chat.last_message_id = turn.message_id
        await _follow(chat, chat.desk.hand_in(turn))


async def _follow(chat: Chat, watched: Watched) -> None:
    """Print an answer as it comes; Ctrl-C stops it, and Ollama with it."""
    shown = 0
    with _interruptible(watched):
        async for view in watched.watch():
            if view.phase is Phase.ANSWERING or view.text:
                chat.write(view.text[shown:])
                shown = max(shown, len(view.text))
            await asyncio.sleep(FRAME_SECONDS if view.phase is Phase.ANSWERING else 0)
    await _close(chat, watched.view)


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
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, watched.stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


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
        text = await chat.read_line("✏️ ")
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
    await _follow(chat, chat.desk.hand_in(turn))
    pair = await chat.db.aread(feedback.offer, chat.last_message_id, random.Random())
    if pair is not None:
        await _compare(chat, *pair)


async def _compare(chat: Chat, left: Answer, right: Answer) -> None:
    chat.say("comparison.ask")
    chat.write(f"[1] {left.text}\n[2] {right.text}\n")
    picks = {"1": Pick.LEFT, "2": Pick.RIGHT, "=": Pick.TIE}
    pick = picks.get((await chat.read_line("1 / 2 / = ")).strip())
    if pick is None:
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
    """A line editor with the keys of KEYS; Ctrl-C on an empty line ends the chat."""
    bindings = KeyBindings()

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


async def _piped(_prompt: str) -> str:
    line: str = await asyncio.to_thread(sys.stdin.readline)
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def locale_of_terminal() -> str:
    """Of the environment; English where it names no language, as the commands' own help is."""
    spoken = os.environ.get("LC_ALL") or os.environ.get("LANG") or "C"
    return "en" if spoken.partition(".")[0] in {"C", "POSIX"} else locale_of(spoken)
