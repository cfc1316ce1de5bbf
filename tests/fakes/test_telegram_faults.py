"""Flood limits, ordered faults, and what a test is told when it waits in vain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from telegram import Bot
from telegram.error import Forbidden, NetworkError, RetryAfter, TimedOut

from tests.fakes.telegram import Chat, FakeTelegram, Limits, StoppedClock, ptb
from tests.fakes.telegram.floods import FloodControl
from tests.fakes.telegram.refusals import Refusal

pytestmark = pytest.mark.filterwarnings("ignore:.*attribute `retry_after` will be of type")


@pytest.fixture
def fake() -> Iterator[FakeTelegram]:
    with FakeTelegram().running() as fake:
        yield fake


@pytest.fixture
async def bot(fake: FakeTelegram) -> AsyncIterator[Bot]:
    async with ptb(fake) as bot:
        yield bot


@pytest.fixture
def chat(fake: FakeTelegram) -> Chat:
    return fake.private(fake.user("Alice"))


def refused_after(floods: FloodControl, chat_id: int, *, is_group: bool, every_seconds: float, most: int) -> int:
    """How many acts at this pace were admitted before the first 429; `most` if none came."""
    for done in range(most):
        try:
            floods.admit(chat_id, "edit" if done else "send", is_group=is_group)
        except Refusal:
            return done
        floods.clock.advance(every_seconds)
    return most


@pytest.mark.parametrize(
    ("is_group", "every_seconds", "admitted"),
    [
        (False, 0.0, 5),  # a burst
        (False, 1.2, 200),  # the pace our edits keep in private chats
        (True, 1.2, 20),  # too fast for a group: twenty a minute
        (True, 3.5, 200),  # the pace our edits keep in groups
    ],
)
def test_flood_limits_admit_the_paces_that_bots_report_as_safe(
    is_group: bool, every_seconds: float, admitted: int
) -> None:
    floods = FloodControl(StoppedClock(), Limits())
    assert refused_after(floods, 1, is_group=is_group, every_seconds=every_seconds, most=200) == admitted


def test_thirty_messages_a_second_over_all_chats_and_no_more() -> None:
    floods = FloodControl(StoppedClock(), Limits())
    for chat_id in range(30):
        floods.admit(chat_id, "send", is_group=False)
    with pytest.raises(Refusal, match="Too Many Requests: retry after 1"):
        floods.admit(31, "send", is_group=False)
    floods.clock.advance(1)
    floods.admit(31, "send", is_group=False)
    assert refused_after(floods, 31, is_group=False, every_seconds=0, most=9) == 4


def test_drafts_have_a_budget_of_their_own() -> None:
    floods = FloodControl(StoppedClock(), Limits())
    for _ in range(40):
        floods.admit(1, "draft", is_group=False)
        floods.clock.advance(0.5)
    assert refused_after(floods, 1, is_group=False, every_seconds=0, most=9) == 5


async def test_who_floods_a_chat_is_told_how_long_to_wait_and_waits_in_vain_for_less(
    fake: FakeTelegram, bot: Bot, chat: Chat
) -> None:
    other = fake.private(fake.user("Bob"))
    for number in range(5):
        await bot.send_message(chat.id, str(number))
    with pytest.raises(RetryAfter) as flood:
        await bot.send_message(chat.id, "5")
    assert flood.value._retry_after.total_seconds() == 3
    fake.clock.advance(1.5)
    with pytest.raises(RetryAfter):
        await bot.send_message(chat.id, "5")
    await bot.send_message(other.id, "0")
    fake.clock.advance(3)
    await bot.send_message(chat.id, "5")
    assert chat.texts == list("012345")
    assert [call.status for call in fake.refusals] == [429, 429]


async def test_an_ordered_429_strikes_as_often_as_ordered_and_is_no_fault_of_the_bot(
    fake: FakeTelegram, bot: Bot, chat: Chat
) -> None:
    fake.inject("sendMessage", status=429, retry_after=7, times=2)
    for _ in range(2):
        with pytest.raises(RetryAfter, match="Retry in 7 seconds"):
            await bot.send_message(chat.id, "你好")
    await bot.send_message(chat.id, "你好")
    assert chat.texts == ["你好"]
    assert fake.refusals == []
    assert [call.status for call in fake.calls_to("sendMessage")] == [429, 429, 200]


@pytest.mark.parametrize("status", [500, 502])
async def test_a_bad_gateway_answers_in_html(fake: FakeTelegram, bot: Bot, chat: Chat, status: int) -> None:
    fake.inject("sendMessage", status=status, after_effect=True)
    with pytest.raises(NetworkError, match=f"<html><head><title>{status} "):
        await bot.send_message(chat.id, "你好")
    assert chat.texts == ["你好"]  # it was sent all the same: a bot that sends again says it twice


async def test_a_refusal_may_be_ordered_with_its_text(fake: FakeTelegram, bot: Bot, chat: Chat) -> None:
    fake.inject("sendMessage", status=403, description="Forbidden: user is deactivated")
    with pytest.raises(Forbidden, match="user is deactivated"):
        await bot.send_message(chat.id, "你好")
    assert chat.texts == []


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_dropped_connection_tells_nothing_of_whether_the_call_took_effect(
    fake: FakeTelegram, bot: Bot, chat: Chat, after_effect: bool
) -> None:
    fake.drop("sendMessage", after_effect=after_effect)
    with pytest.raises(NetworkError, match="httpx"):
        await bot.send_message(chat.id, "你好")
    assert chat.texts == (["你好"] if after_effect else [])
    (call,) = fake.calls_to("sendMessage")
    assert (call.status, call.took_effect, call.injected) == (None, after_effect, True)


async def test_a_drop_of_anything_leaves_polling_alone(fake: FakeTelegram, bot: Bot) -> None:
    order = fake.drop()
    assert await bot.get_updates(timeout=0) == ()
    with pytest.raises(NetworkError):
        await bot.get_me()
    assert order.struck == 1
    fake.drop("getUpdates")
    with pytest.raises(NetworkError):
        await bot.get_updates(timeout=0)


async def test_a_slow_answer_is_a_timeout_for_the_impatient(fake: FakeTelegram, bot: Bot, chat: Chat) -> None:
    fake.delay("sendMessage", seconds=1, after_effect=True)
    with pytest.raises(TimedOut):
        await bot.send_message(chat.id, "你好", read_timeout=0.1)
    assert chat.texts == ["你好"]


async def test_waiting_in_vain_shows_what_happened_instead(fake: FakeTelegram, bot: Bot, chat: Chat) -> None:
    await bot.send_message(chat.id, "你好")
    with pytest.raises(AssertionError) as failure:
        fake.wait_for(lambda: len(chat.messages) == 2, timeout=0.1, about="a second message")
    told = str(failure.value)
    assert told.startswith("not within 0.1 s: a second message\nprivate 'Alice'")
    assert "1 BOT: '你好'" in told
    assert "sendMessage chat_id=" in told
    with pytest.raises(AssertionError, match="not within"):
        await fake.until(lambda: len(chat.messages) == 2, timeout=0.1)


def test_an_error_in_the_fake_itself_fails_the_test_that_met_it() -> None:
    fake = FakeTelegram()
    with pytest.raises(AssertionError, match="the fake itself is broken"), fake.running():
        fake.crashes.append(ZeroDivisionError())
