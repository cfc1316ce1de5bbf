"""The bot is killed, or told to end, wherever it hurts, and started again: no message and no rating is lost, nobody is
answered twice, and what was cut off says so.

The tests share a bot, which each finds and leaves running, and bring their own people.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import updates
from tests.bot import running
from tests.bot.running import World


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    with running.met(shared) as made:
        yield made


def test_an_answer_cut_off_by_a_kill_says_so_is_kept_and_can_be_retried_and_who_waited_is_answered(here: World) -> None:
    here.ollama.reply(tokens=["一", "二", "三"], stalls_after=2)
    here.says("数到三")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: growing.text == "一二")
    here.wait(lambda: here.mine("turn", text="一二"), about="a checkpoint")
    here.says("还有呢")
    here.wait(lambda: len(here.mine("turn")) == 2)
    here.kill()

    here.start()
    here.wait(lambda: "重启" in growing.text, about="what was cut off says so", timeout=30)
    assert growing.text.startswith("一二\n\n")
    assert growing.buttons == ["👍", "👎", "✏️", "🔁 重试"]
    here.said("You said: 还有呢")
    here.ollama.reply("一二三")
    here.alice.presses(growing, "🔁 重试")
    here.wait(lambda: any(each.text == "一二三" for each in here.chat.answers))
    assert sum("还有呢" in each.text for each in here.chat.answers) == 1
    assert [row["ended"] for row in here.mine("answer")] == ["interrupted", "complete", "complete"]


def test_an_update_that_was_stored_and_not_handled_is_handled_at_the_next_start_once(here: World) -> None:
    here.kill()
    here.says("存了吗")
    update = here.telegram.updates.pending[-1]
    here.db.write(updates.store, update["update_id"], update, datetime.now(UTC))  # and killed before it was handled
    here.start()  # Telegram delivers it again: it was not told that we have it
    assert here.answer().text == "You said: 存了吗"
    here.wait(lambda: here.rows("update", update_id=update["update_id"])[0]["handled_at"])
    here.says("再来")
    here.wait(lambda: len(here.mine("answer")) == 2)
    assert [row["text"] for row in here.mine("message")] == ["存了吗", "再来"]


def test_an_update_that_could_not_be_stored_is_not_confirmed_and_comes_again_after_a_kill(here: World) -> None:
    delivered = len(here.telegram.updates.delivered)
    with here.db.engine.begin():  # nobody else may write meanwhile
        here.says("存不了")
        here.wait(lambda: len(here.telegram.updates.delivered) > delivered, about="the bot has it in its memory")
        here.kill()
    [update] = here.telegram.updates.delivered[delivered:]
    assert here.rows("update", update_id=update["update_id"]) == []
    here.start()
    assert here.answer().text == "You said: 存不了"


def test_what_is_said_and_pressed_while_the_database_is_away_counts_once_it_is_back_and_nobody_is_told(
    here: World,
) -> None:
    here.says("之前")
    answer = here.answer()
    here.settle()
    with here.db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE conversation RENAME TO gone")
    here.says("在吗")
    here.alice.presses(answer, "👍")
    here.says("还在吗")
    here.wait(lambda: "is tried again" in here.logged())
    with here.db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO conversation")
    here.wait(lambda: len(here.mine("answer")) == 3 and len(here.chat.answers) == 3, about="all is answered and shown")
    here.settle()
    assert [row["text"] for row in here.mine("message")] == ["之前", "在吗", "还在吗"]
    assert [row["thumb"] for row in here.mine("rating")] == ["up"]
    assert len(here.chat.answers) == 3


def test_a_press_that_was_stored_and_not_handled_counts_after_a_kill_and_is_not_answered_twice(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    here.wait(lambda: here.mine("showing")[0]["finished_at"])
    here.kill()
    press = here.alice.presses(answer, "👍")
    update = here.telegram.updates.pending[-1]
    here.db.write(updates.store, update["update_id"], update, datetime.now(UTC))
    press.answered = True  # and killed just then: a second answer would be refused
    here.start()
    here.wait(lambda: "👍 ✓" in answer.buttons)
    assert [row["thumb"] for row in here.mine("rating")] == ["up"]


def test_an_answer_that_was_recorded_and_not_shown_is_shown_after_a_kill_once(here: World) -> None:
    fault = here.telegram.inject("editMessageText", status=502, times=1000)
    here.ollama.reply("好的")
    here.says("在吗")
    here.answer(button="⏹ 停止")
    here.wait(lambda: here.mine("answer"), about="the answer is recorded")
    here.kill()
    fault.times = 0
    assert here.rows("delivery", chat=str(here.alice.id)) == []
    here.start()
    assert here.answer().text == "好的"
    assert [each.text for each in here.chat.answers] == ["好的"]
    here.wait(lambda: here.mine("showing")[0]["finished_at"])
    assert here.stop() == 0
    here.start()
    here.says("再见")
    here.wait(lambda: len(here.chat.answers) == 2)


def test_told_to_end_it_lets_short_answers_finish_marks_long_ones_and_waits_with_the_rest(here: World) -> None:
    asked = len(here.ollama.of("/api/chat"))
    here.ollama.reply(tokens=["短"], token_seconds=1.0)
    here.says("短的")
    bob = here.telegram.user("Bob")
    chat = here.telegram.private(bob)
    here.wait(lambda: len(here.ollama.of("/api/chat")) == asked + 1)
    here.ollama.reply(tokens=["长", "的"], stalls_after=1)
    here.says("长的", who=bob, chat=chat)
    here.says("等着", who=bob, chat=chat)
    here.wait(lambda: len(here.rows("message", text="等着")) == 1)
    here.wait(lambda: any(each.text == "长" for each in chat.answers))
    assert here.stop() == 0
    assert here.answer().text == "短"
    cut = next(each for each in chat.answers if "重启" in each.text)
    assert cut.text.startswith("长\n\n")
    assert [row["state"] for row in here.rows("turn")[-3:]] == ["closed", "closed", "waiting"]
    here.start()
    here.said("You said: 等着", chat)
