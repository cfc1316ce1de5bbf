"""/settings: what admins may set, with what holds and where it comes from, and buttons for what they change most."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from telegram.ext import BaseHandler

from bot.admin import Asked, Guard, refused
from bot.locales import Locales
from bot.panels import Panel, Pushed, now, pressable, put
from bot.screen import Screen
from huigan.operate import settable
from huigan.operate.refusals import Refusal
from huigan.operate.settable import Held
from huigan.texts import text, told
from storage.db import Database, Session
from storage.release_policy import APPROVALS

DEFAULT = "default"
EVERY_NIGHT = "0 3 * * *"
PRESSES = {  # what is set to what
    ("cron", "off"): ("schedule", settable.OFF),
    ("cron", "on"): ("schedule", EVERY_NIGHT),
    **{("approval", each): (settable.APPROVAL, each) for each in APPROVALS},
}


class Adjusting:
    def __init__(self, db: Database, screen: Screen, locales: Locales, replayed: Container[int]) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales
        self._replayed = replayed

    def acts(self) -> Guard:
        return {"settings": self._settings}

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        presses = {"cron": self._pressed, "approval": self._pressed}
        return [pressable(self._db, self._screen, self._locales, self._replayed, presses)]

    async def _settings(self, asked: Asked) -> str | None:
        how = (asked.user.id, now())
        result: Held | Refusal
        match asked.args:
            case []:
                await put(self._screen, asked.spot, await self._db.aread(_panel, asked.locale))
                return None
            case [name, value] if value == DEFAULT:
                result = await self._db.awrite(settable.take_back, name, *how)
            case [name, *words] if words:
                result = await self._db.awrite(settable.choose, name, " ".join(words), *how)
            case _:
                return text(asked.locale, "adjusting.how", names=", ".join(settable.NAMED))
        return refused(result, asked.locale) if isinstance(result, Refusal) else line(result, asked.locale)

    async def _pressed(self, pushed: Pushed) -> Panel | str:
        chosen = PRESSES.get((pushed.press.act, pushed.press.choice))
        if chosen is None or pushed.press.ids:
            return text(pushed.locale, "refusal.stale_button")
        result = await self._db.awrite(settable.choose, *chosen, pushed.user.id, now())
        if isinstance(result, Refusal):
            return refused(result, pushed.locale)
        return await self._db.aread(_panel, pushed.locale)


def _panel(session: Session, locale: str) -> Panel:
    known = {each.name: each for each in settable.every(session)}
    lines = [f"{each.name} · {line(each, locale)}" for each in known.values()]
    words = "\n".join([*lines, "", text(locale, "adjusting.how", names=", ".join(settable.NAMED))])
    cron = ("adjusting.cron_off", "cron:off") if known["schedule"].value else ("adjusting.cron_on", "cron:on")
    approval = tuple(
        (told(locale, "approval", each) + (" ✓" if each == known[settable.APPROVAL].value else ""), f"approval:{each}")
        for each in APPROVALS
    )
    return Panel(words, (((text(locale, cron[0]), cron[1]),), approval))


def line(held: Held, locale: str) -> str:
    words = {"what": told(locale, "setting", held.name), "value": _shown(held.value, locale)}
    words["origin"] = told(locale, "origin", held.origin)
    others = [
        text(locale, "adjusting.other", origin=told(locale, "origin", origin), value=_shown(value, locale))
        for origin, value in held.beaten.items()
    ]
    if not others:
        return text(locale, "adjusting.line", **words)
    return text(locale, "adjusting.line_beats", **words, others="; ".join(others))


def _shown(value: Any, locale: str) -> str:
    if value is None or value == "" or (value == 0 and value is not False):
        return text(locale, "adjusting.off")
    if isinstance(value, bool):
        return text(locale, "adjusting.yes" if value else "adjusting.no")
    return f"{value:g}" if isinstance(value, float) else str(value)
