"""When runs start by themselves: what an admin set, which beats the environment, and when it was looked at last.

Whether a run is due is decided in schedules.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from huigan.operate import cron
from huigan.operate.refusals import Refusal
from storage import audit, settings
from storage.records import Setting

CRON_KEY, MIN_RATINGS_KEY = "schedule", "min_ratings"
LOOKED_KEY = "schedules_looked"
MOST_RATINGS = 1_000_000


def set_cron(session: Session, expression: str, by_user_id: int | None, at: datetime) -> Refusal | Setting:
    """Five fields, or nothing for no set time. Refused: `bad_schedule`."""
    try:
        if expression:
            cron.firings(expression)
    except cron.BadCron as error:
        return Refusal("bad_schedule", {"problem": str(error)})
    audit.record(session, by_user_id, "schedule.cron", at, cron=expression)
    return settings.put(session, CRON_KEY, expression, by_user_id, at)


def set_min_ratings(session: Session, count: int | None, by_user_id: int | None, at: datetime) -> Setting:
    """How many new ratings start a run; None: ratings alone start none."""
    audit.record(session, by_user_id, "schedule.min_ratings", at, ratings=count)
    return settings.put(session, MIN_RATINGS_KEY, count, by_user_id, at)


def mark_looked(session: Session, at: datetime) -> None:
    settings.put(session, LOOKED_KEY, True, None, at)


def looked_at(session: Session) -> datetime | None:
    """When schedules looked last; None if it never did."""
    kept = settings.get(session, LOOKED_KEY)
    return kept.set_at if kept else None
