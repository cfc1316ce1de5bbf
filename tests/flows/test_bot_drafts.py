"""In private chats answers grow in drafts: seen growing, stopped by Telegram's own button, and every answer delivered
once, also where the server knows no drafts, refuses one for a while, or the bot is killed amid one.

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
from tests.fakes.telegram.world import DRAFT_SECONDS, Draft


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot"), drafts=True) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    with running.met(shared) as made:
        yield made


def drafted(here: World, text: str) -> Draft:
    """The draft on Alice's screen that shows this."""
    found = here.wait(lambda: next((each for each in here.chat.drafts if each.text == text), None), about=text)
    assert isinstance(found, Draft)
    return found


def test_an_answer_grows_in_a_draft_and_is_then_a_message_with_buttons(here: World) -> None:
    words = "回甘是**先苦后甜**的味道。" * 6
    here.ollama.reply(words, token_seconds=0.04)
    here.says("什么是回甘？")
    answer = here.answer()
    [draft] = here.chat.all_drafts
    assert draft.can_stop
    assert len([frame for frame in draft.frames if frame.startswith("回甘")]) >= 2, "it was seen growing"
    assert answer.text == words.replace("**", "")
    assert answer.buttons == ["👍", "👎", "✏️", "🔁"]
    assert answer.edits == 0
    assert here.chat.answers == [answer]
    here.wait(lambda: here.chat.drafts == [], about="the message takes its place")


def test_telegrams_stop_button_ends_the_answer_also_after_a_kill(here: World) -> None:
    here.ollama.reply(tokens=["好", "的", "，", "我"], stalls_after=3)
    here.says("讲个故事")
    drafted(here, "好的，")
    here.alice.stops_draft(here.chat)
    assert here.answer().text == "好的，\n\n（已停止）"
    here.wait(lambda: here.ollama.last("/api/chat").ended == "disconnected")
    here.settle()
    here.kill()
    stopped = {"chat": here.chat.as_json(), "draft_id": here.mine("turn")[0]["id"]}
    update_id = max(row["update_id"] for row in here.rows("update")) + 1000
    stored = {"update_id": update_id, "stopped_message_generation": stopped}
    here.db.write(updates.store, update_id, stored, datetime.now(UTC))  # and killed before it was handled
    here.start()
    here.wait(lambda: here.rows("update", update_id=update_id)[0]["handled_at"], about="one too late does no harm")


def test_a_draft_cut_off_by_a_kill_ends_as_one_message_that_says_so(here: World) -> None:
    here.ollama.reply(tokens=["一", "二", "三"], stalls_after=2)
    here.says("数到三")
    drafted(here, "一二")
    here.wait(lambda: here.mine("turn", text="一二"), about="a checkpoint")
    here.says("还有呢")
    here.wait(lambda: len(here.mine("turn")) == 2)
    here.kill()
    here.start()
    here.said("You said: 还有呢")
    here.settle()
    assert [each.text.partition("\n\n")[0] for each in here.chat.answers] == ["一二", "You said: 还有呢"]
    assert "重启" in here.chat.answers[0].text
    assert here.chat.answers[0].buttons == ["👍", "👎", "✏️", "🔁 重试"]


def test_an_answer_that_was_recorded_and_not_sent_is_sent_after_a_kill_once(here: World) -> None:
    fault = here.telegram.inject("sendMessage", status=502, times=1000)
    here.ollama.reply("好的")
    here.says("在吗")
    here.wait(lambda: here.rows("answer", text="好的"), about="the answer is recorded")
    here.kill()
    fault.times = 0
    here.start()
    assert here.answer().text == "好的"
    here.settle()
    assert [each.text for each in here.chat.answers] == ["好的"]


def test_a_draft_that_is_refused_for_a_while_holds_up_no_answer(here: World) -> None:
    here.telegram.inject("sendMessageDraft", status=429, retry_after=600)
    here.telegram.inject("sendChatAction", status=429, retry_after=600)
    words = "水满则溢。" * 10
    here.ollama.reply(words, token_seconds=0.02)
    here.says("慢慢说")
    assert here.answer().text == words
    assert here.chat.all_drafts == []
    assert here.answer().edits == 0


def test_a_long_answer_is_sent_in_parts_with_buttons_under_the_last(here: World) -> None:
    paragraphs = [f"第 {number} 段：" + "茶" * 1500 for number in range(6)]
    words = "\n\n".join(paragraphs)
    here.ollama.reply(tokens=[f"{each}\n\n" for each in paragraphs], token_seconds=0.3)
    here.says("写长一点")
    here.answer()
    here.settle()
    parts = here.chat.answers
    assert "\n\n".join(each.text for each in parts) == words
    assert [bool(each.buttons) for each in parts] == [False] * (len(parts) - 1) + [True]


PARAGRAPHS = [f"第 {number} 段：" + "茶" * 1500 for number in range(4)]
ENOUGH = 4  # tokens, after which the first message is known to be done
TOKENS = [f"{PARAGRAPHS[0]}\n\n{PARAGRAPHS[1]}\n\n", f"{PARAGRAPHS[2]}\n\n", f"{PARAGRAPHS[3]}\n\n", "终", "了"]


def test_what_outgrows_a_message_is_done_and_the_rest_grows_below_also_after_a_kill(here: World) -> None:
    """In a private chat in a draft, in a group in a next message."""
    group = here.telegram.group("茶友", members=[here.alice])
    for chat, words in ((here.chat, "写长一点"), (group, "@huigan_bot 写长一点")):
        here.ollama.reply(tokens=TOKENS, stalls_after=ENOUGH)
        here.says(words, chat=chat)
        here.wait(lambda: here.ollama.of("/api/chat")[-1].tokens_sent == ENOUGH)
    done, rest = ("\n\n".join(each) for each in (PARAGRAPHS[:2], [*PARAGRAPHS[2:], "终"]))
    first = here.said(done)
    drafted(here, rest)
    here.wait(lambda: [each.text for each in group.answers] == [done, rest], about="a second message")
    assert [each.buttons for each in (first, *group.answers)] == [[], [], ["⏹ 停止"]]
    for stands in (f"{first.id},", ",".join(str(each.id) for each in group.answers)):
        here.wait(lambda stands=stands: any(row["message"] == stands for row in here.mine("showing")), about=stands)
    here.wait(lambda: all(turn["tag"] and turn["text"].endswith("终") for turn in here.mine("turn")))
    here.kill()
    here.start()
    here.wait(lambda: all(len(each.answers) == 2 and "重启" in each.answers[1].text for each in (here.chat, group)))
    here.settle()
    for chat in (here.chat, group):
        one, two = chat.answers
        assert one.text == done
        assert two.text.startswith(rest)
        delivered = [row["message"] for row in here.rows("delivery", chat=str(chat.id))]
        assert delivered == [str(one.id), str(two.id)]


def test_the_next_question_shows_its_place_in_the_queue_and_can_be_stopped_there(here: World) -> None:
    here.ollama.reply(tokens=["好", "的", "，", "我"], stalls_after=3)
    here.says("讲个故事")
    drafted(here, "好的，")
    here.says("还有呢")
    here.wait(lambda: any("排队中" in each.text for each in here.chat.drafts), about="its place in the queue")
    here.alice.stops_draft(here.chat)
    here.wait(lambda: [turn["ended"] for turn in here.mine("turn")] == [None, "withdrawn"])
    here.alice.stops_draft(here.chat)
    here.wait(lambda: len(here.chat.answers) == 2, about="both end, in their order")
    assert [each.text for each in here.chat.answers] == ["好的，\n\n（已停止）", "（已停止）"]


def test_a_draft_that_does_not_change_stays_on_the_screen(here: World) -> None:
    here.ollama.reply(tokens=["好", "的", "，", "我"], stalls_after=3)
    here.says("讲个故事")
    drafted(here, "好的，")
    here.telegram.clock.advance(DRAFT_SECONDS + 1)
    assert here.chat.drafts == []
    drafted(here, "好的，")
    here.alice.stops_draft(here.chat)
    here.answer()


def test_groups_have_no_drafts(here: World) -> None:
    group = here.telegram.group("茶友", members=[here.alice])
    here.says("@huigan_bot 你好", chat=group)
    here.answer(group)
    assert group.all_drafts == []


def test_a_server_that_knows_no_drafts_gets_messages_that_are_edited_from_then_on(here: World) -> None:
    here.telegram.knows_drafts = False
    for question in ("一问", "二问"):
        here.ollama.reply("慢慢来。" * 8, token_seconds=0.05)
        here.says(question)
        here.wait(lambda: any("⏹ 停止" in each.buttons for each in here.chat.answers), about="a message that grows")
        here.wait(lambda: here.chat.answers[-1].buttons == ["👍", "👎", "✏️", "🔁"])
    asked = [call for call in here.telegram.refusals if call.method == "sendMessageDraft"]
    assert len(asked) == 1
    asked[0].injected = True  # how a server shows that it is old
    assert [each.text for each in here.chat.answers] == ["慢慢来。" * 8] * 2
    assert here.telegram.token not in here.logged()
