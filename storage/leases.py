"""Who of several processes does what only one may do at a time. A lease ends by itself, even if its holder cannot."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import Setting
from storage.rows import add_once
from storage.tables import setting


def take(session: Session, name: str, worker: str, lasts: timedelta, at: datetime) -> bool:
    """Take it, or keep it for as long again. False while it is another's."""
    key, ours = f"lease:{name}", {"worker": worker, "until": (at + lasts).isoformat()}
    if add_once(session, Setting, setting, key=key, value=ours, set_at=at) is not None:
        return True
    held = session.execute(select(setting.c.value).where(setting.c.key == key).with_for_update()).scalar_one()
    if held["worker"] != worker and _holds(session, held["until"], lasts, at):
        return False
    session.execute(sql_update(setting).where(setting.c.key == key).values(value=ours, set_at=at))
    return True


def alive(session: Session, name: str, worker: str, lasts: timedelta, at: datetime) -> int:
    """Say that this process lives, for so long; how many of its kind do, itself among them."""
    key, until = f"alive:{name}", (at + lasts).isoformat()
    if add_once(session, Setting, setting, key=key, value={worker: until}, set_at=at) is not None:
        return 1
    held = session.execute(select(setting.c.value).where(setting.c.key == key).with_for_update()).scalar_one()
    living = {each: end for each, end in held.items() if _holds(session, end, lasts, at)} | {worker: until}
    session.execute(sql_update(setting).where(setting.c.key == key).values(value=living, set_at=at))
    return len(living)


def _holds(session: Session, until: str, lasts: timedelta, at: datetime) -> bool:
    """Not over yet, and not from a clock that was ahead: that one would hold until then."""
    ends_at = datetime.fromisoformat(until)
    return ends_at > at and ends_at - lasts <= clocks.latest(session, at)
