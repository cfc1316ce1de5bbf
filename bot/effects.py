"""/feedback: what somebody's ratings, corrections and comparisons did; and /compare_rate, how often admins let the bot
ask which of two answers is better."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from telegram import Update
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, filters

from bot.admin import Asked, Guard
from bot.locales import Locales
from bot.places import place_of, speaker_of, spot_of
from bot.screen import Screen
from huigan.texts import text, told
from huigan.turns import effects, sampling
from huigan.turns.effects import Counts, Effects, Used
from huigan.turns.opening import meet
from storage.db import Database

LISTED_RUNS = 8


class EffectsPart:
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        return [CommandHandler("feedback", self._feedback, filters=filters.UpdateType.MESSAGE)]

    def acts(self) -> Guard:
        return {"compare_rate": self._compare_rate}

    async def _feedback(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        known, _ = await self._db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC))
        found = await self._db.aread(effects.of_user, known.id)
        await self._screen.say(spot_of(message), words(found, await self._locales.of(update)))

    async def _compare_rate(self, asked: Asked) -> str:
        if asked.args:
            share = _share(asked.args[0]) if len(asked.args) == 1 else None
            if share is None:
                return text(asked.locale, "refusal.compare_rate_usage")
            await self._db.awrite(sampling.set_rate, share, asked.user.id, datetime.now(UTC))
        return text(asked.locale, "effects.rate", share=await self._db.aread(sampling.rate))


def words(found: Effects, locale: str) -> str:
    if not found.given and not found.used:
        lines = [text(locale, "effects.nothing")]
    else:
        lines = [text(locale, "effects.given", counts=_counted(found.given))]
    for each in found.used[:LISTED_RUNS]:
        lines += _used(each, locale)
    if not found.has_consented:
        lines.append(text(locale, "effects.no_consent"))
    elif found.unused:
        lines.append(text(locale, "effects.unused", counts=_counted(found.unused)))
    return "\n".join(lines)


def _used(each: Used, locale: str) -> list[str]:
    values = {"run": each.run_id, "release": each.release_id, "state": told(locale, "state", each.state)}
    learnt, tested = ("effects.in_release", "effects.held_out_of_release")
    if each.release_id is None:
        learnt, tested = ("effects.in_run", "effects.held_out_of_run")
    said = ((learnt, each.trained), (tested, each.held_out))
    return [text(locale, code, **values, counts=_counted(counts)) for code, counts in said if counts]


def _counted(counts: Counts) -> str:
    signs = {effects.UP: "👍", effects.DOWN: "👎", effects.CORRECTION: "✏️", effects.COMPARISON: "⚖️"}
    return "　".join(f"{sign} {counts.get(kind, 0)}" for kind, sign in signs.items() if counts.get(kind)) or "0"


def _share(written: str) -> float | None:
    try:
        share = float(written)
    except ValueError:
        return None
    return share if 0.0 <= share <= 1.0 else None
