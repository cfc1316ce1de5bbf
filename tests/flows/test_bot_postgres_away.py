"""PostgreSQL is stopped under a running bot and started again: what people say and press meanwhile counts once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.db import connect
from storage.migrations import upgrade
from tests.bot.running import World, world
from tests.fakes import postgres

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """One of its own: nobody else's may be stopped."""
    with postgres.server() as made:
        if made is None:
            pytest.skip("no PostgreSQL: install its server binaries")
        yield made


@pytest.fixture
def here(server: postgres.Server, tmp_path: Path) -> Iterator[World]:
    with postgres.database(server.url) as url, contextlib.closing(connect(url)) as db:
        upgrade(db)
        with world(db, tmp_path) as made:
            made.start()
            yield made
            assert made.refused() == []


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_what_is_said_and_pressed_while_it_is_stopped_counts_once(
    here: World, server: postgres.Server, how: str
) -> None:
    here.says("之前")
    answer = here.answer()
    here.settle()
    server.stop(how)
    here.says("在吗")
    here.alice.presses(answer, "👍")
    here.says("还在吗")
    here.wait(lambda: "database cannot be used" in here.logged())
    server.start()
    here.wait(lambda: len(here.mine("answer")) == 3 and len(here.chat.answers) == 3, about="all is answered and shown")
    here.settle()
    assert [row["text"] for row in here.mine("message")] == ["之前", "在吗", "还在吗"]
    assert [row["thumb"] for row in here.mine("rating")] == ["up"]
    assert len(here.chat.answers) == 3


def test_an_answer_that_ends_while_it_is_stopped_is_recorded_whole_once_it_is_back(
    here: World, server: postgres.Server
) -> None:
    here.ollama.reply(tokens=["一", "二", "三"], stalls_after=2)
    here.says("数到三")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: growing.text == "一二")
    server.stop("immediate")
    here.says("还有呢")
    here.ollama.resume()
    here.wait(lambda: "waits for the database" in here.logged())
    server.start()
    here.said("You said: 还有呢")
    here.settle()
    assert growing.text == "一二三"
    assert growing.buttons == ["👍", "👎", "✏️", "🔁"]
    assert [row["text"] for row in here.mine("message")] == ["数到三", "还有呢"]
    assert [row["text"] for row in here.mine("answer")] == ["一二三", "You said: 还有呢"]
    assert len(here.chat.answers) == 2
