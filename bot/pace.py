"""How fast we may call Telegram: one pace a chat, so that a chat in its penalty stalls no other. Knows no content.

Telegram publishes no exact limits: about one message a second in a chat, 20 a minute in a group, 30 a second over all,
and edits count. Frames (states of an answer that a newer one replaces) go only where there is room to spare, and are
dropped otherwise; everything else waits its turn and is sent, however often Telegram says to retry later.

What only shows that something is under way (drafts, "typing") is counted by Telegram apart from messages: it has a pace
and a penalty of its own, so that it never holds up what must arrive.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from telegram.error import RetryAfter, TelegramError
from telegram.ext import BaseRateLimiter

logger = logging.getLogger(__name__)

FRAME = "frame"  # as `rate_limit_args`
REMEMBERED_CHATS = 4096
_LIMITED = ("send", "edit", "copy", "forward")
_DRAFT = "sendMessageDraft"
_FLEETING = (_DRAFT, "sendChatAction")


@dataclass(frozen=True)
class Limits:
    """A little below Telegram's: what we space out may arrive closer together."""

    per_second: float = 0.9
    start_burst: float = 1.0  # an earlier life may have used up the rest just now
    start_group_acts: int = 8  # of the first minute
    burst: float = 4.0
    group_per_minute: int = 18
    group_frames_per_minute: int = 10  # what frames may use of it
    private_frame_seconds: float = 1.2
    group_frame_seconds: float = 3.5
    draft_frame_seconds: float = 0.8
    draft_seconds: float = 20.0  # until a draft that has not changed is sent again: Telegram shows it for thirty
    overall_per_second: int = 25

    def part(self, among: int) -> Limits:
        """What each of so many processes may use up, at least one act at a time."""
        return Limits(
            per_second=self.per_second / among,
            start_burst=self.start_burst / among,
            start_group_acts=min(self.start_group_acts, max(1, self.group_per_minute // among) - 1),
            burst=max(1.0, self.burst / among),
            group_per_minute=max(1, self.group_per_minute // among),
            group_frames_per_minute=max(1, self.group_frames_per_minute // among),
            private_frame_seconds=self.private_frame_seconds,
            group_frame_seconds=self.group_frame_seconds,
            draft_frame_seconds=self.draft_frame_seconds,
            draft_seconds=self.draft_seconds,
            overall_per_second=max(2, self.overall_per_second // among),
        )


TELEGRAMS = Limits()


class FrameDropped(TelegramError):
    """There was no room for a frame; a newer one will come."""


@dataclass
class _Chat:
    limits: Limits
    is_group: bool
    tokens: float
    filled_at: float
    framed_at: float = float("-inf")
    blocked_until: float = float("-inf")
    drafted_at: float = float("-inf")
    fleeting_blocked_until: float = float("-inf")
    acts: deque[float] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # what must arrive, arrives in its order

    def wait_seconds(self, now: float, spare: float = 0.0) -> float:
        """Until one act may go and leave `spare` for others."""
        self.tokens = min(self.limits.burst, self.tokens + (now - self.filled_at) * self.limits.per_second)
        self.filled_at = now
        waits = [self.blocked_until - now, (1.0 + spare - self.tokens) / self.limits.per_second]
        if self.is_group:
            waits.append(self._minute(now, self.limits.group_per_minute))
        return max(0.0, *waits)

    def frame_wait_seconds(self, now: float) -> float:
        limits = self.limits
        gap = limits.group_frame_seconds if self.is_group else limits.private_frame_seconds
        waits = [self.framed_at + gap - now, self.wait_seconds(now, spare=0.5)]
        if self.is_group:
            waits.append(self._minute(now, limits.group_frames_per_minute))
        return max(waits)

    def draft_wait_seconds(self, now: float) -> float:
        return max(self.drafted_at + self.limits.draft_frame_seconds - now, self.fleeting_wait_seconds(now))

    def fleeting_wait_seconds(self, now: float) -> float:
        """A chat in any penalty gets nothing that only passes."""
        return max(self.blocked_until, self.fleeting_blocked_until) - now

    def _minute(self, now: float, most: int) -> float:
        while self.acts and self.acts[0] <= now - 60:
            self.acts.popleft()
        return self.acts[-most] + 60 - now if len(self.acts) >= most else 0.0

    def count(self, now: float) -> None:
        self.tokens -= 1
        if self.is_group:
            self.acts.append(now)

    def is_idle(self, now: float) -> bool:
        return not self.lock.locked() and self.wait_seconds(now, spare=self.limits.burst - 1) == 0 and not self.acts


class Pace(BaseRateLimiter[str]):
    def __init__(
        self,
        limits: Limits = TELEGRAMS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        throttled: Callable[[], object] = lambda: None,
    ) -> None:
        self._whole = self._limits = limits
        self._among = 1
        self._clock = clock
        self._sleep = sleep
        self._throttled = throttled
        self._chats: dict[str, _Chat] = {}
        self._began_at = clock()
        self._acts: deque[float] = deque([self._began_at] * limits.overall_per_second)

    async def initialize(self) -> None:
        """Nothing to do."""

    async def shutdown(self) -> None:
        """Nothing to do."""

    def share(self, among: int) -> None:
        """So many processes call with the same token: each keeps to its part."""
        if among == self._among:
            return
        self._among, self._limits = among, self._whole.part(among)
        for chat in self._chats.values():
            chat.limits = self._limits

    @property
    def draft_seconds(self) -> float:
        return self._limits.draft_seconds

    async def frame_room(self, chat_id: int | str, *, draft: bool = False) -> None:
        """Until a frame may be sent there: make it only then, so that it shows the newest state."""
        chat = self._chat(chat_id)
        while (wait_seconds := self._draft_wait(chat) if draft else self._frame_wait(chat)) > 0:
            await self._sleep(wait_seconds)

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Any]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: str | None,
    ) -> Any:
        chat_id = data.get("chat_id")
        if chat_id is None or not endpoint.startswith(_LIMITED):
            return await callback(*args, **kwargs)
        chat = self._chat(chat_id)
        if endpoint in _FLEETING:
            return await self._fleeting(chat, callback, args, kwargs, endpoint)
        if rate_limit_args == FRAME:
            return await self._frame(chat, callback, args, kwargs)
        async with chat.lock:
            while True:
                await self._room(chat)
                try:
                    return await callback(*args, **kwargs)
                except RetryAfter as error:
                    self._block(chat, error, endpoint)

    async def _frame(
        self, chat: _Chat, callback: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any
    ) -> Any:
        if self._frame_wait(chat) > 0:
            raise FrameDropped(str(FrameDropped.__doc__))
        chat.framed_at = self._count(chat)
        try:
            return await callback(*args, **kwargs)
        except RetryAfter as error:
            self._block(chat, error, "a frame")
            raise

    async def _fleeting(
        self, chat: _Chat, callback: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any, endpoint: str
    ) -> Any:
        now = self._clock()
        if (self._draft_wait(chat) if endpoint == _DRAFT else chat.fleeting_wait_seconds(now)) > 0:
            raise FrameDropped(str(FrameDropped.__doc__))
        if endpoint == _DRAFT:
            self._acts.append(now)
            chat.drafted_at = now
        try:
            return await callback(*args, **kwargs)
        except RetryAfter as error:
            chat.fleeting_blocked_until = self._until(error, endpoint)
            raise

    def _draft_wait(self, chat: _Chat) -> float:
        now = self._clock()
        return max(chat.draft_wait_seconds(now), self._overall_wait(now, self._limits.overall_per_second // 2))

    def _frame_wait(self, chat: _Chat) -> float:
        """A little while too where something that must arrive is waiting or under way."""
        now = self._clock()
        wait_seconds = max(chat.frame_wait_seconds(now), self._overall_wait(now, self._limits.overall_per_second // 2))
        return max(wait_seconds, 0.1) if chat.lock.locked() else wait_seconds

    async def _room(self, chat: _Chat) -> None:
        while True:
            now = self._clock()
            wait_seconds = max(chat.wait_seconds(now), self._overall_wait(now, self._limits.overall_per_second))
            if wait_seconds <= 0:
                self._count(chat)
                return
            await self._sleep(wait_seconds)

    def _overall_wait(self, now: float, most: int) -> float:
        while self._acts and self._acts[0] <= now - 1:
            self._acts.popleft()
        return self._acts[-most] + 1 - now if len(self._acts) >= most else 0.0

    def _count(self, chat: _Chat) -> float:
        now = self._clock()
        chat.count(now)
        self._acts.append(now)
        return now

    def _block(self, chat: _Chat, error: RetryAfter, what: str) -> None:
        chat.blocked_until = max(chat.blocked_until, self._until(error, what))

    def _until(self, error: RetryAfter, what: str) -> float:
        seconds = retry_seconds(error)
        self._throttled()
        logger.warning("Telegram asks one chat to wait %.0f s after %s", seconds, what)
        return self._clock() + seconds + 0.1

    def _chat(self, chat_id: int | str) -> _Chat:
        key, now = str(chat_id), self._clock()
        if key not in self._chats:
            if len(self._chats) >= REMEMBERED_CHATS:
                self._chats = {each: chat for each, chat in self._chats.items() if not chat.is_idle(now)}
            self._chats[key] = self._new_chat(key.startswith(("-", "@")), now)
        return self._chats[key]

    def _new_chat(self, is_group: bool, now: float) -> _Chat:
        limits, age_seconds = self._limits, now - self._began_at
        tokens = min(limits.burst, limits.start_burst + age_seconds * limits.per_second)
        acts = [self._began_at] * limits.start_group_acts if is_group and age_seconds < 60 else []
        return _Chat(limits, is_group, tokens, now, acts=deque(acts))


def retry_seconds(error: RetryAfter) -> float:
    """python-telegram-bot gives an int, with a warning, or a timedelta, by an environment variable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = error.retry_after
    return told.total_seconds() if isinstance(told, timedelta) else float(told)
