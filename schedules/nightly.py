"""The nightly backup: when one is due, and one process at a time that makes it. Knows not what is in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo

from huigan.operate import backups
from huigan.operate.backups import Backup, Last
from storage import clocks, leases
from storage.copies import CopyFailed
from storage.db import Database, Session

log = logging.getLogger(__name__)

HOUR = 4  # of the night, where the machine is: runs begin earlier, people later
TRIED_AGAIN = timedelta(hours=1)
LEASE = timedelta(hours=2)  # dumping and loading a large database takes a while
LOOK_SECONDS = 300.0


def look(
    db: Database, worker: str, make: Callable[[datetime], Backup], at: datetime, zone: tzinfo | None = None
) -> None:
    """Make one if it is due. What fails is noted, told to admins (see huigan.health) and tried again in an hour."""
    if not due(db.read(_last, at), at, zone) or not db.write(leases.take, "backup", worker, LEASE, at):
        return
    began = time.monotonic()
    try:
        made = make(at)
    except CopyFailed as error:
        log.warning("the nightly backup failed: %s", error)
        db.write(backups.note_failure, error, at)
    else:
        log.info("backup %s: %d bytes in %.0f s", made.file.name, made.size_bytes, time.monotonic() - began)


def _last(session: Session, at: datetime) -> Last:
    """One that a clock which was ahead has dated is as good as none."""
    last = backups.last(session)
    is_ahead = last.made_at is not None and last.made_at > clocks.latest(session, at)
    return replace(last, made_at=None) if is_ahead else last


def due(last: Last, at: datetime, zone: tzinfo | None = None) -> bool:
    """Once after each night's hour, also where that was slept through; at once where there is none at all."""
    if last.failed_at is not None and last.failed_at <= at < last.failed_at + TRIED_AGAIN:
        return False
    here = at.astimezone(zone)
    hour = here.replace(hour=HOUR, minute=0, second=0, microsecond=0)
    newest = hour if hour <= here else hour - timedelta(days=1)
    return last.made_at is None or last.made_at < newest.astimezone(at.tzinfo)
