"""The pace stays below Telegram's limits, drops frames and nothing else, and no chat waits for another.

Time is the test's: sleeping moves the clock, so that minutes pass at once.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest
from telegram.error import RetryAfter

from bot.pace import FRAME, FrameDropped, Limits, Pace, retry_seconds
from tests.fakes.telegram.clock import Clock as FakeClock
from tests.fakes.telegram.floods import FloodControl
from tests.fakes.telegram.floods import Limits as TelegramLimits
from tests.fakes.telegram.refusals import Refusal

PRIVATE, GROUP = 7, -7


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + max(seconds, 0.001), woken))
        await woken

    async def run(self, *work: Any) -> None:
        """Let everything run, moving the clock to the next sleeper whenever nothing else happens."""
        tasks = [asyncio.ensure_future(each) for each in work]
        while not all(task.done() for task in tasks):
            for _ in range(20):
                await asyncio.sleep(0)
            waiting = [each for each in self._sleepers if not each[1].done()]
            if waiting and not all(task.done() for task in tasks):
                at, woken = min(waiting, key=lambda each: each[0])
                self.now = max(self.now, at)
                woken.set_result(None)
            self._sleepers = [each for each in waiting if not each[1].done()]
        await asyncio.gather(*tasks)


class Telegram:
    """Floods as the fake Bot API counts them, on the test's time."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.control = FloodControl(_Ticking(time), TelegramLimits())
        self.taken: list[tuple[float, int, str]] = []
        self.refused = 0

    async def call(self, chat_id: int, what: str, act: str = "send") -> bool:
        try:
            self.control.admit(chat_id, act, is_group=chat_id < 0)  # type: ignore[arg-type]
        except Refusal as refusal:
            self.refused += 1
            raise RetryAfter(refusal.retry_after_seconds or 1) from refusal
        self.taken.append((self._time.now, chat_id, what))
        return True


class _Ticking(FakeClock):
    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def now(self) -> float:
        return self._time.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def telegram(time: Time) -> Telegram:
    return Telegram(time)


@pytest.fixture
def pace(time: Time) -> Pace:
    """One that has run for a while."""
    made = Pace(Limits(), time, time.sleep)
    time.now += 100
    return made


async def send(pace: Pace, telegram: Telegram, chat_id: int, what: str, how: str | None = None) -> Any:
    endpoint, act = ("editMessageText", "edit") if how == FRAME else ("sendMessage", "send")
    return await pace.process_request(telegram.call, (chat_id, what, act), {}, endpoint, {"chat_id": chat_id}, how)


@pytest.mark.parametrize("chat_id", [PRIVATE, GROUP])
async def test_a_burst_arrives_whole_in_order_and_unrefused(
    pace: Pace, telegram: Telegram, time: Time, chat_id: int
) -> None:
    await time.run(*(send(pace, telegram, chat_id, str(number)) for number in range(60)))
    assert [what for _, _, what in telegram.taken] == [str(number) for number in range(60)]
    assert telegram.refused == 0


@pytest.mark.parametrize(("chat_id", "gap"), [(PRIVATE, 1.2), (GROUP, 3.5)])
async def test_frames_keep_their_distance_and_leave_room_for_what_must_arrive(
    pace: Pace, telegram: Telegram, time: Time, chat_id: int, gap: float
) -> None:
    async def stream() -> None:
        for number in range(40):
            await pace.frame_room(chat_id)
            await send(pace, telegram, chat_id, f"frame {number}", FRAME)

    async def finals() -> None:
        for number in range(10):
            await time.sleep(7)
            before = time.now
            await send(pace, telegram, chat_id, f"final {number}")
            assert time.now - before < 4

    await time.run(stream(), finals())
    at = [moment for moment, _, what in telegram.taken if what.startswith("frame")]
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) >= gap - 1e-6
    assert sum(what.startswith("final") for _, _, what in telegram.taken) == 10
    assert telegram.refused == 0


async def test_a_frame_without_room_is_dropped_at_once(pace: Pace, telegram: Telegram, time: Time) -> None:
    await send(pace, telegram, PRIVATE, "one", FRAME)
    with pytest.raises(FrameDropped):
        await send(pace, telegram, PRIVATE, "two", FRAME)
    assert len(telegram.taken) == 1


@pytest.mark.parametrize("wait", [30, timedelta(seconds=30)])
async def test_a_penalty_holds_its_own_chat_and_no_other(
    pace: Pace, telegram: Telegram, time: Time, wait: int | timedelta
) -> None:
    refusals = [RetryAfter(wait)]
    at: dict[str, float] = {}

    async def call(chat_id: int, what: str) -> bool:
        if chat_id == PRIVATE and refusals:
            raise refusals.pop()
        at[what] = time.now
        return True

    async def one(chat_id: int, what: str) -> None:
        await pace.process_request(call, (chat_id, what), {}, "sendMessage", {"chat_id": chat_id}, None)

    start = time.now
    await time.run(one(PRIVATE, "held"), one(PRIVATE, "behind"), one(8, "other"))
    assert at["other"] == start
    assert start + 30 <= at["held"] <= at["behind"] <= start + 34


async def test_a_frame_that_meets_a_penalty_is_dropped_and_the_penalty_kept(
    pace: Pace, telegram: Telegram, time: Time
) -> None:
    async def refuse(*_: Any) -> bool:
        raise RetryAfter(20)

    with pytest.raises(RetryAfter):
        await pace.process_request(refuse, (), {}, "editMessageText", {"chat_id": PRIVATE}, FRAME)
    start = time.now
    await time.run(send(pace, telegram, PRIVATE, "final"))
    assert telegram.taken[0][0] >= start + 20


async def test_many_chats_together_stay_below_the_overall_limit(pace: Pace, telegram: Telegram, time: Time) -> None:
    await time.run(*(send(pace, telegram, 100 + number, "hello") for number in range(200)))
    assert len(telegram.taken) == 200
    assert telegram.refused == 0


async def test_what_telegram_does_not_limit_goes_at_once(pace: Pace, time: Time) -> None:
    async def call() -> bool:
        return True

    start = time.now
    for _ in range(50):
        await pace.process_request(call, (), {}, "answerCallbackQuery", {"callback_query_id": "1"}, None)
    assert time.now == start


def test_retry_after_is_read_as_an_int_or_a_timedelta(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retry_seconds(RetryAfter(3)) == 3
    monkeypatch.setenv("PTB_TIMEDELTA", "true")
    assert retry_seconds(RetryAfter(timedelta(seconds=2.5))) == 2.5


@pytest.mark.parametrize("chat_id", [PRIVATE, GROUP])
async def test_a_restart_amid_a_burst_goes_on_carefully(telegram: Telegram, time: Time, chat_id: int) -> None:
    for life in range(2):
        pace = Pace(Limits(), time, time.sleep)
        await time.run(*(send(pace, telegram, chat_id, f"{life} {number}") for number in range(4)))
    assert len(telegram.taken) == 8
    assert telegram.refused == 0


async def test_drafts_keep_a_distance_of_their_own_and_their_penalty_holds_up_no_message(
    pace: Pace, telegram: Telegram, time: Time
) -> None:
    async def draft(what: str) -> Any:
        args = (PRIVATE, what, "draft")
        return await pace.process_request(telegram.call, args, {}, "sendMessageDraft", {"chat_id": PRIVATE}, None)

    async def stream() -> None:
        for number in range(40):
            await pace.frame_room(PRIVATE, draft=True)
            await draft(f"draft {number}")

    await time.run(stream())
    at = [moment for moment, _, _ in telegram.taken]
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) >= 0.8 - 1e-6
    assert telegram.refused == 0

    async def refuse(*_: Any) -> bool:
        raise RetryAfter(600)

    time.now += 1
    with pytest.raises(RetryAfter):
        await pace.process_request(refuse, (), {}, "sendMessageDraft", {"chat_id": PRIVATE}, None)
    with pytest.raises(FrameDropped):
        await draft("during the penalty")
    start = time.now
    await time.run(send(pace, telegram, PRIVATE, "final"))
    assert telegram.taken[-1][0] == start
