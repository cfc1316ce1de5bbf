"""What is wrong with the whole right now, and whether admins have been told. Knows neither conditions nor words.

A row of `setting` each, for as long as it is wrong: what was told is in the outbox for good. The row is of when it was
looked at last, give or take a few minutes, by a clock that all who look share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import Setting
from storage.rows import add_once
from storage.tables import setting

PREFIX = "alert:"
MARKED = timedelta(minutes=5)  # no row is written each half minute only to say that it stands
NAMED = (
    select(setting.c.value)
    .where(setting.c.key.in_(bindparam("keys", expanding=True)))
    .order_by(setting.c.key)
    .with_for_update()
)


@dataclass(frozen=True)
class Alert:
    """`code` and `params` say what is wrong; `key` tells two of one code apart (the disks of two machines)."""

    key: str
    code: str
    seen_at: datetime
    params: Mapping[str, Any] = field(default_factory=dict)
    told_at: datetime | None = None  # last
    gone_at: datetime | None = None  # since when it is not seen any more


def standing(session: Session) -> list[Alert]:
    """Oldest first."""
    rows = session.execute(select(setting.c.value).where(setting.c.key.startswith(PREFIX, autoescape=True))).scalars()
    return sorted(map(_alert, rows), key=lambda each: each.seen_at)


def take(session: Session, keys: Iterable[str]) -> dict[str, Alert]:
    """Those of these keys that there are; no other writes them until this transaction ends."""
    found = map(_alert, session.scalars(NAMED, {"keys": [PREFIX + key for key in keys]}))
    return {each.key: each for each in found}


def mark_looked(session: Session, keys: Iterable[str], looked_at: datetime) -> None:
    known = setting.c.key.in_([PREFIX + key for key in keys])
    silent = clocks.silent(setting.c.set_at, looked_at - MARKED, clocks.latest(session, looked_at))
    session.execute(sql_update(setting).where(known, silent).values(set_at=looked_at))


def forget(session: Session, after: timedelta, at: datetime) -> list[str]:
    """The keys of those that nobody has looked at for so long; they are gone."""
    silent = clocks.silent(setting.c.set_at, at - after, clocks.latest(session, at))
    known = setting.c.key.startswith(PREFIX, autoescape=True)
    gone = session.scalars(delete(setting).where(known, silent).returning(setting.c.key))
    return sorted(key.removeprefix(PREFIX) for key in gone)


def begin(session: Session, alert: Alert, looked_at: datetime) -> bool:
    """False where another process was first."""
    row = {"key": PREFIX + alert.key, "value": _plain(alert), "set_at": looked_at}
    return add_once(session, Setting, setting, **row) is not None


def keep(session: Session, alert: Alert, looked_at: datetime) -> None:
    known = sql_update(setting).where(setting.c.key == PREFIX + alert.key)
    session.execute(known.values(value=_plain(alert), set_at=looked_at))


def end(session: Session, key: str) -> None:
    session.execute(delete(setting).where(setting.c.key == PREFIX + key))


def _plain(alert: Alert) -> dict[str, Any]:
    times = {name: getattr(alert, name) for name in ("seen_at", "told_at", "gone_at")}
    said = {"key": alert.key, "code": alert.code, "params": dict(alert.params)}
    return said | {name: at.isoformat() if at else None for name, at in times.items()}


def _alert(told: Mapping[str, Any]) -> Alert:
    times = {name: datetime.fromisoformat(told[name]) if told[name] else None for name in ("told_at", "gone_at")}
    return Alert(told["key"], told["code"], datetime.fromisoformat(told["seen_at"]), told["params"], **times)
