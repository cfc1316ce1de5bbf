"""Looks at everything: the database, Ollama, this machine's disk. Judges nothing: see huigan.health.conditions."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from huigan import disk as disks
from huigan.health.conditions import Disk, Facts, Machine
from huigan.operate import backups, broadcasts, timetable, workers
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import clocks, gpu, outbox, runs, turns
from storage.db import Database, Session
from storage.records import RunState

LOOKED_AT_RUNS = 20
# What reads a clock may wait for its connection a little.
CLOCKS_DIFFER = timedelta(seconds=5)


def gather(db: Database, client: Ollama | None, home: Path, at: datetime, *, backups_kept: int = 0) -> Facts:
    """Raises what the database raises."""
    known = db.read(_known, at)
    is_well = None if client is None else is_ollama_well(client)
    return Facts(at, machine(home), disk=disk(home), is_ollama_well=is_well, backups_kept=backups_kept, **known)


def is_ollama_well(client: Ollama) -> bool:
    try:
        library.version(client)
    except ServingError:
        return False
    return True


def machine(home: Path) -> Machine:
    """By what its processes share and keep over restarts: the folder, for each container has a host name of its own."""
    host = socket.gethostname()
    try:
        name = disks.name_of(home)
    except OSError:  # the disk may be full, or be read only
        name = host
    return Machine(name[:40], host)


def disk(folder: Path) -> Disk:
    """Of the nearest folder that is there."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    found = os.statvfs(there)
    # The file system's own id is the same in every container that sees it.
    name = f"{found.f_fsid:x}-{found.f_blocks:x}"
    return Disk(name[:40], socket.gethostname(), found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _known(session: Session, at: datetime) -> dict[str, Any]:
    last, looked_at, trainer = backups.last(session), timetable.looked_at(session), workers.seen(session)
    return {
        "is_clock_right": clocks.is_right(session, at),
        "trainer": trainer,
        "is_trainer_alive": workers.is_alive(session, at),
        "schedules_looked_at": looked_at,
        "failed_runs": _failed_in_a_row(session),
        "waiting": turns.count_unclosed(session),
        "oldest_waiting_at": turns.waiting_since(session),
        "is_card_held": gpu.held(session, at) is not None,
        "unsent": outbox.count_unsent(session, but=(broadcasts.CODE,)),
        "oldest_unsent_at": outbox.unsent_since(session, but=(broadcasts.CODE,)),
        "clock_off_seconds": clock_off_seconds(session, at),
        "backup_made_at": last.made_at,
        "backup_failed_at": last.failed_at,
    }


def clock_off_seconds(session: Session, at: datetime) -> float:
    """How far this machine's clock is ahead of the database's; on SQLite, behind what this very machine wrote last."""
    if session.dialect.name == "postgresql":
        return _beyond(at - clocks.shared(session, at))
    looked_at, trainer = timetable.looked_at(session), workers.seen(session)
    written = [each for each in (looked_at, trainer[1] if trainer else None) if each is not None]
    return min((_beyond(at - each) for each in written if each > at), default=0.0)


def _beyond(difference: timedelta) -> float:
    return 0.0 if abs(difference) < CLOCKS_DIFFER else difference.total_seconds()


def _failed_in_a_row(session: Session) -> int:
    newest = runs.newest_states(session, LOOKED_AT_RUNS, of=runs.ENDED - {RunState.CANCELLED, RunState.BUILT})
    return next((index for index, each in enumerate(newest) if each is not RunState.FAILED), len(newest))
