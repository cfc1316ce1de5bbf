"""Logs of every process: sentences for people or a JSON object a line for programs, with ids and without secrets.

Knows no noun: who begins something says with `about` which run, turn or update whatever is logged meanwhile concerns.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from huigan.texts.printable import printable

LogFormat = Literal["text", "json"]

NOISY = ("httpx", "httpcore", "apscheduler", "alembic")  # httpx would write the bot token: it is in its URLs
BLOT = "<secret>"
# As @BotFather gives them; also one that stands in no setting of ours (an old one, another bot's).
TOKEN = re.compile(r"(?<![0-9])[0-9]{6,12}:[A-Za-z0-9_-]{30,}")

_about: ContextVar[Mapping[str, int | str] | None] = ContextVar("about", default=None)


def begin(form: LogFormat, secrets: Sequence[str]) -> None:
    """To stderr, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(WithoutSecrets(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextlib.contextmanager
def about(**ids: int | str) -> Iterator[None]:
    """What is logged within, in this task or thread, bears these ids; the innermost word for each counts."""
    mark = _about.set({**(_about.get() or {}), **ids})
    try:
        yield
    finally:
        _about.reset(mark)


class Lines(logging.Formatter):
    """For people. Only what begins a record stands at the margin, and a terminal obeys nothing in it: names, errors and
    other servers' words may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record)).replace("\n", "\n    ")


class JsonLines(logging.Formatter):
    """One object a line, whatever line breaks were logged."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_about.get() or {}),
        }
        if error := record.exc_text or (self.formatException(record.exc_info) if record.exc_info else ""):
            told["error"] = error
        return json.dumps(told, ensure_ascii=False)


class WithoutSecrets(logging.Filter):
    """Blots secrets out of whatever is logged, tracebacks too: an error for a wrong token quotes it."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        # The longest first: one may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def filter(self, record: logging.LogRecord) -> bool:
        given = (record.args,) if isinstance(record.args, Mapping) else record.args or ()
        if record.name.startswith("telegram") and any(isinstance(each, Mapping | list) for each in given):
            record.args = ("<updates>",)  # that the library could not read, with what somebody wrote
        record.msg, record.args = self._blotted(record.getMessage()), ()
        if record.name == "telegram.ext" and record.exc_info and type(record.exc_info[1]).__name__ == "InvalidToken":
            record.exc_info = None  # it ends the process, in words of ours
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._blotted(record.exc_text)
        return True

    def _blotted(self, written: str) -> str:
        for secret in self._secrets:
            written = written.replace(secret, BLOT)
        return TOKEN.sub(BLOT, written)
