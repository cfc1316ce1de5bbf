"""Feedback at a thumb's distance: reactions, thumbs taken back, /fix and its edits, comparisons by themselves.

One bot serves the tests of this file; each brings its own people.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.places import source
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


def test_a_reaction_to_an_answer_that_grows_counts_once_it_stands(here: World) -> None:
    here.ollama.reply(tokens=["回", "甘"], stalls_after=1)
    here.says("慢慢说")
    growing = here.wait(lambda: next((each for each in here.chat.answers if "回" in each.text), None))
    here.alice.reacts(growing, "👎")
    here.alice.reacts(growing, "👍")
    here.wait(lambda: len(here.rows("update", handled_at=None)) == 2)
    here.ollama.resume()
    here.wait(lambda: "👍 ✓" in growing.buttons)
    here.settle()
    assert [row["thumb"] for row in here.mine("rating")] == ["down", "up"]


def test_in_a_group_the_same_thumb_once_more_takes_back_and_a_double_press_does_not(here: World) -> None:
    group = here.telegram.group("再按一次", members=[here.alice])
    here.says("@huigan_bot 你好", chat=group)
    answer = here.answer(group)
    buttons = answer.buttons

    def presses() -> str:
        press = here.alice.presses(answer, "👍")
        here.wait(lambda: press.answered)
        return press.answer

    twice = [here.alice.presses(answer, "👍") for _ in range(2)]
    here.wait(lambda: all(press.answered for press in twice))
    assert "再按一次就收回" in twice[1].answer
    here.wait(lambda: "已经收回了" in presses())
    assert "已经收回了" in presses(), "who pressed once too often has changed no mind"
    assert answer.buttons == buttons
    assert [row["thumb"] for row in here.mine("rating")] == ["up", "withdrawn"]


def test_a_correction_in_reply_to_the_prompt_marks_the_buttons(here: World) -> None:
    here.says("什么是回甘？")
    answer = here.answer()
    here.alice.presses(answer, "✏️")
    here.says("先苦后甘", reply_to=here.said("请回复这条消息"))
    here.wait(lambda: "👎 ✓" in answer.buttons)
    here.settle()
    assert "不正确" not in answer.buttons


def test_a_press_that_waits_is_answered_in_time(here: World) -> None:
    here.says("你好")
    answer = here.answer()
    here.settle()
    here.telegram.delay("getFile", seconds=3)
    document = here.alice.sends_document(here.chat, "茶.txt", "普洱".encode())
    press = here.alice.presses(answer, "🔁")
    here.wait(lambda: press.answered)
    assert not here.rows("message", source=source(here.chat.id, document.id)), "it is still behind the document"
    here.settle()


def test_forged_foreign_late_and_double_presses_do_no_harm(here: World) -> None:
    rng, mallory = random.Random(3), here.telegram.user("Mallory")
    own = here.telegram.private(mallory)
    here.says("你好")
    answer = here.answer()
    mallory.says(own, "你好")
    late = here.answer(own)
    here.settle()
    mallory.deletes(late)  # Telegram shows no buttons of it any more: only what they name is left to check
    tables = ("rating", "comparison", "turn", "message", "correction_prompt", "user", "chat", "outbox", "audit")
    theirs = {row["id"] for row in here.rows("answer")} - {int(late.keys[0]["callback_data"].split(":")[1])}
    before = [here.rows(each) for each in tables]
    ids = [*theirs, 0, 10**6, 10**17, 10**18 - 1]
    acts = (
        "up",
        "down",
        "undo",
        "why",
        "fix",
        "again",
        "retry",
        "stop",
        "pick",
        "edited",
        "promote",
        "reject",
        "refetch",
    )
    choices = ("", ":up", ":down", ":wrong", ":left", ":tie", ":nothing")
    shown = [key["callback_data"] for key in answer.keys]  # to Alice: what it says is in order, who says it is not
    presses = [mallory.forges_press(answer, each) for each in shown]
    for _ in range(200):
        named = "".join(f":{rng.choice(ids)}" for _ in range(rng.choice((0, 1, 1, 2))))
        data = rng.choice(acts) + named + rng.choice(choices)
        who, under = rng.choice(((mallory, late), (mallory, answer), (here.alice, late)))
        presses.append(who.forges_press(under, data))
    here.wait(lambda: all(press.answered for press in presses), timeout=30)
    here.settle()
    assert [here.rows(each) for each in tables] == before
    mallory.says(own, "还在吗？")
    here.answer(own, after=late)
    here.settle()
