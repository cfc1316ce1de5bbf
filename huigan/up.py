"""`huigan up`: starts what is configured, starts again what dies, and stops all in order. Knows no room's inside.

Every part is a process of its own, on a leash: none outlives this one, however it ends.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urlsplit

from rich.console import Console

from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import NotRunning, ServingError
from huigan.settings import Settings
from storage import deployments
from storage.db import Database
from trainer import leash

logger = logging.getLogger(__name__)
say = Console(stderr=True, highlight=False, markup=False)

ENGINE_READY_SECONDS = 30.0
GRACE_SECONDS = 40.0  # longer than any part takes for its own
STEADY_SECONDS = 60.0  # a part that lived so long starts its pauses anew
PAUSES_SECONDS = (1.0, 5.0, 15.0, 60.0)
MISCONFIGURED = 2  # how a part ends that was given wrong settings, and says which
HOPELESS_DEATHS = 3  # of that kind in a row: no pause mends settings


@dataclass
class Part:
    """One process: started, watched, started again after a pause that grows."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = None  # None: this process's own
    log: IO[bytes] | None = None  # None: this process's own output
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    misconfigured: int = 0  # of the last deaths in a row
    resume_at: float = field(default=0.0)

    def start(self) -> None:
        # A group of its own: Ctrl-C reaches this process alone, which then stops the parts in order.
        on_leash = [sys.executable, "-I", leash.__file__, str(os.getpid()), *self.command]
        self.process = subprocess.Popen(
            on_leash, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.started = time.monotonic()
        say.print(f"● {self.name}")

    def tend(self) -> None:
        """Start it again if it died."""
        if self.process is not None and self.process.poll() is not None:
            steady = time.monotonic() - self.started > STEADY_SECONDS
            self.deaths = 1 if steady else self.deaths + 1
            for_settings = self.process.returncode == MISCONFIGURED
            self.misconfigured = (0 if steady else self.misconfigured) + 1 if for_settings else 0
            pause = PAUSES_SECONDS[min(self.deaths, len(PAUSES_SECONDS)) - 1]
            if not self.is_hopeless:
                logger.error("%s ended with %d; started again in %.0f s", self.name, self.process.returncode, pause)
            self.process, self.resume_at = None, time.monotonic() + pause
        if self.process is None and not self.is_hopeless and time.monotonic() >= self.resume_at:
            self.start()

    @property
    def is_hopeless(self) -> bool:
        """Whether it ended again and again, each time at once and for its settings."""
        return self.misconfigured >= HOPELESS_DEATHS

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.error("%s did not stop in %.0f s and is killed", self.name, GRACE_SECONDS)
            self.process.kill()
            self.process.wait()
        say.print(f"○ {self.name}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


def run_all(chosen: Settings, db: Database) -> int:
    """Until Ctrl-C or SIGTERM; a second one waits for no part. Returns the exit code: 1 where nothing could be served
    from the start, 2 where a part's settings are wrong."""
    stop = threading.Event()
    running: list[Part] = []

    def told_to_stop(*_: object) -> None:
        if stop.is_set():
            for part in running:
                part.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told_to_stop)
    try:
        if not _serving(chosen, running, stop):
            return 0 if stop.is_set() else 1
        _advise(chosen, db)
        for part in parts(chosen):
            running.append(part)
            part.start()
        while not stop.wait(1.0):
            for part in running:
                part.tend()
                if part.is_hopeless:
                    say.print(f"The {part.name} cannot run with these settings: the lines above say why. Correct .env.")
                    return MISCONFIGURED
    finally:
        for part in reversed(running):  # the bot first, what it asks last
            part.stop()
    return 0


def parts(chosen: Settings) -> list[Part]:
    """What is configured, in the order of starting; stopped in the opposite one."""
    names = ["trainer"] if importlib.util.find_spec("trl") else []
    names.append("schedules")
    if chosen.telegram_bot_token is not None:
        names.append("bot")
    return [Part(name, [sys.executable, "-m", "huigan", name]) for name in names]


def _serving(chosen: Settings, running: list[Part], stop: threading.Event) -> bool:
    """An Ollama that answers, else an engine of ours at the same address."""
    client = Ollama(chosen.ollama_host, timeout_seconds=10)
    try:
        say.print(f"● Ollama {library.version(client)} at {chosen.ollama_host}")
        return True
    except NotRunning:
        pass
    except ServingError as error:
        say.print(f"What answers at {chosen.ollama_host} is no Ollama ({error}). Correct OLLAMA_HOST.")
        return False
    address = loopback_address(chosen.ollama_host)
    if address is None:
        say.print(f"No Ollama answers at {chosen.ollama_host}. Start it there, or correct OLLAMA_HOST.")
        return False
    if importlib.util.find_spec("xllamacpp") is None:
        say.print("No Ollama is running. Start it, or install the engine: pip install 'huigan[engine]'")
        return False
    host, port = address
    engine = Part("engine", [sys.executable, "-m", "huigan", "engine", "--host", host, "--port", str(port)])
    running.append(engine)
    engine.start()
    return _answers(client, engine, stop)


def _answers(client: Ollama, engine: Part, stop: threading.Event) -> bool:
    until = time.monotonic() + ENGINE_READY_SECONDS
    while not stop.is_set():
        if engine.process is not None and engine.process.poll() is not None:
            say.print(f"The engine ended with {engine.process.returncode}: the lines above say why.")
            return False
        try:
            library.version(client)
        except ServingError as error:
            if time.monotonic() > until:
                say.print(
                    f"The engine does not answer after {ENGINE_READY_SECONDS:.0f} s ({error}). Start Ollama instead."
                )
                return False
            stop.wait(0.2)
        else:
            return True
    return False


def loopback_address(host: str) -> tuple[str, int] | None:
    """Where an engine of ours may listen in Ollama's place; None where that is another machine, or more than a server:
    one behind TLS or under a path. Ports are those that Ollama's client would ask."""
    parts = urlsplit(host if "://" in host else f"//{host}")
    name = parts.hostname or "127.0.0.1"
    if name not in {"127.0.0.1", "localhost", "::1"} or parts.scheme not in {"", "http"} or parts.path.strip("/"):
        return None
    return name, parts.port or (80 if parts.scheme else 11434)


def _advise(chosen: Settings, db: Database) -> None:
    """What is not configured, and how it would be."""
    if db.read(deployments.live) is None:
        say.print("Nothing is served yet: huigan base add TAG --weights NAME")
    if chosen.telegram_bot_token is None:
        say.print("No TELEGRAM_BOT_TOKEN: no bot. Chat with: huigan chat")
    if importlib.util.find_spec("trl") is None:
        say.print("No trainer here: pip install 'huigan[train]', or run it on the GPU machine")
