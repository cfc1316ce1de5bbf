"""The fake's own time, so that what expires can be tested without waiting. It knows nothing of what expires."""

from __future__ import annotations

import time


class Clock:
    """Unix seconds that run `scale` times as fast as real ones and can be pushed forward."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._started_at = time.time()
        self._started_monotonic = time.monotonic()
        self._pushed_seconds = 0.0

    def now(self) -> float:
        return self._started_at + (time.monotonic() - self._started_monotonic) * self.scale + self._pushed_seconds

    def advance(self, seconds: float) -> None:
        self._pushed_seconds += seconds


class StoppedClock(Clock):
    """Moves only when pushed."""

    def now(self) -> float:
        return self._pushed_seconds
