"""Whether a trainer lives: each supervisor says so every few seconds. Knows nothing of what it does.

One row tells, the newest word of any of them: a run that waits needs one trainer, whichever.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from storage import clocks, settings
from storage.db import Session

KEY = "trainer_seen"
# A supervisor speaks every few seconds; a machine that swaps may be slow to.
ALIVE_WITHIN = timedelta(seconds=60)


def mark_seen(session: Session, worker: str, at: datetime) -> None:
    settings.put(session, KEY, {"worker": worker}, None, at)


def mark_gone(session: Session, worker: str, at: datetime) -> None:
    """An orderly end; without it a trainer is believed to live for a minute more."""
    seen = settings.get(session, KEY)
    if seen is not None and seen.value.get("worker") == worker:
        settings.put(session, KEY, {"worker": None}, None, at)


def seen(session: Session) -> tuple[str, datetime] | None:
    """Which trainer was heard of last, and when; None if none ever was, or the last one left in order."""
    row = settings.get(session, KEY)
    return None if row is None or row.value.get("worker") is None else (row.value["worker"], row.set_at)


def is_alive(session: Session, at: datetime) -> bool:
    last = seen(session)
    return last is not None and clocks.is_recent(session, last[1], at, ALIVE_WITHIN)
