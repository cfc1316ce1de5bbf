"""/schedule: when runs start by themselves, shown and changed."""

from __future__ import annotations

from datetime import datetime

from bot.adjusting import line
from bot.admin import Asked, Guard, refused
from bot.panels import now
from bot.status import schedule
from huigan.operate import settable, timetable
from huigan.operate.refusals import Refusal
from huigan.texts import text
from storage.db import Database, Session

OFF = "off"
SHOWN = ("schedule", "min_ratings", "quiet_hours", "cool_down_hours", "zone")


class Schedule:
    def __init__(self, db: Database) -> None:
        self._db = db

    def acts(self) -> Guard:
        return {"schedule": self._schedule}

    async def _schedule(self, asked: Asked) -> str:
        how = (asked.user.id, now())
        match asked.args:
            case []:
                pass
            case ["min", "off"]:
                await self._db.awrite(timetable.set_min_ratings, None, *how)
            case ["min", count] if _is_count(count):
                await self._db.awrite(timetable.set_min_ratings, int(count), *how)
            case ["off"] | [_, _, _, _, _]:
                expression = "" if asked.args == [OFF] else " ".join(asked.args)
                result = await self._db.awrite(timetable.set_cron, expression, *how)
                if isinstance(result, Refusal):
                    return refused(result, asked.locale)
            case _:
                return text(asked.locale, "refusal.schedule_usage")
        return await self._db.aread(_told, asked.locale, bool(asked.args), now())


def _is_count(written: str) -> bool:
    return written.isascii() and written.isdigit() and len(written) <= 9 and 1 <= int(written) <= timetable.MOST_RATINGS


def _told(session: Session, locale: str, is_changed: bool, at: datetime) -> str:
    """What was decided last is out of date once it was changed: schedules looks again within half a minute."""
    said = settable.told(session)
    lines = [line(settable.held(session, name, said), locale) for name in SHOWN]
    lines += [text(locale, "timetable.soon")] if is_changed else schedule(session, locale, at)
    return "\n".join(lines)
