"""`huigan chat`, spoken to through a pipe and at a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from huigan import terminal
from huigan.serving.client import AsyncOllama
from huigan.turns.desk import Desk
from huigan.turns.opening import Place, Speaker, open_turn
from storage import comparisons, ratings, turns
from storage.db import Database
from storage.records import ChatKind, Ended, Thumb, Turn
from tests.fakes.ollama import FakeOllama
from tests.huigan.turns.conftest import AT, deploy


async def test_that_the_oldest_messages_are_left_out_is_said_once_until_a_new_conversation(
    sqlite_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(sqlite_db, "base:v1", num_ctx=400, num_predict=100)
    long = "long " * 80
    (tmp_path / "said").write_text(f"{long}1\n{long}2\n{long}3\n/new\n{long}4\n")
    monkeypatch.setattr(sys, "stdin", (tmp_path / "said").open())
    with FakeOllama().running() as fake:
        fake.add("base:v1", parameters={"num_ctx": 2000})
        for number in range(4):
            fake.reply(f"answer {number}")
        async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
            await terminal.run(sqlite_db, desk, "en", who="ann")
    said = capsys.readouterr().out
    assert said.count("/new starts afresh") == 1
    assert said.index("answer 1") < said.index("/new starts afresh") < said.index("answer 2")


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("base:v1")
        yield running


class Pipe:
    """`huigan chat` with its input from a file."""

    def __init__(self, db: Database, fake: FakeOllama, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.db, self.fake, self.file, self.monkeypatch = db, fake, folder / "said", monkeypatch
        deploy(db, "base:v1")

    async def say(self, said: str | bytes, lost_seconds: float = 15.0) -> None:
        self.file.write_bytes(said if isinstance(said, bytes) else said.encode())
        self.monkeypatch.setattr(sys, "stdin", self.file.open())
        async with Desk(self.db, AsyncOllama(self.fake.host), lost_seconds=lost_seconds) as desk:
            await terminal.run(self.db, desk, "en", who="ann")

    @property
    def asked(self) -> list[str]:
        return [each.messages[-1]["content"] for each in self.fake.of("/api/chat")]


@pytest.fixture
def pipe(sqlite_db: Database, fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipe:
    return Pipe(sqlite_db, fake, tmp_path, monkeypatch)


async def test_a_command_in_place_of_the_right_answer_is_no_correction(pipe: Pipe) -> None:
    await pipe.say("hi\n/fix\n/up\n")
    [rating] = pipe.db.read(ratings.counting)
    assert (rating.thumb, rating.correction) == (Thumb.UP, None)


async def test_a_message_in_place_of_a_choice_is_asked(pipe: Pipe) -> None:
    pipe.fake.reply("one")
    pipe.fake.reply("two")
    await pipe.say("hi\n/again\nand what else?\n")
    assert pipe.asked == ["hi", "hi", "and what else?"]
    assert pipe.db.read(comparisons.counting) == []


async def test_another_answer_that_fails_is_compared_with_nothing(
    pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe.fake.reply("one")
    pipe.fake.reply("two")
    pipe.fake.reply("three", dies_after=0)
    await pipe.say("hi\n/again\n1\n/again\n")
    said = capsys.readouterr().out
    assert (said.count("Which is better?"), said.count("The answer broke off.")) == (1, 1)


async def test_bytes_that_are_no_text_end_no_chat(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    await pipe.say(b"\xff\xfe\nhi\n")
    assert "You said: hi" in capsys.readouterr().out


async def test_a_turn_that_a_killed_process_left_open_holds_up_nothing_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "RECOVER_SECONDS", 0.05)
    place, speaker = Place("terminal", "ann", ChatKind.TERMINAL), Speaker("ann")
    left = pipe.db.write(open_turn, place, speaker, "left", "terminal:left", AT)
    assert isinstance(left, Turn)
    pipe.db.write(turns.open_next, left.id, "killed:1", datetime.now(UTC))
    async with asyncio.timeout(20):
        await pipe.say("hi\n", lost_seconds=0.5)
    assert pipe.db.read(turns.get, left.id).ended is Ended.INTERRUPTED
    assert pipe.asked == ["hi"]


def test_a_user_without_a_name_is_called_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run as some number."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert terminal._user_name() == "uid 54321"


# --- as a process


@pytest.fixture
def home(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose database this is."""
    deploy(sqlite_db, "base:v1")
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HUIGAN_HOME": str(tmp_path),
        "OLLAMA_HOST": fake.host,
        "LANG": "en_GB.UTF-8",
        "TERM": "xterm",
        "USER": "ann",
    }


CHAT = [sys.executable, "-m", "huigan", "chat"]


def test_an_interrupt_ends_a_chat_that_waits_for_a_line_nobody_writes(home: dict[str, str]) -> None:
    # Where the suite runs as a job in the background, its children inherit that interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            CHAT, env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert b"Huigan" in process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=20)
    finally:
        process.kill()
        process.communicate()


def test_a_closed_input_ends_the_chat(home: dict[str, str]) -> None:
    closed = subprocess.run(["sh", "-c", f"{' '.join(CHAT)} <&-"], env=home, capture_output=True, timeout=30)
    assert (closed.returncode, b"Traceback" in closed.stderr) == (0, False), closed.stderr


class Terminal:
    """A process at a terminal of its own: what is typed, and what is seen."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 200))
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.screen, self.seen = ours, ""

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def sees(self, wanted: str) -> None:
        """Wait for it, after what was waited for before."""
        until = time.monotonic() + 30
        while wanted not in self.seen:
            assert time.monotonic() < until, f"{wanted!r} is not in {self.seen!r}"
            if select.select([self.screen], [], [], 0.1)[0]:
                self.seen += os.read(self.screen, 65536).decode(errors="replace")
                if "\x1b[6n" in self.seen:  # where is the cursor?
                    self.seen = self.seen.replace("\x1b[6n", "")
                    self.type("\x1b[1;1R")
        self.seen = self.seen.partition(wanted)[2]


@pytest.fixture
def at_terminal(home: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal(CHAT, home)
    opened.sees("leaves")  # the end of the toolbar
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.screen)


CTRL_C, CTRL_D, F2, F4 = "\x03", "\x04", "\x1bOQ", "\x1bOS"


def test_ctrl_c_stops_an_answer_empties_a_line_takes_a_question_back_and_ends_the_chat_last(
    at_terminal: Terminal, fake: FakeOllama, sqlite_db: Database
) -> None:
    fake.reply("one two three", stalls_after=1)
    at_terminal.type("count\r")
    at_terminal.sees("one")
    at_terminal.type(CTRL_C)
    at_terminal.sees("(stopped)")
    at_terminal.sees("leaves")
    at_terminal.type("never mind")
    at_terminal.sees("mind")
    at_terminal.type(CTRL_C)
    time.sleep(0.3)
    at_terminal.type(F4)
    at_terminal.sees("Write the answer")
    at_terminal.sees("leaves")
    at_terminal.type(CTRL_C)
    at_terminal.sees("leaves")
    at_terminal.type("hello\r")
    at_terminal.sees("You said: hello")
    at_terminal.sees("leaves")
    at_terminal.type(CTRL_C)
    assert at_terminal.process.wait(timeout=20) == 0
    assert sqlite_db.read(ratings.counting) == []


def test_a_key_pressed_while_the_right_answer_is_asked_for_is_no_answer(
    at_terminal: Terminal, sqlite_db: Database
) -> None:
    at_terminal.type("hello\r")
    at_terminal.sees("You said: hello")
    at_terminal.sees("leaves")
    at_terminal.type(F4)
    at_terminal.sees("Write the answer")
    at_terminal.sees("leaves")
    at_terminal.type(F2)
    at_terminal.sees("leaves")
    at_terminal.type(CTRL_D)
    assert at_terminal.process.wait(timeout=20) == 0
    [rating] = sqlite_db.read(ratings.counting)
    assert (rating.thumb, rating.correction) == (Thumb.UP, None)
