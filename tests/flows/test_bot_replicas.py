"""Two bots behind one webhook on one PostgreSQL: what a person says is answered in its order and once, whichever bot
gets it, also when one of them is killed; a Stop reaches the one that streams; a notice is sent by one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import outbox
from storage.db import Database, connect
from storage.migrations import upgrade
from tests.bot.running import SECRET, SPEED, World, free_port, world
from tests.fakes import postgres
from tests.fakes.balancer import Balancer
from tests.fakes.telegram import Chat

pytestmark = pytest.mark.postgres


class Two:
    """A bot and its twin."""

    def __init__(self, db: Database, first: World, folder: Path) -> None:
        folder.mkdir()
        self.first = first
        self.second = World(db, first.telegram, first.ollama, folder, SPEED)
        self.balancer = Balancer(free_port(), free_port())

    @property
    def both(self) -> tuple[World, World]:
        return self.first, self.second

    def start(self) -> None:
        for bot, port in zip(self.both, self.balancer.ports, strict=True):
            bot.start(webhook={"url": self.balancer.url, "secret": SECRET, "listen": f"127.0.0.1:{port}"})

    def port_of(self, worker: str) -> int:
        """Where the bot of that name listens: its process number is in the name."""
        pids = {
            str(bot.process.pid): port for bot, port in zip(self.both, self.balancer.ports, strict=True) if bot.process
        }
        return pids[worker.split(":")[-2]]

    def other(self, port: int) -> int:
        return next(each for each in self.balancer.ports if each != port)


@pytest.fixture
def two(postgres_url: str, tmp_path: Path) -> Iterator[Two]:
    with postgres.database(postgres_url) as url:
        db = connect(url)
        upgrade(db)
        try:
            with world(db, tmp_path) as first:
                made = Two(db, first, tmp_path / "second")
                with made.balancer.running():
                    try:
                        made.start()
                        yield made
                    finally:
                        for bot in made.both:
                            if bot.process is not None and bot.process.poll() is None:
                                bot.kill()
                    assert first.refused() == []
                    assert [bot.errors() for bot in made.both] == [[], []]
        finally:
            db.close()


def questions(two: Two, chat: Chat) -> list[str]:
    [place] = two.first.rows("chat", external_id=str(chat.id))
    conversations = {row["id"] for row in two.first.rows("conversation", chat_id=place["id"])}
    return [row["text"] for row in two.first.rows("message") if row["conversation_id"] in conversations]


def answered(chat: Chat) -> list[str]:
    return [each.text.removeprefix("You said: ") for each in chat.answers if each.text.startswith("You said: ")]


def test_what_each_person_says_is_answered_in_its_order_whichever_bot_gets_it(two: Two) -> None:
    here = two.first
    chats = [here.telegram.private(here.telegram.user(f"P{number}")) for number in range(5)]
    here.telegram.delay("sendMessage", seconds=0.2, times=20, after_effect=True)
    said: dict[int, list[str]] = {chat.id: [] for chat in chats}
    for number in range(4):
        for chat in chats:
            here.says(f"{chat.title}-{number}", chat=chat, who=chat.owner)
            said[chat.id].append(f"{chat.title}-{number}")
            if number == 1:
                here.says("/id", chat=chat, who=chat.owner)
    here.wait(lambda: all(len(answered(chat)) == 4 for chat in chats), about="all are answered", timeout=60)
    for chat in chats:
        assert questions(two, chat) == said[chat.id]
        assert answered(chat) == said[chat.id]
    assert set(two.balancer.passed) == set(two.balancer.ports)


def test_what_a_killed_bot_had_is_taken_over_by_the_other_and_nobody_is_answered_twice(two: Two) -> None:
    here = two.first
    here.ollama.reply(tokens=["一", "二", "三"], stalls_after=2)
    here.says("数到三")
    here.wait(lambda: here.rows("turn", text="一二"), about="a checkpoint", timeout=30)
    for number in range(4):
        here.says(f"还有{number}")
    here.wait(lambda: len(here.rows("message")) == 5, about="all is stored", timeout=30)
    streaming = two.port_of(here.rows("turn")[0]["worker"])
    for bot, port in zip(two.both, two.balancer.ports, strict=True):
        if port == streaming:
            bot.kill()
    here.wait(lambda: len(answered(here.chat)) == 4, about="the other answers", timeout=60)
    assert answered(here.chat) == [f"还有{number}" for number in range(4)]
    here.wait(lambda: any("重启" in each.text for each in here.chat.answers), about="what was cut off says so")
    assert sum("一二" in each.text for each in here.chat.answers) == 1
    here.settle()


def test_a_stop_that_reaches_one_bot_ends_the_stream_of_the_other(two: Two) -> None:
    here = two.first
    here.ollama.reply(tokens=["一", "二", "三"], stalls_after=2)
    group = here.telegram.group("茶友", members=[here.alice], bot_is_admin=True)
    here.says("@huigan_bot 数到三", chat=group)
    growing = here.answer(group, button="⏹ 停止")
    here.wait(lambda: here.rows("turn", text="一二"), about="a checkpoint", timeout=30)
    two.balancer.only = two.other(two.port_of(here.rows("turn")[0]["worker"]))
    here.alice.presses(growing, "⏹ 停止")
    here.wait(lambda: here.rows("turn", ended="stopped"), about="it is stopped", timeout=30)
    here.settle()


def test_a_notice_is_sent_by_one_of_them(two: Two) -> None:
    here = two.first
    here.says("/start")
    here.wait(lambda: here.rows("user", external_id=str(here.alice.id)), about="she is known")
    for number in range(5):
        params = {"error": "not_running", "number": number}
        here.db.write(outbox.put, "serving_trouble", params, datetime.now(UTC), user_id=here.me())
    here.wait(lambda: all(row["sent_at"] for row in here.rows("outbox")), about="all are sent", timeout=30)
    assert sum("⚠️" in each.text for each in here.chat.answers) == 5
