"""When runs start by themselves: what an admin set, which beats the environment, and when it was looked at last.

Whether a run is due is decided in schedules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo

from huigan.operate import cron, quiet, settable
from huigan.operate.refusals import Refusal
from storage import audit, settings
from storage.db import Session
from storage.records import Setting

CRON_KEY, MIN_RATINGS_KEY = "schedule", "min_ratings"
LOOKED_KEY = "schedules_looked"
IN_FORCE_KEY = "schedule_in_force"  # the crons and zones that schedules go by, and since when
# Two that are told differently go on beside each other; what nobody has gone by for so long is no longer in force.
REMEMBERED, SEEN_AGAIN = timedelta(hours=1), timedelta(minutes=10)
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
    known = _in_force(session)
    rows = settings.many(session, words)
    dates = {name: rows[name].set_at for name, word in words.items() if name in rows and rows[name].value == word}
    if (own := known.get(_named(words))) is not None:
        return min(at, max([datetime.fromisoformat(own["since"]), *dates.values()]))
    new = [name for name, word in words.items() if all(json.loads(each).get(name) != word for each in known)]
    return min(at, max((dates.get(name, at) for name in new), default=at))


def put_in_force(session: Session, words: Mapping[str, str], at: datetime) -> None:
    """Remember since when. After `mark_looked`: of two schedulers one reads and writes at a time."""
    known, since = _in_force(session), in_force_since(session, words, at).isoformat()
    own = known.get(_named(words))
    if own is not None and own["since"] == since and _is_seen(own, at, SEEN_AGAIN):
        return
    others = {name: each for name, each in known.items() if _is_seen(each, at, REMEMBERED)}
    settings.put(session, IN_FORCE_KEY, {**others, _named(words): {"since": since, "seen": at.isoformat()}}, None, at)


def _in_force(session: Session) -> dict[str, dict[str, str]]:
    """By what they say: since when, and when one went by it last."""
    kept = settings.get(session, IN_FORCE_KEY)
    return dict(kept.value) if kept else {}


def _named(words: Mapping[str, str]) -> str:
    return json.dumps(dict(words), sort_keys=True)


def _is_seen(entry: Mapping[str, str], at: datetime, within: timedelta) -> bool:
    return abs(at - datetime.fromisoformat(entry["seen"])) < within


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
