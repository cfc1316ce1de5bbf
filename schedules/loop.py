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
from functools import partial
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

from huigan.operate import cron, feedback, quiet, settable, timetable, withdrawals, workers
from huigan.operate import runs as operate
from huigan.operate.recipes import NoSuchRecipe
from schedules import policy, rebuild
from storage import deployments, runs, settings, updates
from storage.complaints import BadRecipe
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Run, RunState

log = logging.getLogger(__name__)

LOOK_SECONDS = 30
LOST_AFTER = timedelta(seconds=60)
# Of two schedulers one may have waited for the other's write, and machines' clocks differ.
CLOCKS_DIFFER = timedelta(days=1)
RECENT_RUNS = 20  # among them is the one that ended last, though some were queued and cancelled meanwhile
KEEP_UPDATES = timedelta(days=7)  # Telegram itself keeps them for one
DECISION_KEY = "schedule_decision"
LAPSED_KEY = "schedule_lapsed"  # set when a firing found too little feedback

OF_RECIPE: Mapping[str, Callable[[Recipe], Any]] = {
    "approval": lambda recipe: recipe.approval,
    "min_total_ratings": lambda recipe: recipe.data.min_ratings,
    "min_raters": lambda recipe: recipe.data.min_raters,
    "min_answers": lambda recipe: recipe.data.min_answers,
    "min_pairs": lambda recipe: recipe.data.min_pairs,
    "min_thumbs": lambda recipe: recipe.data.min_thumbs,
    "while_training": lambda recipe: recipe.serving.while_training,
}
UNDER_WAY = frozenset({RunState.QUEUED, RunState.RUNNING})
SETTINGS = ("schedule", "min_ratings", "quiet_hours", "cool_down_hours", "zone", *OF_RECIPE)

Chore = Callable[[datetime], object]


@dataclass(frozen=True)
class Plan:
    """What the environment says; an admin's settings beat it, see `huigan.operate.settable`. The recipe is read anew at
    each look, so that an admin's choice counts from the next one on."""

    recipe: Callable[[], Recipe]
    cron: str = ""  # empty: none
    min_new_ratings: int | None = None
    zone: tzinfo | None = None  # None: the machine's own, for an admin who writes 3 o'clock means the wall's
    quiet_hours: str = ""
    cool_down_hours: float | None = None
    recipe_name: str = ""

    def said(self, recipe: Recipe | None) -> settable.Said:
        environment = {
            "schedule": self.cron or None,
            "min_ratings": self.min_new_ratings,
            "zone": None if self.zone is None else str(self.zone),
            "quiet_hours": self.quiet_hours or None,
            "cool_down_hours": self.cool_down_hours,
            "recipe": self.recipe_name or None,
        }
        return {
            "environment": {name: value for name, value in environment.items() if value is not None},
            "recipe": {} if recipe is None else {name: read(recipe) for name, read in OF_RECIPE.items()},
            "default": {"zone": str(cron.zone_here())},
        }


@dataclass(frozen=True)
class Timetable:
    """What holds, read."""

    bars: policy.Bars
    next_firing: policy.NextFiring | None
    quiet_until: policy.QuietUntil


def timetable_of(found: Mapping[str, Any], recipe: Recipe) -> Timetable:
    """Raises BadCron, BadZone, BadHours: what an admin set is checked, a database by hand or a newer version is not."""
    zone = timetable.zone_named(found["zone"])
    spans = quiet.parse(found["quiet_hours"])
    bars = policy.Bars(
        min_new_ratings=found["min_ratings"],
        min_ratings=found["min_total_ratings"],
        min_raters=found["min_raters"],
        method=recipe.method,
        min_kinds={"answers": found["min_answers"], "pairs": found["min_pairs"], "thumbs": found["min_thumbs"]},
        cool_down=timedelta(hours=found["cool_down_hours"]),
    )
    firings = cron.firings(found["schedule"], zone) if found["schedule"] else None
    return Timetable(bars, firings, lambda at: quiet.ends_at(spans, zone, at))


def facts(session: Session, lane: str, at: datetime, cron_set_at: datetime | None = None) -> policy.Facts:
    """What a clock that went wrong has dated far ahead is left out: it would hold up every run until then."""
    live, tried, latest = deployments.live(session), deployments.canary(session), at + CLOCKS_DIFFER
    newest = runs.newest(
        session, RECENT_RUNS, lane=lane, dataset_only=False, queued_by=latest
    )  # a data set alone taught nothing
    last_queued_at = newest[0].queued_at if newest else None
    counted = feedback.count(session)
    under_way = {each.state: each.id for each in runs.newest(session, 2, states=UNDER_WAY, lane=lane)}  # one of each
    return policy.Facts(
        at=at,
        lane=lane,
        has_base=live is not None,
        has_weights=live is not None and live.artefact.weights is not None,
        queued_run=under_way.get(RunState.QUEUED),
        running_run=under_way.get(RunState.RUNNING),
        last_queued_at=last_queued_at,
        last_ended_at=max((end for run in newest if (end := _until(latest, _ended_at(run)))), default=None),
        since_at=deployments.first_at(session) if live and not newest else None,
        lapsed_at=_until(latest, _lapsed_at(session)),
        ratings=counted.ratings,
        raters=counted.raters,
        new_ratings=feedback.ratings_since(session, last_queued_at),
        kinds=feedback.kinds(session),
        trainer_lives=workers.is_alive(session, at),
        cron_set_at=_until(latest, cron_set_at),
        tried_release=tried.release.id if tried else None,
    )


def consider(db: Database, plan: Plan, at: datetime) -> policy.Decision:
    """Decide, queue the run if it is due, and leave the decision where /status finds it."""
    try:
        recipe = plan.recipe()
    except (BadRecipe, NoSuchRecipe) as error:
        decision = _told_wrong("bad_recipe", error)
        db.write(_keep, decision, None, at)
        return decision
    decision, words = db.read(judged, plan, recipe, at)
    if decision.enqueue:
        # Another scheduler may have queued it since, and a trainer claimed it: decided again where only one decides.
        decision = db.write(_enqueued, plan, recipe, at)
    db.write(_keep, decision, words, at, plan.said(recipe))
    return decision


def judged(session: Session, plan: Plan, recipe: Recipe, at: datetime) -> tuple[policy.Decision, dict[str, str] | None]:
    """With the cron and the zone that it went by, where these can be read."""
    found = settable.values(session, SETTINGS, plan.said(recipe))
    try:
        read = timetable_of(found, recipe)
    except (cron.BadCron, cron.BadZone, quiet.BadHours) as error:
        return _told_wrong("bad_schedule", error), None
    words = {"schedule": found["schedule"], "zone": found["zone"]}
    known = facts(session, recipe.lane, at, timetable.in_force_since(session, words, at))
    usual = policy.decide(known, read.bars, read.next_firing, read.quiet_until)
    by_night = read.next_firing or cron.firings(rebuild.NIGHTLY, timetable.zone_named(found["zone"]))
    asked_at = withdrawals.rebuild_asked_at(session, recipe.lane)
    turned_down = withdrawals.rebuilt_in_vain(session, recipe, asked_at) if asked_at else None
    can_start = partial(policy.can_start, known, read.bars, read.quiet_until)
    return rebuild.decide(usual, known, asked_at, by_night, turned_down, can_start), words


def _enqueued(session: Session, plan: Plan, recipe: Recipe, at: datetime) -> policy.Decision:
    timetable.mark_looked(session, at)
    decision, _ = judged(session, plan, recipe, at)
    if decision.enqueue and decision.why:
        operate.enqueue_within(session, recipe, decision.why, None, at)
    return decision


def _told_wrong(code: str, error: Exception) -> policy.Decision:
    return policy.Decision(False, None, (policy.Reason(code, {"problem": str(error)}),), None)


def reap(db: Database, at: datetime) -> None:
    """Also while no trainer lives: whoever waits for a run should hear that it lost its worker."""
    for moved in db.write(operate.reap, at - LOST_AFTER, at):
        log.warning("run %d lost its worker and is %s", moved.id, moved.state)


def forget_updates(db: Database, at: datetime, *, keep: timedelta = KEEP_UPDATES) -> None:
    """Telegram's updates are kept to be handled once, and a while longer to know a repeated one."""
    gone = db.write(updates.prune, at - keep)
    log.info("%d handled updates are forgotten", gone)


def main(
    db: Database,
    plan: Plan,
    *,
    chores: Mapping[str, Chore] | None = None,
    looks: Mapping[str, Chore] | None = None,
    stop: threading.Event | None = None,
    look_seconds: float = LOOK_SECONDS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    beat: Callable[[], object] = lambda: None,
) -> None:
    """`chores` are done once a day, `looks` as often as is looked. Until SIGTERM or Ctrl-C, or until `stop` is set. A
    job that is under way is finished. `beat` hears of each look. Raises BadCron at once."""
    if plan.cron:
        cron.firings(plan.cron, plan.zone)
    stopped = stop or _stopped_by_signals()
    # A job that raises is logged by APScheduler and tried again at the next look.
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None})
    first: dict[str, Any] = {"next_run_time": datetime.now(UTC)}  # APScheduler has a clock of its own

    def look() -> None:
        beat()
        consider(db, plan, now())

    scheduler.add_job(look, "interval", seconds=look_seconds, name="look", **first)
    scheduler.add_job(lambda: reap(db, now()), "interval", seconds=look_seconds, name="reap", **first)
    for name, chore in (looks or {}).items():
        scheduler.add_job(lambda chore=chore: chore(now()), "interval", seconds=look_seconds, name=name, **first)
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


def _keep(
    session: Session,
    decision: policy.Decision,
    words: Mapping[str, str] | None,
    at: datetime,
    said: settable.Said | None = None,
) -> None:
    timetable.mark_looked(session, at)
    if words is not None:
        timetable.put_in_force(session, words, at)
    if said is not None:
        settable.tell(session, "schedules", said, at)
    if decision.lapses:
        settings.put(session, LAPSED_KEY, True, None, at)
    told = {
        "enqueue": decision.enqueue,
        "why": decision.why,
        "reasons": [asdict(reason) for reason in decision.reasons],
        "next_at": _written(decision.next_at),
        "starts_at": _written(decision.starts_at),
        "due_at": None if decision.lapses else _written(decision.due_at),
        "zone": words["zone"] if words else None,
    }
    row = settings.get(session, DECISION_KEY)
    if row is None or row.value != told:
        log.info("due: %s; hindered by: %s", decision.why, [reason.code for reason in decision.reasons])
        settings.put(session, DECISION_KEY, told, None, at)


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _ended_at(run: Run) -> datetime | None:
    """When it let go of the machine, if it ever had it. What it made may be decided on days later: it beats no more."""
    if run.started_at is None or run.state in UNDER_WAY:
        return None
    return run.ended_at if run.artefact_id is None else run.beat_at


def _lapsed_at(session: Session) -> datetime | None:
    kept = settings.get(session, LAPSED_KEY)
    return kept.set_at if kept else None


def _until(latest: datetime, then: datetime | None) -> datetime | None:
    return then if then is not None and then <= latest else None
