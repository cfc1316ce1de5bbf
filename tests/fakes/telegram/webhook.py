"""Delivery of updates to the bot's webhook: with the secret, repeated until the bot answers 2xx, in order within a
chat. A method call in the bot's answer is not carried out: python-telegram-bot never makes one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx

from .updates import Update, chat_of

if TYPE_CHECKING:
    from .fake import FakeTelegram

ANSWER_SECONDS = 20.0
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0


class Webhook:
    def __init__(self, fake: FakeTelegram) -> None:
        self._fake = fake
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self.url = ""
        self.secret = ""
        self.max_connections = 40
        self.last_error = ""
        self.last_error_at = 0.0
        self.attempts = 0

    def set(self, url: str, secret: str, max_connections: int) -> None:
        self.url, self.secret, self.max_connections = url, secret, max_connections
        self.last_error, self.last_error_at = "", 0.0

    def unset(self) -> None:
        self.set("", "", 40)

    async def deliver(self) -> None:
        """Until the fake stops."""
        # Bots under test serve plain http: reading the certificates would cost every test a tenth of a second.
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, verify=False) as client:
            try:
                while not self._fake.is_stopping:
                    self._start_deliveries(client)
                    await self._fake.changed(timeout_seconds=0.5)
            finally:
                for task in self._in_flight.values():
                    task.cancel()

    def _start_deliveries(self, client: httpx.AsyncClient) -> None:
        with self._fake.lock:
            waiting = [*self._fake.updates.repeats, *self._fake.updates.pending] if self.url else []
        for update in waiting:
            chat_id = chat_of(update)
            if chat_id not in self._in_flight and len(self._in_flight) < self.max_connections:
                self._in_flight[chat_id] = asyncio.create_task(self._insist(client, update, chat_id))

    async def _insist(self, client: httpx.AsyncClient, update: Update, chat_id: int) -> None:
        wait_seconds = FIRST_RETRY_SECONDS
        try:
            while self._waits(update) and not await self._post(client, update):
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, LONGEST_RETRY_SECONDS)
        finally:
            del self._in_flight[chat_id]

    def _waits(self, update: Update) -> bool:
        """Neither the webhook nor the update was dropped meanwhile."""
        queue = self._fake.updates
        return bool(self.url) and any(each is update for each in [*queue.repeats, *queue.pending])

    async def _post(self, client: httpx.AsyncClient, update: Update) -> bool:
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.secret} if self.secret else {}
        self.attempts += 1
        error = ""
        try:
            answer = await client.post(self.url, json=update, headers=headers)
            if not answer.is_success:
                error = f"Wrong response from the webhook: {answer.status_code} {answer.reason_phrase}"
        except httpx.HTTPError as failure:
            error = "Read timeout expired" if isinstance(failure, httpx.TimeoutException) else "Connection refused"
        with self._fake.changing():
            if error:
                self.last_error, self.last_error_at = error, self._fake.clock.now()
            else:
                self._fake.updates.forget(update)
        return not error
