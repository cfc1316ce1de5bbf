"""`huigan chat`, spoken to through a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from huigan import terminal
from huigan.serving.client import AsyncOllama
from huigan.turns.desk import Desk
from storage.db import Database
from tests.fakes.ollama import FakeOllama
from tests.huigan.turns.conftest import deploy


async def test_that_the_oldest_messages_are_left_out_is_said_once_until_a_new_conversation(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(sqlite_db, "base:v1", num_ctx=400, num_predict=100)
    long = "long " * 80
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{long}1\n{long}2\n{long}3\n/new\n{long}4\n"))
    with FakeOllama().running() as fake:
        fake.add("base:v1", parameters={"num_ctx": 2000})
        for number in range(4):
            fake.reply(f"answer {number}")
        async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
            await terminal.run(sqlite_db, desk, "en", who="ann")
    said = capsys.readouterr().out
    assert said.count("/new starts afresh") == 1
    assert said.index("answer 1") < said.index("/new starts afresh") < said.index("answer 2")
