"""Telegram's flood limits. Telegram publishes no exact rule: this follows its FAQ (about one message a second in a
chat with short bursts allowed, 30 a second over all, 20 a minute in a group) and what bots report (edits count too, and
whoever goes on during a penalty keeps being refused). It knows chats only by id."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Literal

from .clock import Clock
from .refusals import Refusal, too_many_requests

Act = Literal["send", "edit", "draft"]


@dataclass(frozen=True)
class Limits:
    chat_per_second: float = 1.0
    chat_burst: int = 5
    draft_per_second: float = 2.0
    draft_burst: int = 5
    overall_per_second: int = 30
    group_per_minute: int = 20
    penalty_seconds: float = 3.0


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class FloodControl:
    """One bot's budget. `limits = None` lets everything through."""

    def __init__(self, clock: Clock, limits: Limits | None) -> None:
        self.clock = clock
        self.limits = limits
        self._buckets: dict[tuple[int, str], _Bucket] = {}
        self._group_acts: dict[int, deque[float]] = defaultdict(deque)
        self._acts: deque[float] = deque()
        self._blocked_until: dict[tuple[int, str], float] = {}

    def admit(self, chat_id: int, act: Act, *, is_group: bool) -> None:
        """Count one act, or raise the 429 that Telegram would answer."""
        if self.limits is None:
            return
        lane = (chat_id, "draft" if act == "draft" else "message")
        now = self.clock.now()
        wait_seconds = max(self._wait_in_chat(lane, now), self._wait_in_group(chat_id, now) if is_group else 0.0)
        wait_seconds = max(wait_seconds, self._wait_over_all(now))
        if wait_seconds > 0:
            self._blocked_until[lane] = max(self._blocked_until.get(lane, 0.0), now + wait_seconds)
            raise self._refusal(wait_seconds)
        self._count(lane, now, is_group=is_group)

    def _refusal(self, wait_seconds: float) -> Refusal:
        return too_many_requests(max(1, math.ceil(wait_seconds / self.clock.scale)))

    def _wait_in_chat(self, lane: tuple[int, str], now: float) -> float:
        assert self.limits is not None
        if (blocked_until := self._blocked_until.get(lane, 0.0)) > now:
            return blocked_until - now
        return 0.0 if self._bucket(lane, now).tokens >= 1 else self.limits.penalty_seconds

    def _bucket(self, lane: tuple[int, str], now: float) -> _Bucket:
        assert self.limits is not None
        is_draft = lane[1] == "draft"
        burst = self.limits.draft_burst if is_draft else self.limits.chat_burst
        per_second = self.limits.draft_per_second if is_draft else self.limits.chat_per_second
        bucket = self._buckets.setdefault(lane, _Bucket(burst, now))
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.filled_at) * per_second)
        bucket.filled_at = now
        return bucket

    def _wait_in_group(self, chat_id: int, now: float) -> float:
        assert self.limits is not None
        return _wait_for_room(self._group_acts[chat_id], now, self.limits.group_per_minute, window_seconds=60)

    def _wait_over_all(self, now: float) -> float:
        assert self.limits is not None
        return _wait_for_room(self._acts, now, self.limits.overall_per_second, window_seconds=1)

    def _count(self, lane: tuple[int, str], now: float, *, is_group: bool) -> None:
        self._bucket(lane, now).tokens -= 1
        self._acts.append(now)
        if is_group:
            self._group_acts[lane[0]].append(now)


def _wait_for_room(acts: deque[float], now: float, most: int, *, window_seconds: float) -> float:
    while acts and acts[0] <= now - window_seconds:
        acts.popleft()
    return acts[0] + window_seconds - now if len(acts) >= most else 0.0
