"""What comes in beside plain questions: split pastes, /stop before there is an answer, edited questions.

One bot serves the tests of this file, with a long context; each test brings its own people.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage import updates
from tests.bot import running
from tests.bot.running import World
from tests.fakes.telegram import Message


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.reading_much(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    with running.met(shared) as made:
        yield made


def asked(here: World) -> list[dict[str, Any]]:
    """What the last answer was given to, without the system text."""
    return here.ollama.last("/api/chat").messages[1:]


def words(here: World) -> list[str]:
    return [each["content"] for each in asked(here)]


# Pastes


def test_a_paste_that_telegram_split_is_one_question_and_what_follows_is_answered_after_it(here: World) -> None:
    text = "".join(f"第{number}句，说的是茶。" for number in range(1000))[:9000]
    pieces = here.alice.pastes(here.chat, text)
    here.says("还有一问")
    assert [len(each.text) for each in pieces] == [4096, 4096, 808]
    here.wait(lambda: sum("👍" in each.buttons for each in here.chat.answers) == 2, about="both are answered")
    assert [row["text"] for row in here.mine("message")] == [text, "还有一问"]
    assert words(here)[0] == text
    assert words(here)[2] == "还有一问"


def test_a_paste_that_was_cut_at_the_ends_of_lines_keeps_its_lines(here: World) -> None:
    text = "\n".join(f"第{number}行：" + "茶" * 90 for number in range(60))
    assert len(here.alice.pastes(here.chat, text)) > 1
    here.answer()
    assert [row["text"] for row in here.mine("message")] == [text]


def test_a_long_message_on_its_own_is_answered_and_so_is_a_second_one(here: World) -> None:
    here.says("茶" * 3000)
    first = here.answer()
    here.says("水" * 3000)
    here.answer(after=first)
    assert [row["text"][0] for row in here.mine("message")] == ["茶", "水"]


def test_a_kill_neither_splits_nor_loses_a_paste(here: World) -> None:
    here.settle()
    here.kill()
    text = "苦" * 4096 + "甘" * 4096 + "茶" * 10
    first, *_ = here.alice.pastes(here.chat, text)
    update = next(each for each in here.telegram.updates.pending if each["message"]["message_id"] == first.id)
    # Only the first piece was stored when it was killed; the others come when it is back.
    key = f"{here.chat.id}:0:{here.alice.id}"
    here.db.write(updates.store, update["update_id"], update, datetime.now(UTC), key=key, worker="killed")
    here.start()
    here.answer()
    here.settle()
    assert [row["text"] for row in here.mine("message")] == [text]
    assert len(here.mine("turn")) == 1


def test_a_paste_that_begins_as_a_reply_is_whole_in_a_group_and_in_a_topic(here: World) -> None:
    group = here.telegram.group("茶友", members=[here.alice], bot_is_admin=True)
    forum = here.telegram.group("茶坛", members=[here.alice], bot_is_admin=True, forum=True)
    for chat, thread in ((group, None), (forum, here.telegram.topic(forum, "茶"))):
        here.says("@huigan_bot 你好", chat=chat, thread=thread)
        first = here.answer(chat)
        here.alice.pastes(chat, "茶" * 5000, reply_to=first, thread=thread)
        here.answer(chat, after=first)
    here.settle()
    assert [len(row["text"]) for row in here.mine("message")] == [2, 5000, 2, 5000]


def test_stop_drops_what_is_still_being_collected_and_what_comes_after_it_is_answered(here: World) -> None:
    long = here.says("茶" * 3000)
    here.wait(lambda: any(row["body"].find(f'"message_id": {long.id},') > 0 for row in here.rows("update")))
    here.says("/stop")
    here.said("不读了")
    here.says("还有一问")
    here.said("You said: 还有一问")
    here.settle()
    assert [row["text"] for row in here.mine("message")] == ["还有一问"]
    assert not any("没有要停的" in text for text in here.chat.texts)


def test_stop_reaches_what_streams_and_what_is_being_fetched_beside_a_slow_download(here: World) -> None:
    here.ollama.reply("一二三四五", stalls_after=3)
    here.says("慢慢说")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: growing.text == "一二三")
    fault = here.telegram.delay("getFile", seconds=4)
    here.alice.sends_document(here.chat, "slow.txt", b"slow", caption="这个呢")
    here.wait(lambda: fault.struck, about="it is being fetched")
    here.alice.presses(growing, "⏹ 停止")
    here.wait(lambda: growing.text == "一二三\n\n（已停止）", about="the button is heard meanwhile")
    rated = here.alice.presses(growing, "👍")
    here.wait(lambda: rated.answered, about="and so is a rating")
    here.says("/stop")
    here.said("不读了")
    here.settle()
    assert [row["text"] for row in here.mine("message")] == ["慢慢说"]


def test_what_is_said_right_after_stop_is_not_stopped(here: World) -> None:
    with here.telegram.changing():
        here.says("/stop")
        here.says("你好")
    here.said("You said: 你好")
    here.settle()
    assert not any("已停止" in text for text in here.chat.texts)


# Edits


def edited(here: World, question: Message, text: str) -> Message:
    here.alice.edits(question, text)
    return here.said("你改了问题")


def test_an_edited_question_offers_an_answer_that_later_messages_see_instead_of_the_first(here: World) -> None:
    here.says("先说一句")
    before = here.answer()
    question = here.says("茶几度泡？")
    first = here.answer(after=before)
    offer = edited(here, question, "绿茶几度泡？")
    assert offer.buttons == ["回答新的问题"]
    here.alice.presses(offer, "回答新的问题")
    second = here.answer(after=offer)
    assert second.text == "You said: 绿茶几度泡？"
    assert words(here) == ["先说一句", "You said: 先说一句", "绿茶几度泡？"]
    here.wait(lambda: offer.buttons == [])
    here.says("为什么？")
    here.answer(after=second)
    assert words(here) == [
        "先说一句", "You said: 先说一句", "绿茶几度泡？", "You said: 绿茶几度泡？", "为什么？",
    ]  # fmt: skip
    rows = here.mine("message")
    assert [row["replaces_id"] for row in rows] == [None, None, rows[1]["id"], None]
    assert "👍" in first.buttons, "the first answer stays"


def test_of_many_edits_the_newest_is_offered_once_also_after_a_restart(here: World) -> None:
    question = here.says("一")
    here.answer()
    offer = edited(here, question, "一二")
    stale = offer.keys[0]["callback_data"]
    here.alice.edits(question, "一二三")
    here.wait(lambda: offer.keys[0]["callback_data"] != stale, about="the offer is the newer one's")
    press = here.alice.forges_press(offer, stale)
    here.wait(lambda: press.answered)
    assert "最新" in press.answer
    here.settle()
    here.kill()
    here.start()
    here.alice.presses(offer, "回答新的问题")
    assert here.answer(after=offer).text == "You said: 一二三"
    again = here.alice.forges_press(offer, f"edited:{here.mine('message')[-1]['id']}")
    here.wait(lambda: again.answered)
    assert "失效" in again.answer
    assert len(here.mine("turn")) == 2


def test_edits_that_change_no_question_are_passed_over(here: World) -> None:
    same, command = here.says("不变"), here.says("/id")
    here.said("你的编号")
    here.answer()
    here.alice.edits(same, "不变")
    here.alice.edits(command, "/help")
    bob = here.telegram.user("Bob")
    group = here.telegram.group("茶友", members=[here.alice, bob], bot_is_admin=True)
    here.alice.edits(here.says("大家好", chat=group), "@huigan_bot 大家好")
    here.says("然后呢")
    here.said("You said: 然后呢")
    here.settle()
    assert not any("你改了问题" in each.text for each in [*here.chat.answers, *group.answers])
    assert len(here.mine("message")) == 2


def test_only_the_author_may_have_an_edited_question_answered(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("茶友", members=[here.alice, bob])
    question = here.says("@huigan_bot 一", chat=group)
    here.answer(group)
    here.alice.edits(question, "@huigan_bot 二")
    offer = here.said("你改了问题", group)
    assert offer.reply_to is question
    press = bob.presses(offer, "回答新的问题")
    here.wait(lambda: press.answered)
    assert "只有提问的人" in press.answer
    here.alice.presses(offer, "回答新的问题")
    assert here.answer(group, after=offer).text == "You said: 二"


def test_one_edited_piece_of_a_paste_asks_for_the_whole(here: World) -> None:
    first, *_ = here.alice.pastes(here.chat, "茶" * 5000)
    here.answer()
    here.alice.edits(first, "水" * 100)
    here.said("全文再发一次")
    assert len(here.mine("message")) == 1
