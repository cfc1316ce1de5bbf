"""The fake's own time, so that what expires can be tested without waiting. It knows nothing of what expires."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Unix seconds that run `scale` times as fast as real ones and can be pushed forward."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._started_at = time.time()
        self._started_monotonic = time.monotonic()
        self._pushed_seconds = 0.0
        self._stands_at: float | None = None

    def now(self) -> float:
        if self._stands_at is not None:
            return self._stands_at
        return self._started_at + (time.monotonic() - self._started_monotonic) * self.scale + self._pushed_seconds

    def advance(self, seconds: float) -> None:
        self._pushed_seconds += seconds

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """For what happens within one second; only under the fake's lock, since it stands still for everybody."""
        self._stands_at = self.now()
        try:
            yield
        finally:
            self._stands_at = None


class StoppedClock(Clock):
    """Moves only when pushed."""

    def now(self) -> float:
        return self._pushed_seconds
