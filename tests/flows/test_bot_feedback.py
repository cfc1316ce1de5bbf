"""Feedback at a thumb's distance: reactions, thumbs taken back, /fix and its edits, comparisons by themselves.

One bot serves the tests of this file; each brings its own people.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from huigan.turns import sampling
from storage import users
from storage.records import Role
from tests.bot import running
from tests.bot.running import World


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


def test_reactions_are_ratings_and_mark_the_buttons_in_a_private_chat(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    here.settle()
    here.alice.reacts(answer, "❤")
    here.wait(lambda: "👍 ✓" in answer.buttons)
    here.alice.reacts(answer, "👎")
    here.wait(lambda: {"👎 ✓", "不正确", "✏️ 我来写"} <= set(answer.buttons))
    here.alice.presses(answer, "不正确")
    here.wait(lambda: "不正确" not in answer.buttons)
    here.alice.presses(answer, "👍")
    here.wait(lambda: "👍 ✓" in answer.buttons)
    here.alice.reacts(answer)  # 👎 is taken back, which is not what she says any more
    here.alice.reacts(answer, "🤔")
    here.alice.reacts(answer, "👍")
    here.alice.reacts(answer)
    here.wait(lambda: "👍 ✓" not in answer.buttons)
    assert [row["thumb"] for row in here.mine("rating")] == ["up", "down", "down", "up", "withdrawn"]


def test_the_marked_thumb_takes_back_and_a_double_press_does_not(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    here.alice.presses(answer, "👍")
    here.alice.presses(answer, "👍")
    here.wait(lambda: "👍 ✓" in answer.buttons)
    here.settle()
    soon = here.alice.presses(answer, "👍 ✓")
    here.wait(lambda: soon.answered)
    here.settle()
    assert [row["thumb"] for row in here.mine("rating")] == ["up"]

    def is_taken() -> bool:
        if "👍 ✓" in answer.buttons:
            here.alice.presses(answer, "👍 ✓")
            here.settle()
        return "👍 ✓" not in answer.buttons

    here.wait(is_taken)
    assert [row["thumb"] for row in here.mine("rating")] == ["up", "withdrawn"]


def test_in_a_group_reactions_of_several_count_and_foreign_ones_do_not(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("茶馆", members=[here.alice, bob])
    here.alice.promotes_bot(group)
    question = here.says("@huigan_bot 你好", chat=group)
    answer = here.answer(group)
    here.settle()
    buttons = answer.buttons
    bob.reacts(question, "👎")
    bob.reacts(answer, "👎")
    here.alice.reacts(answer, "👍")
    bob.reacts(answer, "💯", anonymously=True)
    here.wait(lambda: len(here.rows("rating", answer_id=int(answer.keys[0]["callback_data"].split(":")[1]))) == 2)
    here.settle()
    assert answer.buttons == buttons
    assert [row["thumb"] for row in here.mine("rating")] == ["up"]


def test_fix_in_reply_corrects_and_its_edits_change_the_text(here: World) -> None:
    here.says("什么是回甘？")
    answer = here.answer()
    here.says("/fix")
    here.said("请回复一条回答")
    fix = here.says("/fix 先苦\n后甜", reply_to=answer)
    here.said("以你写的为准")
    here.wait(lambda: "👎 ✓" in answer.buttons)
    here.alice.edits(fix, "/fix 先苦后甘")
    here.wait(lambda: len(here.mine("rating")) == 2)
    here.says("/fix", reply_to=answer)
    prompt = here.said("请回复这条消息")
    reply = here.says("苦尽甘来", reply_to=prompt)
    here.wait(lambda: len(here.mine("rating")) == 3)
    here.alice.edits(reply, "苦尽甘来。")
    here.wait(lambda: len(here.mine("rating")) == 4)
    here.alice.edits(reply, "苦尽甘来。")
    here.settle()
    assert [row["correction"] for row in here.mine("rating")] == ["先苦\n后甜", "先苦后甘", "苦尽甘来", "苦尽甘来。"]


def test_at_the_admins_rate_a_second_answer_is_offered_and_not_twice_in_a_row(here: World) -> None:
    here.says("/id")
    here.says("你好")
    first = here.answer()
    here.settle()
    here.db.write(users.consent, here.me(), datetime.now(UTC))
    here.db.write(sampling.set_rate, 1.0, None, datetime.now(UTC))
    try:
        here.ollama.reply("甲")
        here.ollama.reply("乙")
        here.says("第二问")
        offer = here.said("我主动多答了一次")
        here.alice.presses(offer, "差不多")
        here.wait(lambda: "差不多 ✓" in offer.buttons)
        here.says("第三问")
        here.answer(after=offer)
        here.settle()
    finally:
        here.db.write(sampling.set_rate, 0.0, None, datetime.now(UTC))
    assert first.id < offer.id
    assert [row["sampled"] for row in here.mine("turn")].count(1) == 1
    picked = here.mine("comparison")
    [offered] = here.rows("comparison_offer", left_answer_id=picked[0]["left_answer_id"])
    assert (offered["why"], offered["right_answer_id"]) == ("sampled", picked[0]["right_answer_id"])


def test_feedback_tells_what_counts_and_that_nothing_is_learnt_without_consent(here: World) -> None:
    here.says("/feedback")
    here.said("还没有评价过")
    here.says("你好")
    answer = here.answer()
    here.alice.presses(answer, "👍")
    here.wait(lambda: "👍 ✓" in answer.buttons)
    here.says("/feedback")
    assert "没有同意" in here.said("你的反馈：👍 1").text
    here.db.write(users.consent, here.me(), datetime.now(UTC))
    here.says("/feedback")
    here.said("还没有用到：👍 1")


def test_an_admin_sets_the_rate_of_comparisons_and_others_do_not(here: World) -> None:
    here.says("/compare_rate 0.5")
    here.said("只有管理员")
    here.db.write(users.set_role, here.me(), Role.ADMIN)
    here.says("/compare_rate 2")
    here.said("用法：/compare_rate")
    here.says("/compare_rate 0")
    here.said("0% 的机会")
    assert [row["user_id"] for row in here.rows("audit", act="comparison.rate")][-1] == here.me()
    here.db.write(users.set_role, here.me(), Role.USER)


def test_two_people_who_press_at_once_in_a_group_change_the_buttons_once(here: World) -> None:
    bob = here.telegram.user("Bob")
    group = here.telegram.group("一起评", members=[here.alice, bob])
    here.says("@huigan_bot 你好", chat=group)
    answer = here.answer(group)
    here.telegram.delay("editMessageReplyMarkup", seconds=0.5)
    calls = len(here.telegram.calls_to("editMessageReplyMarkup"))
    presses = [who.presses(answer, "👎") for who in (here.alice, bob)]
    here.wait(lambda: all(press.answered for press in presses))
    here.wait(lambda: "不正确" in answer.buttons)
    here.settle()
    assert len(here.rows("rating", thumb="down")) >= 2
    assert len(here.telegram.calls_to("editMessageReplyMarkup")) == calls + 1
