"""`huigan up`: what it would start, where an engine may stand in for Ollama, and parts that die or hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import ollama
import pytest

from huigan import up
from huigan.settings import Settings
from huigan.up import Part, loopback_address, parts
from storage.db import connect
from storage.migrations import upgrade

TOKEN = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", ("127.0.0.1", 11434)),
        ("127.0.0.1", ("127.0.0.1", 11434)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":11500", ("127.0.0.1", 11500)),
        ("LOCALHOST", ("localhost", 11434)),
        ("http://localhost", ("localhost", 80)),
        ("http://localhost:11500/", ("localhost", 11500)),
        ("[::1]", ("::1", 11434)),
        ("[::1]:11500", ("::1", 11500)),
        ("https://localhost", None),
        ("http://localhost/ollama", None),
        ("0.0.0.0", None),
        ("192.168.1.7:11434", None),
        ("gpu.example.org", None),
        ("localhost.example.org", None),
    ],
)
def test_an_engine_listens_on_this_machine_only_and_where_ollamas_client_asks(
    host: str, address: tuple[str, int] | None
) -> None:
    assert loopback_address(host) == address
    if address is not None:
        asked = ollama.Client(host)._client.base_url
        assert (asked.host, asked.port or 80) == address


def test_schedules_are_always_started_and_the_bot_last_where_there_is_a_token(tmp_path: Path) -> None:
    without = [part.name for part in parts(Settings(_env_file=None, telegram_bot_token=None))]
    assert without[-1] == "schedules"
    made = parts(Settings(_env_file=None, telegram_bot_token=TOKEN))
    assert [part.name for part in made] == [*without, "bot"]
    for part in made:
        assert list(part.command) == [sys.executable, "-m", "huigan", part.name]
        assert TOKEN not in f"{part}"


def test_a_part_that_dies_is_started_again_after_a_pause_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "PAUSES_SECONDS", (0.05, 3600.0))
    part = Part("dies", [sys.executable, "-c", "raise SystemExit(3)"])
    part.start()
    tended(part, lambda: part.deaths == 2)
    assert part.process is None
    assert part.resume_at > time.monotonic() + 3000
    part.stop()  # nothing runs, and nothing is to stop


def test_wrong_settings_end_it_all_and_other_deaths_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(up, "PAUSES_SECONDS", (0.05,))
    count = "import sys; seen = open(sys.argv[1], 'a+'); seen.write('x'); seen.seek(0)"
    wrong = Part("wrong", [sys.executable, "-c", f"{count}; raise SystemExit(2)", str(tmp_path / "wrong")])
    mixed = f"{count}; raise SystemExit(2 if len(seen.read()) < 3 else 1)"  # the network is gone by then
    passing = Part("passing", [sys.executable, "-c", mixed, str(tmp_path / "passing")])
    tended(wrong, lambda: wrong.is_hopeless)
    tended(passing, lambda: passing.deaths > 4)
    assert (tmp_path / "wrong").read_text() == "xxx"
    assert not passing.is_hopeless
    wrong.tend()
    assert wrong.process is None
    passing.stop()


def test_a_part_that_does_not_stop_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(up, "GRACE_SECONDS", 0.2)
    ready = tmp_path / "ready"
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
    part = Part("deaf", [sys.executable, "-c", deaf, str(ready)])
    part.start()
    waits_until(ready.exists)
    part.stop()
    assert part.process is not None
    assert part.process.returncode == -signal.SIGKILL


def test_what_answers_and_is_no_ollama_is_told_from_none_at_all(tmp_path: Path) -> None:
    with answering(b"{}") as address:
        process = started(tmp_path, address)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "is no Ollama" in said, "OLLAMA_HOST" in said) == (1, True, True), said
    assert "Traceback" not in said


def test_an_engine_that_ends_at_once_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    engine = Part("engine", [sys.executable, "-c", "raise SystemExit(2)"])
    engine.start()
    client = up.Ollama(f"127.0.0.1:{free_port()}", timeout_seconds=1)
    assert not up._answers(client, engine, threading.Event())
    assert "ended with 2" in capfd.readouterr().err


def test_an_end_that_comes_while_the_engine_starts_is_no_failure(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    process = started(tmp_path, f"127.0.0.1:{free_port()}")
    assert process.stderr is not None
    while "● engine" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_second_interrupt_waits_for_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake parts ignore SIGTERM: in order they would take 40 seconds."""
    ready = tmp_path / "ready"
    script = f"""
import signal, sys, threading
from huigan import up
from huigan.settings import Settings
from storage.db import connect
from storage.migrations import upgrade
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(600)"
up._serving = lambda *_: True
up.parts = lambda chosen: [up.Part("deaf", [sys.executable, "-c", deaf])]
db = connect("sqlite:///{tmp_path / "up.db"}")
upgrade(db)
sys.exit(up.run_all(Settings(_env_file=None), db))
"""
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(tmp_path, ""), stderr=subprocess.DEVNULL)
    waits_until(ready.exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


def tended(part: Part, holds: Callable[[], bool]) -> None:
    def again() -> bool:
        part.tend()
        return holds()

    waits_until(again)


def waits_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def started(home: Path, ollama_host: str) -> subprocess.Popen[str]:
    opened = connect(f"sqlite:///{home / 'huigan.db'}")
    upgrade(opened)
    opened.close()
    return subprocess.Popen(
        [sys.executable, "-m", "huigan", "up"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=home,
        env=environment(home, ollama_host),
    )


def environment(home: Path, ollama_host: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "HUIGAN_HOME": str(home), "COLUMNS": "200"}
    return given | ({"OLLAMA_HOST": ollama_host} if ollama_host else {})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that answers everything with that."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
