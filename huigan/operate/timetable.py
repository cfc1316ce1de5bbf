"""When runs start by themselves: what an admin set, which beats the environment, and when it was looked at last.

Whether a run is due is decided in schedules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo

from huigan.operate import cron, quiet, settable
from huigan.operate.refusals import Refusal
from storage import audit, settings
from storage.db import Session
from storage.records import Setting

CRON_KEY, MIN_RATINGS_KEY = "schedule", "min_ratings"
LOOKED_KEY = "schedules_looked"
IN_FORCE_KEY = "schedule_in_force"  # the cron and the zone that schedules went by last
MOST_RATINGS = settable.MOST_RATINGS


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
    """Written first in a transaction, it lets only one scheduler at a time go on."""
    settings.put(session, LOOKED_KEY, True, None, at)


def looked_at(session: Session) -> datetime | None:
    """When schedules looked last; None if it never did."""
    kept = settings.get(session, LOOKED_KEY)
    return kept.set_at if kept else None


def in_force_since(session: Session, words: Mapping[str, str], at: datetime) -> datetime:
    """Since when `schedule` and `zone` say this, whoever said it: of what is new to schedules, when an admin set it, or
    now, where it is the environment's word or the machine's."""
    kept = settings.get(session, IN_FORCE_KEY)
    known = kept.value if kept else {}
    new = [name for name, word in words.items() if known.get(name) != word]
    if kept is not None and not new:
        return kept.set_at
    rows = settings.many(session, new)
    is_admins = {name: name in rows and rows[name].value == words[name] for name in new}
    return min(at, max(rows[name].set_at if is_admins[name] else at for name in new))


def put_in_force(session: Session, words: Mapping[str, str], at: datetime) -> None:
    """Remember since when."""
    kept = settings.get(session, IN_FORCE_KEY)
    if kept is None or kept.value != words:
        settings.put(session, IN_FORCE_KEY, dict(words), None, in_force_since(session, words, at))


def quiet_until(session: Session, at: datetime) -> datetime | None:
    """When the quiet hours end that `at` is in, as schedules goes by them; None if it is in none. Hours that nobody can
    read are none: schedules says so."""
    found = settable.values(session, ("quiet_hours", "zone"), settable.told(session))
    try:
        spans, zone = quiet.parse(found["quiet_hours"] or ""), zone_named(found["zone"])
    except (quiet.BadHours, cron.BadZone):
        return None
    return quiet.ends_at(spans, zone, at)


def zone_named(name: str | None) -> tzinfo:
    """The machine's own for None. Raises BadZone."""
    return cron.zone_here() if name is None else cron.zone_of(name)
