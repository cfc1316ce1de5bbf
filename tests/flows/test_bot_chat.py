"""People chat with the bot, which is a process of its own: asked, answered, rated, corrected, compared, stored.

One bot serves the tests of this file; each brings its own people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bot import running
from tests.bot.running import World
from tests.fakes.ollama import OUT_OF_MEMORY
from tests.fakes.telegram import Message


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    """The shared bot, with an Alice nobody has met."""
    yield shared.meet_alice()
    assert shared.refused() == []
    assert shared.errors() == []


def test_an_answer_is_streamed_rated_explained_corrected_and_compared(here: World) -> None:
    words = "回甘是先苦后甜的味道，**喝茶**的人都知道。" * 4
    here.ollama.reply(words, token_seconds=0.04)
    here.says("什么是回甘？")
    answer = here.answer()
    assert answer.text == words.replace("**", "")
    assert {entity["type"] for entity in answer.entities} == {"bold"}
    assert answer.edits >= 2, "it was seen growing"
    assert any(text and answer.text.startswith(text) and text != answer.text for text in answer.history[1:-1])

    here.alice.presses(answer, "👎")
    here.wait(lambda: "不正确" in answer.buttons and "👎 ✓" in answer.buttons)
    here.alice.presses(answer, "不正确")
    here.wait(lambda: "不正确" not in answer.buttons)
    here.alice.presses(answer, "✏️")
    prompt = here.said("请回复这条消息")
    here.says("苦尽甘来。", reply_to=prompt)
    here.said("以你写的为准")
    ratings = here.rows("rating", user_id=here.me())
    assert [(row["thumb"], row["reason"], row["correction"]) for row in ratings] == [
        ("down", None, None),
        ("down", "wrong", None),
        ("down", "wrong", "苦尽甘来。"),
    ]

    here.ollama.reply("先苦后甜。")
    here.alice.presses(answer, "🔁")
    second = here.answer(after=answer)
    assert second.text == "先苦后甜。"
    question = here.said("哪个更好？")
    here.alice.presses(question, "第一个")
    here.wait(lambda: "第一个 ✓" in question.buttons)
    comparison = here.rows("comparison", user_id=here.me())[0]
    left = here.rows("answer", id=comparison["left_answer_id"])[0]
    assert question.text.index(left["text"][:5]) < question.text.index("【第二个】")
    assert comparison["pick"] == "left"
    assert comparison["left_answer_id"] != comparison["right_answer_id"]
    here.wait(lambda: all(row["handled_at"] for row in here.rows("update")))
    here.wait(lambda: all(row["finished_at"] for row in here.rows("showing")))
    assert all(press.answered for press in here.telegram.presses)


def test_a_message_that_comes_meanwhile_is_answered_after_the_first_and_sees_it(here: World) -> None:
    here.ollama.reply("一一一", token_seconds=0.1)
    here.says("第一问")
    here.says("第二问")
    here.wait(lambda: sum("👍" in each.buttons for each in here.chat.answers) == 2)
    assert [each.text for each in here.chat.answers][:1] == ["一一一"]
    said = [each["content"] for each in here.ollama.last("/api/chat").messages]
    assert said[1:] == ["第一问", "一一一", "第二问"]


def test_stop_ends_the_answer_and_ollamas_generation(here: World) -> None:
    here.ollama.reply(tokens=["好", "的", "，", "我", "说"], stalls_after=3)
    here.says("讲个很长的故事")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: growing.text == "好的，")
    here.alice.presses(growing, "⏹ 停止")
    answer = here.answer()
    assert answer is growing
    assert answer.text == "好的，\n\n（已停止）"
    here.wait(lambda: here.ollama.last("/api/chat").ended == "disconnected")
    assert here.rows("answer", text="好的，")[0]["ended"] == "stopped"


def test_the_stop_command_ends_what_its_asker_waits_for_in_that_chat(here: World) -> None:
    here.says("/stop")
    here.said("没有正在回答")
    here.ollama.reply(tokens=["慢", "慢", "说"], stalls_after=2)
    here.says("说来话长")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: growing.text == "慢慢")
    here.says("还有一问")
    here.wait(lambda: len(here.mine("turn")) == 2)
    bob = here.telegram.user("Bob")
    here.says("/stop", who=bob, chat=here.telegram.private(bob))
    here.said("没有正在回答", here.telegram.private(bob))
    here.says("/stop")
    assert here.answer().text == "慢慢\n\n（已停止）"
    here.wait(lambda: all(turn["state"] == "closed" for turn in here.mine("turn")))
    assert [turn["ended"] for turn in here.mine("turn")] == ["stopped", "withdrawn"]


def test_who_waits_sees_typing_and_that_a_cold_model_is_loaded(here: World) -> None:
    here.ollama.reply(tokens=["到"], stalls_after=0)
    here.says("等等")
    waiting = here.answer(button="⏹ 停止")
    assert "正在想" in waiting.text
    here.wait(lambda: "加载模型" in waiting.text, about="words for a model that is loaded")
    here.wait(lambda: here.chat.actions.count("typing") >= 2, about="typing is shown again")
    here.says("/stop")
    here.wait(lambda: "已停止" in waiting.text)


def test_a_failure_says_what_happened_and_can_be_retried(here: World) -> None:
    here.ollama.inject("/api/chat", *OUT_OF_MEMORY)
    here.says("你好")
    failed = here.answer(button="🔁 重试")
    assert "内存不够" in failed.text
    here.ollama.reply("你好呀！")
    here.alice.presses(failed, "🔁 重试")
    assert here.answer().text == "你好呀！"
    here.wait(lambda: failed.buttons == [])
    assert "哪个更好" not in " ".join(here.chat.texts), "a retry is no comparison"


def test_a_broken_answer_keeps_what_was_shown_and_can_be_rated_and_retried(here: World) -> None:
    here.ollama.reply("一二三四", dies_after=2)
    here.says("数到四")
    broken = here.answer()
    assert broken.text.startswith("一二\n\n")
    assert "断开" in broken.text
    here.ollama.reply("一二三四")
    here.alice.presses(broken, "🔁 重试")
    assert here.answer(after=broken).text == "一二三四"
    here.wait(lambda: broken.buttons == ["👍", "👎", "✏️"])
    here.alice.presses(broken, "👍")
    here.wait(lambda: "👍 ✓" in broken.buttons)


def test_a_long_answer_comes_whole_in_several_messages_and_is_rated_under_the_last(here: World) -> None:
    lines = [f"{number}. 这是第{number}行，讲的是回甘。" for number in range(600)]
    here.ollama.reply("\n".join(lines))
    here.says("写很长")
    last = here.answer()
    shown = [each for each in here.chat.answers if each.id <= last.id]
    assert len(shown) > 1
    assert all(len(each.text.encode("utf-16-le")) <= 8192 for each in shown)
    kept = here.rows("answer")[-1]
    digits = re.findall(r"第(\d+)行", "\n".join(each.text for each in shown))
    assert digits == re.findall(r"第(\d+)行", kept["text"])
    here.wait(lambda: len(here.rows("delivery", answer_id=kept["id"])) == len(shown))
    assert [row["message"] for row in here.rows("delivery", answer_id=kept["id"])] == [str(each.id) for each in shown]
    assert [bool(each.buttons) for each in shown] == [False] * (len(shown) - 1) + [True]


def test_a_reply_to_an_answer_continues_from_it(here: World) -> None:
    here.ollama.reply("甲的答案")
    here.says("甲")
    first = here.answer()
    here.ollama.reply("乙的答案")
    here.says("乙")
    here.answer(after=first)
    here.says("接着说甲", reply_to=first)
    here.wait(lambda: here.ollama.last("/api/chat").messages[-1]["content"] == "接着说甲")
    assert [each["content"] for each in here.ollama.last("/api/chat").messages[1:]] == ["甲", "甲的答案", "接着说甲"]
    here.answer(after=first)


def test_new_begins_without_what_was_said(here: World) -> None:
    here.says("记住七")
    first = here.answer()
    here.says("/new")
    here.said("重新开始")
    here.says("几？")
    here.answer(after=first)
    assert [each["content"] for each in here.ollama.last("/api/chat").messages[1:]] == ["几？"]


def test_start_says_what_is_kept_and_asks_for_consent_which_can_be_changed(here: World) -> None:
    here.says("/start")
    asked = here.said("会保存什么")
    assert asked.buttons == ["同意", "不同意"]
    here.alice.presses(asked, "同意")
    here.said("谢谢！今后")
    assert here.rows("user", id=here.me())[0]["consented_at"] is not None
    here.alice.presses(asked, "不同意")
    here.said("不会用你的内容训练")
    person = here.rows("user", id=here.me())[0]
    assert (person["consented_at"], person["declined_at"] is not None) == (None, True)


def test_a_rating_without_consent_is_kept_and_says_that_nothing_is_learnt_from_it(here: World) -> None:
    here.says("你好")
    press = here.alice.presses(here.answer(), "👍")
    here.wait(lambda: press.answered)
    assert "没有同意用于训练" in press.answer


def test_words_are_in_the_language_of_the_persons_telegram(here: World) -> None:
    bob = here.telegram.user("Bob", language_code="en")
    chat = here.telegram.private(bob)
    here.says("/help", who=bob, chat=chat)
    here.said("a new conversation", chat)
    tsai = here.telegram.user("Tsai", language_code="zh-hant")
    here.says("/help", who=tsai, chat=here.telegram.private(tsai))
    here.said("開始新的對話", here.telegram.private(tsai))


def test_id_help_and_an_unknown_command_are_answered(here: World) -> None:
    here.says("/id")
    assert str(here.alice.id) in here.said("你的编号").text
    here.says("/nonsense")
    assert "管理员" not in here.said("直接发消息就能聊").text


def test_admins_commands_are_refused_to_others_politely(here: World) -> None:
    for command in ("/status", "/retrain", "/releases", "/promote 1", "/rollback"):
        here.says(command)
    here.wait(lambda: sum("只有管理员能用" in text for text in here.chat.texts) == 5)
    assert here.rows("run") == []


def forged(here: World, message: Message, data: str) -> str:
    press = here.alice.forges_press(message, data)
    here.wait(lambda: press.answered, about=data)
    return press.answer


def test_forged_and_foreign_presses_change_nothing(here: World) -> None:
    here.says("你好")
    mine = here.answer()
    bob = here.telegram.user("Bob")
    chat = here.telegram.private(bob)
    here.says("你好", who=bob, chat=chat)
    his = here.answer(chat)
    his_data = [key["callback_data"] for key in his.keys]
    before = [here.rows(table) for table in ("rating", "comparison", "turn", "correction_prompt")]
    nonsense = ["", ":", "up", "up:", "up:1:2:3", f"up:{10**19}", "up:-1", "why:1:nothing", "x" * 64]
    nonsense += ["stop:1", "pick:1:1:left", "agree:1"]
    for data in [*his_data, *nonsense]:
        assert forged(here, mine, data) in {"这个按钮已经失效了。", "找不到这条回答了。"}, data
    assert [here.rows(table) for table in ("rating", "comparison", "turn", "correction_prompt")] == before
    assert mine.buttons == ["👍", "👎", "✏️", "🔁"]


def test_a_press_that_is_repeated_counts_once(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    thumb = answer.keys[0]["callback_data"]
    for _ in range(3):
        here.alice.forges_press(answer, thumb)
    here.telegram.deliver_again()
    here.wait(lambda: "👍 ✓" in answer.buttons)
    here.wait(lambda: all(row["handled_at"] for row in here.rows("update")))
    assert len(here.rows("rating", user_id=here.me())) == 1


def test_a_message_that_telegram_delivers_twice_is_answered_once(here: World) -> None:
    here.says("一次")
    first = here.answer()
    here.telegram.deliver_again()
    here.says("两次")
    here.answer(after=first)
    assert [each.messages[-1]["content"] for each in here.ollama.of("/api/chat")].count("一次") == 1


def test_only_a_reply_to_the_prompt_is_a_correction(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    here.alice.presses(answer, "✏️")
    prompt = here.said("请回复这条消息")
    here.says("这不是改正")
    other = here.answer(after=prompt)
    assert here.rows("rating", user_id=here.me()) == []
    here.says(answer.text, reply_to=prompt)
    here.said("和原来的回答一样")
    here.says("这才是", reply_to=prompt)
    here.said("以你写的为准")
    assert [row["correction"] for row in here.rows("rating", user_id=here.me())] == ["这才是"]
    assert other.buttons


def test_in_a_group_the_bot_speaks_when_spoken_to(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("茶友", members=[here.alice, bob], bot_is_admin=True)
    here.says("大家好", chat=group)
    here.says("/new@other_bot", chat=group)
    asked = here.says("@huigan_bot 你好吗", chat=group)
    answer = here.answer(group)
    assert answer.reply_to is asked
    assert here.ollama.last("/api/chat").messages[-1]["content"] == "你好吗"
    asked_on = here.says("那你呢", chat=group, who=bob, reply_to=answer)
    second = here.answer(group, after=answer)
    assert second.reply_to is asked_on
    assert here.ollama.last("/api/chat").messages[1]["content"] == "你好吗"
    bob.presses(answer, "👎")
    here.wait(lambda: "不正确" in answer.buttons)
    here.alice.presses(answer, "👍")
    press = bob.presses(answer, "🔁")
    here.wait(lambda: press.answered)
    assert "只有提问的人" in press.answer
    bob.presses(answer, "✏️")
    prompt = here.said("Bob", group)
    assert [entity["user"]["id"] for entity in prompt.entities] == [bob.id]
    here.says("更好的", chat=group, who=bob, reply_to=prompt)
    here.said("以你写的为准", group)
    users = {row["external_id"]: row["id"] for row in here.rows("user")}
    assert [row["thumb"] for row in here.rows("rating", user_id=users[str(here.alice.id)])] == ["up"]
    assert here.rows("rating", user_id=users[str(bob.id)])[-1]["correction"] == "更好的"


def test_topics_of_a_forum_are_conversations_apart(here: World) -> None:
    forum = here.telegram.group("论坛", members=[here.alice], forum=True)
    threads = [here.telegram.topic(forum, name) for name in ("茶", "酒")]
    for thread in threads:
        here.says(f"@huigan_bot 这里是{thread}", chat=forum, thread=thread)
    here.wait(lambda: sum("👍" in each.buttons for each in forum.answers) == 2)
    assert {each.thread_id for each in forum.answers} == set(threads)
    assert {len(exchange.messages) for exchange in here.ollama.of("/api/chat")[-2:]} == {2}


def test_flood_control_and_a_bad_gateway_lose_no_tail_and_stall_nobody_else(here: World) -> None:
    words = "水满则溢。" * 20
    here.ollama.reply(words, token_seconds=0.02)
    here.says("慢慢说")
    growing = here.answer(button="⏹ 停止")
    here.wait(lambda: words.startswith(growing.text), about="the answer has begun")
    here.telegram.inject("editMessageText", status=429, retry_after=2)
    here.telegram.inject("editMessageText", status=502)
    here.telegram.drop("editMessageText")
    bob = here.telegram.user("Bob")
    here.says("快", who=bob, chat=here.telegram.private(bob))
    here.answer(here.telegram.private(bob))
    assert here.answer().text == words


def test_a_send_that_fails_is_tried_again(here: World) -> None:
    here.telegram.inject("sendMessage", status=429, retry_after=1)
    here.telegram.inject("sendMessage", status=500)
    here.telegram.drop("sendMessage")
    here.says("你好")
    here.answer()


def test_who_blocks_the_bot_midway_ends_only_their_own(here: World) -> None:
    here.ollama.reply(tokens=["一", "二", "三"], token_seconds=0.5)
    here.says("说")
    here.answer(button="⏹ 停止")
    here.alice.blocks()
    here.wait(lambda: here.rows("answer", text="一二三"))
    turn_id = here.rows("answer", text="一二三")[0]["turn_id"]
    here.wait(lambda: here.rows("showing", turn_id=turn_id)[0]["finished_at"])
    for call in here.telegram.refusals:
        assert "blocked by the user" in call.description
        call.injected = True  # it was this test that blocked


def test_a_message_too_deep_for_the_context_is_told_so(here: World) -> None:
    here.says("长" * 4000)
    failed = here.answer(button="🔁 重试")
    assert "太长了" in failed.text


def test_that_the_oldest_messages_are_left_out_is_said_once_until_a_new_conversation(here: World) -> None:
    shown: Message | None = None
    for number, words in enumerate(("一" * 1000, "二" * 1000, "三" * 1000, "/new", "四" * 1000)):
        here.says(words)
        if words == "/new":
            here.said("重新开始")
            continue
        shown = here.answer(after=shown)
        assert ("最早的 2 条" in shown.text) == (number == 1), shown.text[-100:]
    assert [row["dropped"] for row in here.mine("answer")] == [0, 2, 4, 0]
