"""A person chats with the bot, which is a process of its own: asked, answered, rated, corrected, compared, stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.db import Database
from tests.bot.running import World, world


@pytest.fixture
def here(sqlite_db: Database, tmp_path: Path) -> Iterator[World]:
    with world(sqlite_db, tmp_path) as made:
        yield made
        assert made.refused() == []
        assert made.telegram.token not in made.logged()


def test_an_answer_is_streamed_rated_explained_corrected_and_compared(here: World) -> None:
    here.start()
    words = "回甘是先苦后甜的味道，**喝茶**的人都知道。" * 4
    here.ollama.reply(words, token_seconds=0.04)
    here.says("什么是回甘？")
    answer = here.answer()
    assert answer.text == words.replace("**", "")
    assert {entity["type"] for entity in answer.entities} == {"bold"}
    assert answer.edits >= 2, "it was seen growing"
    assert any(text and words.startswith(text) and text != words for text in answer.history[1:-1])

    here.alice.presses(answer, "👎")
    here.wait(lambda: "不正确" in answer.buttons and "👎 ✓" in answer.buttons)
    here.alice.presses(answer, "不正确")
    here.wait(lambda: "不正确" not in answer.buttons)
    here.alice.presses(answer, "✏️")
    prompt = here.said("请回复这条消息")
    here.says("苦尽甘来。", reply_to=prompt)
    here.said("以你写的为准")
    ratings = here.rows("rating")
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
    comparison = here.rows("comparison")[0]
    left = next(row for row in here.rows("answer") if row["id"] == comparison["left_answer_id"])
    assert question.text.index(left["text"][:5]) < question.text.index("【第二个】")
    assert comparison["pick"] == "left"
    assert comparison["left_answer_id"] != comparison["right_answer_id"]
    here.wait(lambda: all(row["handled_at"] for row in here.rows("update")))
    assert all(row["finished_at"] for row in here.rows("showing"))
    assert all(press.answered for press in here.telegram.presses)
