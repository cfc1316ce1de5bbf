"""/health: what everything needs, a line each: whether it is there, and what to do where it is not; then what admins
were alerted to and is not mended yet."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from bot.admin import Asked, Guard
from bot.panels import now
from bot.status import time_of
from huigan.operate import backups, broadcasts, timetable, workers
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from huigan.texts import text, told
from storage import alerts, clocks, deployments, outbox, turns
from storage.db import Database, Session

LOOK_LATE = timedelta(minutes=2)  # schedules looks every half minute
LEAST_FREE_BYTES = 5_000_000_000
MANY_NOTICES, MANY_TURNS = 20, 40
GIGABYTE = 1_000_000_000


class Health:
    def __init__(self, db: Database, client: Ollama, home: Path) -> None:
        self._db = db
        self._client = client
        self._home = home

    def acts(self) -> Guard:
        return {"health": self._health}

    async def _health(self, asked: Asked) -> str:
        ollama, disk = await asyncio.gather(
            asyncio.to_thread(_ollama, self._client, asked.locale), asyncio.to_thread(_disk, self._home, asked.locale)
        )
        try:
            rows = await self._db.aread(of_database, asked.locale, now())
        except SQLAlchemyError as error:
            rows = [_line(asked.locale, False, "health.no_database", problem=type(error).__name__)]
        return "\n".join([rows[0], ollama, disk, *rows[1:]])


def _line(locale: str, is_well: bool, code: str, **params: object) -> str:
    return f"{'✓' if is_well else '✗'} {text(locale, code, **params)}"


def _ollama(client: Ollama, locale: str) -> str:
    try:
        version, loaded = library.version(client), library.loaded(client)
    except ServingError as error:
        reason = told(locale, "error", error.code, error.params)
        return _line(locale, False, "health.no_ollama", reason=reason)
    code = "health.ollama" if loaded else "health.ollama_empty"
    return _line(locale, True, code, version=version, loaded=", ".join(loaded))


def _disk(home: Path, locale: str) -> str:
    usage = shutil.disk_usage(next(each for each in (home, *home.absolute().parents) if each.exists()))
    is_well = usage.free >= LEAST_FREE_BYTES
    code = "health.disk" if is_well else "health.disk_full"
    return _line(locale, is_well, code, free=usage.free / GIGABYTE, total=usage.total / GIGABYTE)


def of_database(session: Session, locale: str, at: datetime) -> list[str]:
    dialect = session.dialect.name
    return [_line(locale, True, "health.database", kind=dialect), *_rest(session, locale, at)]


def _rest(session: Session, locale: str, at: datetime) -> Iterator[str]:
    if deployments.live(session) is None:
        yield _line(locale, False, "admin.status_no_live")
    seen, alive = workers.seen(session), workers.is_alive(session, at)
    if seen is None:
        yield _line(locale, False, "health.no_trainer")
    else:
        yield _line(locale, alive, "health.trainer" if alive else "health.lost_trainer", seen=time_of(seen[1]))
    looked_at = timetable.looked_at(session)
    is_looking = looked_at is not None and clocks.is_recent(session, looked_at, at, LOOK_LATE)
    if looked_at is None:
        yield _line(locale, False, "health.no_schedules")
    else:
        code = "health.schedules" if is_looking else "health.late_schedules"
        yield _line(locale, is_looking, code, looked=time_of(looked_at))
    notices = outbox.count_unsent(session, but=(broadcasts.CODE,))
    yield _line(locale, notices < MANY_NOTICES, "health.notices", notices=notices)
    waiting = turns.count_unclosed(session)
    yield _line(locale, waiting < MANY_TURNS, "health.turns", turns=waiting)
    last = backups.last(session)
    if last.made_at is None:
        yield _line(locale, False, "health.no_backup")
    else:
        yield _line(locale, last.failed_at is None, "health.backup", made=time_of(last.made_at))
    yield from _alerts(session, locale)


def _alerts(session: Session, locale: str) -> Iterator[str]:
    for each in alerts.standing(session):
        if each.told_at is not None and each.gone_at is None:
            what = told(locale, "condition", each.code, each.params)
            yield text(locale, "health.alert", since=time_of(each.seen_at), what=what)
