"""A bot in a process of its own between a fake Telegram, a fake Ollama and a real database, for tests to walk with."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import text as sql

from bot import pace
from storage import artefacts, deployments, releases
from storage.db import Database, connect
from storage.records import Release
from tests.fakes.ollama import CHATML, FakeOllama
from tests.fakes.telegram import Chat, FakeTelegram, Message, Person, floods

REPOSITORY = Path(__file__).resolve().parents[2]
TAG = "huigan:base-1"
CONTEXT_TOKENS = 3500
MUCH_TOKENS = 40_000  # of a release that reads long texts
SECRET = "a-secret-of-the-webhook"
SPEED = 3  # Telegram's limits and our pace are both so much faster than real: what counts is one below the other


class Process(Protocol):
    """What is asked of a bot's process."""

    pid: int

    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def send_signal(self, number: int, /) -> None: ...
    def wait(self, timeout: float = ...) -> int: ...


class World:
    """Everything a flow needs; `alice` is in a private chat with the bot."""

    def __init__(self, db: Database, telegram: FakeTelegram, ollama: FakeOllama, folder: Path, speed: float) -> None:
        self.db, self.telegram, self.ollama, self.folder = db, telegram, ollama, folder
        self.log = folder / "bot.log"
        self.process: Process | None = None
        self.begun: Callable[[Path], Process] = self._begun
        self.settings: dict[str, Any] = {
            "token": telegram.token,
            "base_url": telegram.base_url,
            "base_file_url": telegram.base_file_url,
            "local_mode": False,
            "webhook": None,
            "database_url": str(db.engine.url),
            "ollama_host": ollama.host,
            "home": str(folder),
            "admins": [],
            # A killed process is given up and taken over soon: tests are to wait for neither.
            "intervals": {
                "recover_seconds": 0.3,
                "paste_seconds": 0.6,
                "lost_seconds": 3.0,
                "drain_seconds": 0.3,
                "cards_seconds": 0.3,
                "grace_seconds": 1.5,
            },
            "limits": _pace(speed),
            "drafts": False,
        }
        self._names = (f"Person {number}" for number in itertools.count(1))
        self.meet_alice()

    def meet_alice(self) -> World:
        """One whom nobody has met: for a test that shares its bot with others."""
        self.alice = self.telegram.user(next(self._names))
        self.chat = self.telegram.private(self.alice)
        return self

    # The process

    def start(self, **settings: Any) -> None:
        """Returns once the bot asks for updates, or has set its webhook."""
        self.settings |= settings
        calls = len(self.telegram.calls)
        self.process = self.spawn()
        self.wait(lambda: self._is_listening(calls), about="the bot starts", timeout=90)

    def spawn(self) -> Process:
        """A bot that nobody waits for, and whoever asked for it ends."""
        told = self.folder / "bot.json"
        told.write_text(json.dumps(self.settings), encoding="utf-8")
        return self.begun(told)

    def _begun(self, told: Path) -> Process:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.bot.entry", str(told)]
            return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

    def _is_listening(self, calls: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the bot has ended:\n{self.logged()[-3000:]}"
        told = [call.method for call in self.telegram.calls[calls:]]
        return "deleteWebhook" in told or "setWebhook" in told  # the first is what polling begins with

    def kill(self) -> None:
        """As the machine would: no word of farewell."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    # What is waited for and looked at

    def wait(self, predicate: Any, *, about: str = "", timeout: float = 15) -> Any:
        try:
            return self.telegram.wait_for(predicate, timeout=timeout, about=about)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- the bot's log\n{self.logged()[-4000:]}") from None

    def answer(self, chat: Chat | None = None, *, after: Message | None = None, button: str = "👍") -> Message:
        """The bot's newest message with that button, newer than `after`."""
        where = chat or self.chat

        def found() -> Message | None:
            newer = [each for each in where.answers if after is None or each.id > after.id]
            return next((each for each in reversed(newer) if button in each.buttons), None)

        message = self.wait(found, about=f"a message with {button}")
        assert isinstance(message, Message)
        return message

    def settle(self) -> None:
        """Until all is done, so that a kill meets only what its own test has begun."""
        rest = (("update", "handled_at"), ("showing", "finished_at"))
        self.wait(lambda: all(row[done] for table, done in rest for row in self.rows(table)), about="all is done")

    def says(self, text: str, *, chat: Chat | None = None, who: Person | None = None, **how: Any) -> Message:
        return (who or self.alice).says(chat or self.chat, text, **how)

    def said(self, words: str, chat: Chat | None = None) -> Message:
        """A message of the bot's that contains these words."""
        where = chat or self.chat
        message = self.wait(lambda: next((m for m in where.answers if words in m.text), None), about=words)
        assert isinstance(message, Message)
        return message

    def errors(self) -> list[str]:
        """What our own code logged as one."""
        return re.findall(
            r"^.* (?:ERROR|CRITICAL) (?:bot|huigan|storage|root|asyncio)\b.*$", self.logged(), re.MULTILINE
        )

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        with self.db.engine.connect() as connection:
            found = [dict(row._mapping) for row in connection.execute(sql(f'SELECT * FROM "{table}" ORDER BY 1'))]
        return [row for row in found if all(row[key] == value for key, value in where.items())]

    def me(self) -> int:
        """Alice's number, once the bot has met her."""
        return int(self.rows("user", external_id=str(self.alice.id))[0]["id"])

    def mine(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows of hers, or of turns of hers."""
        turns = {row["id"] for row in self.rows("turn") if row["user_id"] == self.me()}
        found = self.rows(table, **where)
        return [row for row in found if row.get("user_id") == self.me() or row.get("turn_id") in turns]

    def refused(self) -> list[str]:
        return [f"{call.method}: {call.description} {call.params}" for call in self.telegram.refusals]


def serve(
    db: Database, tag: str = TAG, weights: str | None = "/weights", context_tokens: int = CONTEXT_TOKENS
) -> Release:
    """A release that is live, as `huigan base add` leaves it."""
    at = datetime.now(UTC)

    def put(session: Any) -> Release:
        artefact = artefacts.add(
            session,
            run_id=None,
            path=None,
            sha256=None,
            quantisation="Q4_K_M",
            size_bytes=None,
            weights=weights,
            template=CHATML,
            system="你是回甘。",
            parameters={"num_ctx": context_tokens, "num_predict": 9000},
            scorecard=None,
            verdict=None,
            created_at=at,
        )
        release = releases.add(session, tag, artefact.id, at)
        deployments.deploy(session, release.id, "test", "test", at)
        return release

    return db.write(put)


def _floods(speed: float, overall: int = 1) -> floods.Limits:
    """What comes late comes closer together, by as much as time runs faster: so many more are a burst."""
    usual = floods.Limits()
    return replace(
        usual,
        chat_burst=usual.chat_burst + overall // 4,
        draft_burst=usual.draft_burst + overall // 4,
        chat_per_second=usual.chat_per_second * speed,
        draft_per_second=usual.draft_per_second * speed,
        overall_per_second=usual.overall_per_second * overall,
        group_per_minute=round(usual.group_per_minute * speed),
    )


def _pace(speed: float) -> dict[str, float]:
    usual = pace.TELEGRAMS
    faster = replace(
        usual,
        per_second=usual.per_second * speed,
        start_group_acts=round(usual.start_group_acts * speed),
        group_per_minute=round(usual.group_per_minute * speed),
        group_frames_per_minute=round(usual.group_frames_per_minute * speed),
        private_frame_seconds=usual.private_frame_seconds / speed,
        group_frame_seconds=usual.group_frame_seconds / speed,
        draft_frame_seconds=usual.draft_frame_seconds / speed,
        draft_seconds=2.0,
    )
    return asdict(faster)


@contextlib.contextmanager
def world(
    db: Database, folder: Path, speed: float = SPEED, *, overall: int = 1, context_tokens: int = CONTEXT_TOKENS
) -> Iterator[World]:
    """`overall`: how many times faster than real the limits over all chats are."""
    telegram, ollama = FakeTelegram(limits=_floods(speed, overall)), FakeOllama()
    with telegram.running(), ollama.running():
        serve(db, context_tokens=context_tokens)
        ollama.add(TAG, parameters={"num_ctx": context_tokens})
        made = World(db, telegram, ollama, folder, speed)
        made.settings["limits"]["overall_per_second"] *= overall
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.kill()


@contextlib.contextmanager
def shared(migrated: Path, folder: Path, **settings: Any) -> Iterator[World]:
    """One that several tests share, with a bot that runs."""
    db = connect(f"sqlite:///{shutil.copy(migrated, folder / 'huigan.db')}")
    try:
        with world(db, folder) as made:
            made.start(**settings)
            yield made
            assert made.telegram.token not in made.logged()
    finally:
        db.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def met(bot: World) -> Iterator[World]:
    """The shared bot, with an Alice nobody has met; nothing was refused or went wrong at the end."""
    yield bot.meet_alice()
    bot.settle()
    assert bot.refused() == []
    assert bot.errors() == []


@contextlib.contextmanager
def reading_much(migrated_sqlite: Path, folder: Path) -> Iterator[World]:
    """A shared bot whose release reads long texts."""
    with shared(migrated_sqlite, folder) as made:
        made.ollama.add("huigan:long", parameters={"num_ctx": MUCH_TOKENS})
        serve(made.db, "huigan:long", context_tokens=MUCH_TOKENS)
        yield made
