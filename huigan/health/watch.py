"""Looks every half minute, in each process, and tells admins of what is wrong: once, once a day, and when it is mended.

Any number of processes may look beside each other, and any may die: what was told is in the database. What a machine
alone can see only its own processes tell, and end; the others forget it once nobody has looked at it for an hour.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from huigan.health import facts
from huigan.health.conditions import FORSAKEN, Condition, judge, step
from huigan.serving.client import Ollama
from storage import alerts, clocks, outbox
from storage.db import Database, Session

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0


def look(db: Database, client: Ollama | None, home: Path, at: datetime, *, backups_kept: int = 0) -> None:
    try:
        seen = judge(facts.gather(db, client, home, at, backups_kept=backups_kept))
        db.write(tell, seen, at)
        db.write(forget, at)
    except OperationalError as error:  # nobody can be told by way of it; /ready says so
        logger.warning("the database cannot be used: %s", type(error.orig).__name__)


def tell(session: Session, seen: Mapping[str, Condition | None], at: datetime) -> None:
    """In one transaction: what was seen, what is kept of it, and the notices."""
    taken, looked_at = alerts.take(session, seen), clocks.shared(session, at)
    alerts.mark_looked(session, taken, looked_at)
    for key, condition in sorted(seen.items()):
        kept = taken.get(key)
        alert, telling = step(kept, condition, at)
        if alert is None:
            if kept is not None:
                alerts.end(session, key)
        elif kept is None:
            if not alerts.begin(session, alert, looked_at):
                continue  # another process has just begun it, and tells
        elif alert != kept:
            alerts.keep(session, alert, looked_at)
        told = alert or kept
        if telling is not None and told is not None:
            logger.warning("%s: %s %s", telling, told.key, dict(told.params))
            params: dict[str, Any] = {**told.params, "condition": told.code, "days": (at - told.seen_at).days}
            outbox.put(session, telling, params, at, key=f"{alerts.PREFIX}{key}:{at.isoformat()}")


def forget(session: Session, at: datetime) -> None:
    """What nobody looks at any more is not told as mended: nobody knows. A machine that comes back begins anew."""
    for key in alerts.forget(session, FORSAKEN, clocks.shared(session, at)):
        logger.warning("nobody looks at %s any more", key)
