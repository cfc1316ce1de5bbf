"""Updates are stored before Telegram is told that we have them, handled in order, and replayed after a kill.

python-telegram-bot confirms a batch once `put` returned for each update of it, and its webhook answers 200 then: so
`put` is where they are stored. Knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from telegram import Bot, Update
from telegram.error import NetworkError
from telegram.ext import BaseUpdateProcessor

from storage import updates
from storage.db import Database

CONCURRENT_UPDATES = 256

Key = tuple[int, int, int]


class StoredQueue(asyncio.Queue[object]):
    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db
        self.replayed: set[int] = set()  # ids; what answers at once was perhaps answered before the kill

    async def put(self, item: object) -> None:
        """Raises NetworkError where the database does not take it: the poller asks again, the webhook answers 500."""
        if isinstance(item, Update):
            try:
                is_new = await self._db.awrite(updates.store, item.update_id, item.to_dict(), datetime.now(UTC))
            except SQLAlchemyError as error:
                raise NetworkError(f"an update could not be stored: {type(error).__name__}") from error
            if not is_new:
                return
        await super().put(item)

    async def replay(self, bot: Bot) -> int:
        """Queue what was stored and not handled: at the start, before anything new comes."""
        left = await self._db.aread(updates.unhandled)
        for each in left:
            self.replayed.add(each.update_id)
            self.put_nowait(Update.de_json(dict(each.body), bot))
        return len(left)


class InOrder(BaseUpdateProcessor):
    """One update at a time for a person in a thread of a chat; different ones side by side."""

    def __init__(self, db: Database) -> None:
        super().__init__(CONCURRENT_UPDATES)
        self._db = db
        self._locks: weakref.WeakValueDictionary[Key, asyncio.Lock] = weakref.WeakValueDictionary()

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        if not isinstance(update, Update):
            await coroutine
            return
        lock = self._locks.setdefault(_key(update), asyncio.Lock())
        async with lock:
            # What fails in a handler was told and logged there: handled, or each start would meet it again.
            await coroutine
            await self._db.awrite(updates.mark_handled, update.update_id, datetime.now(UTC))

    async def initialize(self) -> None:
        """Nothing to do."""

    async def shutdown(self) -> None:
        """Nothing to do."""


def _key(update: Update) -> Key:
    message = update.effective_message
    thread_id = getattr(message, "message_thread_id", None) if message else None
    chat, user = update.effective_chat, update.effective_user
    return (chat.id if chat else 0, thread_id or 0, user.id if user else 0)
