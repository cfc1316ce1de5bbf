"""What goes wrong again and again is told when it begins, once an hour while it lasts, and when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.exc import DBAPIError

from storage.db import AWAY

AGAIN_SECONDS = 3600.0


class Outage:
    """Around each time that an act is done which will be done again: nothing goes further than to here. `what` names
    the act in the log."""

    def __init__(self, what: str, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._logger, self._clock = what, logger, clock
        self._kind: tuple[str, ...] | None = None
        self._told_at = 0.0

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if error is None:
            self.over()
        if not isinstance(error, Exception):  # an end of the process passes
            return False
        self.tell(error)
        return True

    def tell(self, error: Exception) -> None:
        """Another kind of failure is another outage."""
        kind, now = kind_of(error), self._clock()
        if kind == self._kind and now - self._told_at < AGAIN_SECONDS:
            return
        self._kind, self._told_at = kind, now
        if isinstance(error, AWAY):  # it may be back at any time, and no line of ours is at fault
            said = str(error.orig).strip().partition("\n")[0]
            self._logger.error("the database cannot be used, %s is tried again and again: %s", self._what, said)
        else:
            self._logger.error("%s failed and is tried again and again", self._what, exc_info=error)

    def over(self) -> None:
        if self._kind is not None:
            self._logger.info("%s succeeds again", self._what)
        self._kind = None


def kind_of(error: Exception) -> tuple[str, ...]:
    names = [type(error).__name__]
    return (*names, type(error.orig).__name__) if isinstance(error, DBAPIError) else (*names,)
