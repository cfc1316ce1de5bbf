"""The process that looks every half minute: queues what is due, reaps what was lost, prunes once a day.

APScheduler keeps its jobs in memory. Whether a run is due is computed from the database each time, so a restart
misses nothing, and an admin's setting counts from the next look on. Two of these beside each other harm nothing: the
database lets one run wait in a lane.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.orm import Session

from huigan.operate import cron, feedback, timetable, workers
from huigan.operate import runs as operate
from schedules import policy
from storage import deployments, runs, settings, updates
from storage.db import Database
from storage.recipe import Recipe
from storage.records import RunState

log = logging.getLogger(__name__)

LOOK_SECONDS = 30
LOST_AFTER = timedelta(seconds=60)
KEEP_UPDATES = timedelta(days=7)  # Telegram itself keeps them for one
DECISION_KEY = "schedule_decision"

T = TypeVar("T")
Chore = Callable[[datetime], object]


@dataclass(frozen=True)
class Plan:
    """What the environment says; an admin's settings `schedule` and `min_ratings` beat it. The recipe is read anew at
    each look, so that an admin's choice counts from the next one on."""

    recipe: Callable[[], Recipe]
    cron: str = ""  # empty: none
    min_new_ratings: int | None = None
    zone: tzinfo | None = None  # None: the machine's own, for an admin who writes 3 o'clock means the wall's


def facts(session: Session, lane: str, at: datetime) -> policy.Facts:
    live = deployments.live(session)
    newest = runs.newest(session, 1, lane=lane, dataset_only=False)  # one that only wrote a data set taught nothing
    last_queued_at = newest[0].queued_at if newest else None
    counted = feedback.count(session)
    return policy.Facts(
        at=at,
        lane=lane,
        has_base=live is not None,
        has_weights=live is not None and live.artefact.weights is not None,
        queued_run=_id_of(session, lane, RunState.QUEUED),
        running_run=_id_of(session, lane, RunState.RUNNING),
        last_queued_at=last_queued_at,
        since_at=deployments.history(session, 10_000)[-1].since_at if live else None,
        ratings=counted.ratings,
        raters=counted.raters,
        new_ratings=feedback.count(session, last_queued_at).ratings,
        trainer_lives=workers.is_alive(session, at),
    )


def consider(db: Database, plan: Plan, at: datetime) -> policy.Decision:
    """Decide, queue the run if it is due, and leave the decision where /status finds it."""
    recipe = plan.recipe()
    expression = _setting(db, timetable.CRON_KEY, plan.cron)
    min_new = _setting(db, timetable.MIN_RATINGS_KEY, plan.min_new_ratings)
    bars = policy.Bars(min_new, recipe.data.min_ratings, recipe.data.min_raters)
    known = db.read(facts, recipe.lane, at)
    try:
        decision = policy.decide(known, bars, cron.firings(expression, plan.zone) if expression else None)
    except cron.BadCron as error:
        decision = policy.Decision(False, None, (policy.Reason("bad_schedule", {"problem": str(error)}),), None)
    if decision.enqueue and decision.why:
        operate.enqueue(db, recipe, why=decision.why, by_user_id=None, at=at)
    db.write(_keep, decision, at)
    db.write(timetable.mark_looked, at)
    return decision


def reap(db: Database, at: datetime) -> None:
    """Also while no trainer lives: whoever waits for a run should hear that it lost its worker."""
    for moved in db.write(operate.reap, at - LOST_AFTER, at):
        log.warning("run %d lost its worker and is %s", moved.id, moved.state)


def forget_updates(db: Database, at: datetime) -> None:
    """Telegram's updates are kept to be handled once, and a while longer to know a repeated one."""
    gone = db.write(updates.prune, at - KEEP_UPDATES)
    log.info("%d handled updates are forgotten", gone)


def main(
    db: Database,
    plan: Plan,
    *,
    chores: Mapping[str, Chore] | None = None,
    stop: threading.Event | None = None,
    look_seconds: float = LOOK_SECONDS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Until SIGTERM or Ctrl-C, or until `stop` is set. A job that is under way is finished. Raises BadCron at once."""
    if plan.cron:
        cron.firings(plan.cron, plan.zone)
    stopped = stop or _stopped_by_signals()
    # A job that raises is logged by APScheduler and tried again at the next look.
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None})
    first: dict[str, Any] = {"next_run_time": datetime.now(UTC)}  # APScheduler has a clock of its own
    scheduler.add_job(lambda: consider(db, plan, now()), "interval", seconds=look_seconds, name="look", **first)
    scheduler.add_job(lambda: reap(db, now()), "interval", seconds=look_seconds, name="reap", **first)
    for name, chore in (chores or {}).items():
        scheduler.add_job(lambda chore=chore: chore(now()), "interval", days=1, name=name, **first)
    scheduler.start()
    stopped.wait()
    scheduler.shutdown(wait=True)


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _setting(db: Database, key: str, otherwise: T) -> T:
    row = db.read(settings.get, key)
    kept: T = otherwise if row is None else row.value
    return kept


def _keep(session: Session, decision: policy.Decision, at: datetime) -> None:
    told = {
        "enqueue": decision.enqueue,
        "why": decision.why,
        "reasons": [asdict(reason) for reason in decision.reasons],
        "next_at": decision.next_at.isoformat() if decision.next_at else None,
    }
    row = settings.get(session, DECISION_KEY)
    if row is None or row.value != told:
        log.info("due: %s; hindered by: %s", decision.why, [reason.code for reason in decision.reasons])
        settings.put(session, DECISION_KEY, told, None, at)


def _id_of(session: Session, lane: str, state: RunState) -> int | None:
    found = runs.newest(session, 1, states=frozenset({state}), lane=lane)
    return found[0].id if found else None
