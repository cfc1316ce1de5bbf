"""Signs of life of one process, and what it alone can count. Knows not whose they are."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

STUCK_SECONDS = 120.0  # without a beat: whatever beats does so several times a minute


class Signs:
    """Any thread may beat or count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._throttlings = itertools.count()
        self.times_throttled = 0

    def beat(self) -> None:
        self._beat_at = self._clock()

    def throttled(self) -> None:
        """Telegram asked us to wait."""
        self.times_throttled = next(self._throttlings) + 1

    @property
    def quiet_seconds(self) -> float:
        return self._clock() - self._beat_at

    @property
    def is_alive(self) -> bool:
        return self.quiet_seconds < STUCK_SECONDS
