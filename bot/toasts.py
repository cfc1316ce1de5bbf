"""Answers to presses: each once, and in time. Whatever a press has to wait for (what its person said before, a pace, a
database under load), it is answered without words by then: Telegram forgets it after ten to fifteen seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from telegram import CallbackQuery
from telegram.error import TelegramError

logger = logging.getLogger(__name__)

WITHIN_SECONDS = 2.0  # from its arrival; more words are worth no longer wait
LOOK_SECONDS = 0.5
REMEMBERED_PRESSES = 4096
MAX_CHARACTERS = 200


class Toasts:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrived: dict[str, tuple[CallbackQuery, float]] = {}  # and not answered yet
        self._answered: OrderedDict[str, None] = OrderedDict()

    def expect(self, query: CallbackQuery) -> None:
        """It has arrived."""
        if query.id not in self._answered:
            self._arrived.setdefault(query.id, (query, self._clock()))

    def give_up(self, query: CallbackQuery) -> None:
        """Of an earlier life of the process: it was answered then, or Telegram has forgotten it."""
        self._arrived.pop(query.id, None)
        self._answered[query.id] = None
        if len(self._answered) > REMEMBERED_PRESSES:
            self._answered.popitem(last=False)

    async def say(self, query: CallbackQuery, words: str) -> bool:
        """Whether the words are seen: nothing is said where it is answered already, or forgotten."""
        if query.id in self._answered:
            return False
        self.give_up(query)
        try:
            await query.answer(words[:MAX_CHARACTERS] or None)
        except TelegramError as error:
            logger.info("a press was not answered: %s", error)
            return False
        return True

    async def look(self) -> None:
        """Call every LOOK_SECONDS."""
        before = self._clock() - WITHIN_SECONDS
        late = [query for query, arrived in self._arrived.values() if arrived <= before]
        await asyncio.gather(*(self.say(query, "") for query in late))
