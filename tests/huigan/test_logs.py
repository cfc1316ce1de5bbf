"""Logs as a person and as a program reads them: ids in them, secrets out of them, whatever was logged."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from huigan import logs

TOKEN = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd"
REPOSITORY = Path(__file__).parents[2]


class Heard:
    """A logger of its own, in one of the two formats."""

    def __init__(self, *secrets: str) -> None:
        self.stream = StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(logs.JsonLines())
        handler.addFilter(logs.WithoutSecrets(secrets))
        self.log = logging.getLogger("huigan.test")
        self.log.handlers, self.log.propagate = [handler], False
        self.log.setLevel(logging.INFO)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard("a-secret", "a-secret-that-is-longer")
    yield made
    made.log.handlers, made.log.propagate = [], True


def test_each_line_is_one_object_with_the_time_the_level_and_the_sentence(heard: Heard) -> None:
    heard.log.warning("run %d\nfailed", 7)
    [line] = heard.lines
    assert (line["level"], line["logger"], line["message"]) == ("warning", "huigan.test", "run 7\nfailed")
    assert str(line["at"]).endswith("+00:00")


def test_what_is_logged_within_bears_the_ids_and_nothing_after_it_does(heard: Heard) -> None:
    with logs.about(run=7, attempt=1):
        with logs.about(attempt=2):
            heard.log.info("inner")
        heard.log.info("outer")
    heard.log.info("after")
    found = [(each.get("run"), each.get("attempt")) for each in heard.lines]
    assert found == [(7, 2), (7, 1), (None, None)]


async def test_tasks_and_threads_beside_each_other_do_not_mix_their_ids(heard: Heard) -> None:
    async def turn(number: int) -> None:
        with logs.about(turn=number):
            await asyncio.sleep(0)
            heard.log.info("turn %d", number)

    def other() -> None:
        heard.log.info("turn None")

    with logs.about(turn=99):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    await asyncio.gather(*(turn(number) for number in range(5)))
    assert {f"turn {each.get('turn')}" for each in heard.lines} == {str(each["message"]) for each in heard.lines}
    assert len(heard.lines) == 6


def test_no_secret_is_in_a_sentence_its_arguments_or_a_traceback(heard: Heard) -> None:
    heard.log.info("the url is https://api.telegram.org/bot%s/getMe", TOKEN)
    heard.log.info("a-secret-that-is-longer and %s", "a-secret")
    try:
        raise ValueError(f"a-secret and {TOKEN}")
    except ValueError:
        heard.log.exception("it failed")
    written = heard.stream.getvalue()
    assert "a-secret" not in written
    assert "is-longer" not in written
    assert TOKEN.partition(":")[2] not in written
    assert "ValueError" in str(heard.lines[-1]["error"])
    assert written.count("<secret>") == 6  # a traceback quotes the source too


@pytest.mark.parametrize(("form", "begins"), [("json", "{"), ("text", "2")])
def test_as_a_process_it_writes_to_stderr_and_keeps_what_is_noisy_down(form: str, begins: str) -> None:
    script = (
        "import logging; from huigan import logs\n"
        f"logs.begin({form!r}, ['a-secret'])\n"
        "logging.getLogger('httpx').info('GET a-secret'); logging.getLogger('x').info('known a-secret')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    assert (line.startswith(begins), "known <secret>" in line, done.stdout) == (True, True, "")


def test_for_people_only_what_begins_a_record_stands_at_the_margin_and_nothing_moves_a_cursor() -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Lines("%(levelname)s %(message)s"))
    log = logging.getLogger("huigan.test.lines")
    log.handlers, log.propagate = [handler], False
    try:
        raise ValueError("no\r\nINFO forged in an error")
    except ValueError:
        log.exception("Ollama said %s", "\x1b]0;title\x07\x1b[2J\nINFO forged\u202e")
    written = stream.getvalue()
    assert [line for line in written.splitlines() if not line.startswith("    ")] == [written.splitlines()[0]]
    assert "\x1b" not in written
    assert "\u202e" not in written
    assert "Ollama said \\u001b]0;title\\u0007" in written


@pytest.mark.parametrize("given", [({"message": {"text": "a private word"}},), ([{"text": "a private word"}],)])
def test_updates_that_the_library_could_not_read_are_not_in_the_log(heard: Heard, given: tuple[object]) -> None:
    record = logging.LogRecord("telegram.ext.Updater", logging.CRITICAL, "", 0, "Received data was: %r", given, None)
    heard.log.handle(record)
    [line] = heard.lines
    assert line["message"] == "Received data was: '<updates>'"
