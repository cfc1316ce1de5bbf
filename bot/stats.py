"""/stats: how much is said and rated, and how often each release is liked, as a picture with its words."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from bot import pictures
from bot.admin import Asked, Guard
from bot.screen import Screen
from huigan.operate import statistics
from huigan.operate.statistics import Liked, Statistics
from huigan.texts import text
from storage.db import Database

TOLD_RELEASES = 5


class Stats:
    def __init__(self, db: Database, screen: Screen) -> None:
        self._db = db
        self._screen = screen

    def acts(self) -> Guard:
        return {"stats": self._stats}

    async def _stats(self, asked: Asked) -> None:
        found = await self._db.aread(statistics.gather, datetime.now(UTC))
        picture = await asyncio.to_thread(pictures.statistics, found)
        await self._screen.photo(asked.spot, picture, words(found, asked.locale))


def words(found: Statistics, locale: str) -> str:
    last = found.days[-1]
    lines = [
        text(
            locale,
            "admin.stats",
            days=len(found.days),
            answers=found.answers,
            ratings=found.ratings,
            raters=found.raters,
        ),
        text(locale, "admin.stats_today", answers=last.answers, ratings=last.ratings),
        *(_liked(each, locale) for each in reversed(found.liked[-TOLD_RELEASES:])),
    ]
    return "\n".join(lines)


def _liked(each: Liked, locale: str) -> str:
    low, high = each.interval
    params = {"release": each.release, "share": each.share, "low": low, "high": high, "ratings": each.ratings}
    return text(locale, "admin.stats_release", **params)
