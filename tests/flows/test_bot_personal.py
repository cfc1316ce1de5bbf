"""What concerns one person or one chat: language, privacy, export, erasure, /why, personas, shared conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


def asked(here: World) -> dict[str, Any]:
    """The newest request that Ollama got for an answer."""
    request = here.ollama.last("/api/chat").json
    assert request is not None
    return request


def answered(here: World, text: str, **how: Any) -> Any:
    here.says(text, **how)
    answer = here.said(f"You said: {text}", how.get("chat"))
    here.wait(lambda: "👍" in answer.buttons, about="the answer is whole")
    return answer


def test_a_language_is_chosen_and_kept_until_it_is_left_to_telegram_again(here: World) -> None:
    here.says("/lang")
    here.alice.presses(here.said("用哪种语言"), "English")
    here.said("English from now on")
    here.says("/id")
    here.said("Your id")
    here.says("/lang")
    here.alice.presses(here.said("Which language"), "Same as Telegram")
    here.said("以后用简体中文")


def test_in_a_group_only_those_who_run_it_choose(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("茶友", members=[here.alice, bob])
    here.says("/lang", chat=group, who=bob)
    asking = here.said("用哪种语言", group)
    press = bob.presses(asking, "English")
    here.wait(lambda: "群管理员" in press.answer)
    here.alice.presses(asking, "English")
    here.said("English from now on", group)
    here.says("/scope", chat=group, who=bob)
    here.said("How do you want to talk", group)


def test_what_is_kept_is_exported_and_then_forgotten(here: World) -> None:
    answered(here, "我的秘密")
    here.says("/privacy")
    here.said("还没有问过你")
    here.says("/export")
    document = here.wait(lambda: next((each for each in here.telegram.files.values() if "huigan" in each.name), None))
    kept = json.loads(document.content)
    assert [each["text"] for each in kept["conversations"][0]["messages"]] == ["我的秘密"]
    here.says("/forget")
    asking = here.said("要删除你的一切吗")
    me = here.me()
    here.alice.presses(asking, "保留")
    here.said("一切照旧")
    here.alice.presses(asking, "🗑 全部删除")
    here.said("已删除：1 条消息")
    assert here.rows("message", user_id=me) == []
    answered(here, "初次见面")
    assert here.me() != me


def test_why_names_the_release_of_the_answer_replied_to_and_of_the_newest(here: World) -> None:
    here.says("/why")
    here.said("还没有我的回答")
    answer = answered(here, "一")
    here.says("/why")
    here.said("第 1 版（huigan:base-1）")
    here.says("/why", reply_to=answer)
    here.wait(lambda: sum("看到了 1 条消息" in each.text for each in here.chat.answers) == 2)
    forum = here.telegram.group("茶坛", members=[here.alice], forum=True)
    topic = here.telegram.topic(forum, "茶")
    here.says("@huigan_bot 二", chat=forum, thread=topic)
    here.answer(forum)
    here.says("/why", chat=forum, thread=topic)
    here.said("看到了 1 条消息", forum)


def test_a_persona_and_a_system_prompt_reach_the_release_and_go_again(here: World) -> None:
    here.says("/persona")
    here.alice.presses(here.said("想让我是谁"), "翻译")
    here.said("现在是：翻译")
    answered(here, "早上好")
    assert "严谨的翻译" in asked(here)["messages"][0]["content"]
    here.says("/system 只用一个字回答")
    here.said("以后用这段系统提示")
    answered(here, "晚上好")
    assert asked(here)["messages"][0]["content"] == "只用一个字回答"
    here.says("/system")
    here.said("只用一个字回答")
    here.says("/system off")
    here.said("换回默认")
    answered(here, "再见")
    assert asked(here)["messages"][0]["content"] == "你是回甘。"


def test_a_group_that_shares_a_conversation_is_answered_with_what_all_said(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("一起", members=[here.alice, bob])
    here.says("/scope", chat=group)
    here.alice.presses(here.said("怎样跟我聊", group), "一起聊")
    here.said("大家共用一个对话", group)
    here.says("@huigan_bot 我叫爱丽丝", chat=group)
    here.said("You said: 我叫爱丽丝", group)
    here.says("@huigan_bot 她叫什么", chat=group, who=bob)
    here.said("You said: 她叫什么", group)
    assert "我叫爱丽丝" in [each["content"] for each in asked(here)["messages"]]
