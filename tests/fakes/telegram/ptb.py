"""python-telegram-bot's own Bot, pointed at the fake: what the fake refuses must come out there as the right error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from telegram import Bot
from telegram.request import HTTPXRequest

from .fake import FakeTelegram


@asynccontextmanager
async def ptb(fake: FakeTelegram, token: str | None = None) -> AsyncIterator[Bot]:
    # The fake speaks plain http; reading the certificates would take longer than most tests.
    requests = [HTTPXRequest(httpx_kwargs={"verify": False}) for _ in range(2)]
    async with Bot(
        token or fake.token,
        base_url=fake.base_url,
        base_file_url=fake.base_file_url,
        request=requests[0],
        get_updates_request=requests[1],
    ) as bot:
        yield bot
