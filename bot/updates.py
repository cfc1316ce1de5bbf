"""Updates are stored before Telegram is told that we have them, handled in order, and replayed after a kill.

python-telegram-bot confirms a batch once `put` returned for each update of it, and its webhook answers 200 then: so
`put` is where they are stored. Several processes may receive for one bot, where they share a PostgreSQL: the database
keeps the order of what one person says in one place, and what a killed process had is taken over by another. What is
to stop something does not wait behind it, nor does a rating.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from telegram import Bot, Message, Update
from telegram.error import NetworkError
from telegram.ext import BaseUpdateProcessor

from bot.keyboards import parse
from bot.toasts import Toasts
from huigan import logs
from storage import updates
from storage.db import AWAY, Database
from storage.updates import Place

logger = logging.getLogger(__name__)

CONCURRENT_UPDATES = 256
STOPPED = "stopped_message_generation"  # a kind of update that python-telegram-bot does not know
STOP = re.compile(r"/stop(@\w+)?(\s|$)", re.IGNORECASE)
RATINGS = ("up", "down", "undo", "why", "pick")
BEHIND_SECONDS = 0.2  # between looks whether another process has handled what comes first
# After the first failure, the second, and so on; what then fails still is left as any other failure is: some minutes.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0)


class StoredQueue(asyncio.Queue[object]):
    def __init__(self, db: Database, worker: str, lost_seconds: float, toasts: Toasts) -> None:
        """Without a beat for `lost_seconds`, another process is taken for dead."""
        super().__init__()
        self._db = db
        self._worker = worker
        self._lost = timedelta(seconds=lost_seconds)
        self._toasts = toasts
        self.kept: set[int] = set()  # ids of what is not done with once its handler returns; it marks them itself
        self.replayed: set[int] = set()  # ids; what answers at once was perhaps answered before the kill
        self._failures: Counter[int] = Counter()  # by id, while the database was away
        self._again: set[int] = set()

    async def put(self, item: object) -> None:
        """Raises NetworkError where the database does not take it: the poller asks again, the webhook answers 500."""
        if isinstance(item, Update):
            at, whose = datetime.now(UTC), {"key": key_of(item), "worker": self._worker}
            try:
                is_new = await self._db.awrite(updates.store, item.update_id, item.to_dict(), at, **whose)
            except SQLAlchemyError as error:
                raise NetworkError(f"an update could not be stored: {type(error).__name__}") from error
            if not is_new:
                return
            if item.callback_query is not None:
                self._toasts.expect(item.callback_query)
        await super().put(item)

    def failed(self, update: Update, error: BaseException | None) -> bool:
        """Whether it will be tried again: the database was away, which passes, and it is not too often so."""
        failures = self._failures[update.update_id]
        if not isinstance(error, AWAY) or failures >= len(PAUSES_SECONDS):
            return False
        self._failures[update.update_id] += 1
        self._again.add(update.update_id)
        return True

    def is_over(self, update: Update) -> bool:
        """After its handlers returned. Else it comes again by itself: it is open, so what is behind it in its place
        waits, and its handlers meet it as they meet what is replayed after a kill."""
        if update.update_id not in self._again:
            self._failures.pop(update.update_id, None)
            return True
        self._again.discard(update.update_id)
        self.replayed.add(update.update_id)
        pause = PAUSES_SECONDS[self._failures[update.update_id] - 1]
        logger.warning("the database is away: update %d is tried again in %.1f s", update.update_id, pause)
        asyncio.get_running_loop().call_later(pause, self.put_nowait, update)
        return False

    async def replay(self, bot: Bot) -> int:
        """At the start, before anything new comes: queue what was stored and not handled."""
        return await self._adopt(bot, datetime.now(UTC) - self._lost if self._db.is_shared else None)

    async def keep(self, bot: Bot) -> None:
        """Every few seconds: show that this process lives, and take over what a dead one left."""
        if not self._db.is_shared:
            return
        await self._db.awrite(updates.beat, self._worker, datetime.now(UTC))
        taken = await self._adopt(bot, datetime.now(UTC) - self._lost)
        if taken:
            logger.warning("%d updates are taken over from a process that is gone", taken)

    async def _adopt(self, bot: Bot, beaten_before: datetime | None) -> int:
        left = await self._db.awrite(updates.adopt, self._worker, beaten_before, datetime.now(UTC))
        for each in left:
            self.replayed.add(each.update_id)
            update = Update.de_json(dict(each.body), bot)
            if update.callback_query is not None:
                self._toasts.give_up(update.callback_query)
            self.put_nowait(update)
        return len(left)


class InOrder(BaseUpdateProcessor):
    """One update at a time for a person in a thread of a chat; different ones side by side."""

    def __init__(self, db: Database, worker: str, queue: StoredQueue) -> None:
        super().__init__(CONCURRENT_UPDATES)
        self._db = db
        self._worker = worker
        self._queue = queue
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        if not isinstance(update, Update):
            await coroutine
            return
        try:
            await self._in_its_turn(update, coroutine)
        except AWAY as error:
            if asyncio.iscoroutine(coroutine):
                coroutine.close()
            if not self._queue.failed(update, error):
                raise
            self._queue.is_over(update)

    async def _in_its_turn(self, update: Update, coroutine: Awaitable[Any]) -> None:
        lock = self._locks.setdefault(key_of(update), asyncio.Lock())
        while True:
            async with lock:  # those of this process need not ask the database again and again
                place = await self._db.aread(updates.place, update.update_id, self._worker)
                if place is not Place.BEHIND:
                    await self._handled(update, coroutine, place)
                    return
            await asyncio.sleep(BEHIND_SECONDS)

    async def _handled(self, update: Update, coroutine: Awaitable[Any], place: Place) -> None:
        if place is Place.GONE:
            if asyncio.iscoroutine(coroutine):
                coroutine.close()
            return
        # What fails in a handler was told and logged there: handled, or each start would meet it again. Unless it was
        # the database that was away, which nobody need be told.
        with logs.about(update=update.update_id):
            await coroutine
        if self._queue.is_over(update) and update.update_id not in self._queue.kept:
            await self._db.awrite(updates.mark_handled, update.update_id, datetime.now(UTC))

    async def initialize(self) -> None:
        """Nothing to do."""

    async def shutdown(self) -> None:
        """Nothing to do."""


def key_of(update: Update) -> str:
    """Replies have threads too, in groups without topics: these are nobody's place."""
    message = update.effective_message
    thread_id = message.message_thread_id if isinstance(message, Message) and message.is_topic_message else None
    chat, user = update.effective_chat, update.effective_user
    return f"{chat.id if chat else 0}:{thread_id or 0}:{user.id if user else 0}{_lane_of(update)}"


def keys_like(chat_id: int, user_id: int) -> str:
    """Whatever that person says in that chat, but for what has a lane of its own."""
    return f"{chat_id}:%:{user_id}"


def reactions_like(chat_id: int, user_id: int, message_id: int) -> str:
    """Whatever that person makes of that message."""
    return f"{chat_id}:0:{user_id}:{message_id}:%:reaction"


def _lane_of(update: Update) -> str:
    if update.message_reaction is not None:  # one may wait, and what comes behind it must not
        return f":{update.message_reaction.message_id}:{update.update_id}:reaction"
    press = parse(update.callback_query.data) if update.callback_query else None
    said = update.message.text if update.message else None
    if STOPPED in update.api_kwargs or STOP.match(said or "") or (press and press.act == "stop"):
        return ":stop"
    return ":rating" if press and press.act in RATINGS else ""
