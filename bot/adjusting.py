"""/settings: what admins may set, with what holds and where it comes from."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from bot.admin import Asked, Guard, refused
from bot.panels import now
from huigan.operate import settable
from huigan.operate.refusals import Refusal
from huigan.operate.settable import Held
from huigan.texts import text, told
from storage.db import Database

DEFAULT = "default"


class Adjusting:
    def __init__(self, db: Database) -> None:
        self._db = db

    def acts(self) -> Guard:
        return {"settings": self._settings}

    async def _settings(self, asked: Asked) -> str:
        how = (asked.user.id, now())
        result: Held | Refusal
        match asked.args:
            case []:
                return await self._db.aread(_listed, asked.locale)
            case [name, value] if value == DEFAULT:
                result = await self._db.awrite(settable.take_back, name, *how)
            case [name, *words] if words:
                result = await self._db.awrite(settable.choose, name, " ".join(words), *how)
            case _:
                return text(asked.locale, "adjusting.how", names=", ".join(settable.NAMED))
        return refused(result, asked.locale) if isinstance(result, Refusal) else line(result, asked.locale)


def _listed(session: Session, locale: str) -> str:
    lines = [f"{each.name} · {line(each, locale)}" for each in settable.every(session)]
    return "\n".join([*lines, "", text(locale, "adjusting.how", names=", ".join(settable.NAMED))])


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
