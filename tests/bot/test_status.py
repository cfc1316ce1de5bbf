"""What /status tells: what is live, what waits, who trains, and why no run is due, in words."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bot.status import status
from huigan.operate import workers
from huigan.texts import catalogue
from schedules import loop
from storage import runs, settings
from storage.db import Database, Session
from storage.recipe import Data, Recipe
from storage.records import Run
from tests.bot.running import REPOSITORY, serve

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RECIPE = Recipe(name="test", data=Data(min_ratings=4, min_raters=2))


def told(db: Database, at: datetime = AT) -> str:
    return db.read(status, "en", at)


def test_before_schedules_ever_looked_it_says_so(db: Database) -> None:
    assert "huigan schedules has not looked yet" in told(db)


def test_why_no_run_is_due_is_told_in_words_with_the_next_time(db: Database) -> None:
    serve(db)
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", min_new_ratings=20, zone=UTC)
    loop.consider(db, plan, AT)
    said = told(db)
    assert "next at 2026-11-25 03:00 UTC" in said
    for reason in (
        "No new rating since the last run",
        "Ratings: 0 of the 4 needed",
        "People who rated: 0 of the 2 needed",
    ):
        assert f"· {reason}" in said
    assert "New ratings: 0 of the 20 that start a run" in said


def test_a_time_that_has_passed_says_that_schedules_does_not_look(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC)
    loop.consider(db, plan, AT)
    assert "is huigan schedules running?" not in told(db)
    assert "is huigan schedules running?" in told(db, AT + timedelta(days=1))


def test_without_a_schedule_it_says_how_to_start_a_run(db: Database) -> None:
    loop.consider(db, loop.Plan(lambda: RECIPE, zone=UTC), AT)
    assert "/retrain" in told(db)


def test_a_decision_of_another_version_is_shown_bare(sqlite_db: Database) -> None:
    decision = {"enqueue": False, "why": None, "reasons": [{"code": "moon_is_full", "params": {}}], "next_at": None}
    sqlite_db.write(settings.put, loop.DECISION_KEY, decision, None, AT)
    assert "· moon_is_full" in told(sqlite_db)


def test_a_trainer_that_lives_is_named_and_one_that_fell_silent_was_last_seen(db: Database) -> None:
    assert "Trainer: not running" in told(db)
    db.write(workers.mark_seen, "gpu-1", AT)
    assert "Trainer: gpu-1 is running" in told(db, AT + timedelta(seconds=10))
    assert "Trainer: not running; gpu-1 was last heard of at 2026-11-24 08:00 UTC" in told(db, AT + timedelta(hours=1))


def running(session: Session, lane: str) -> Run:
    runs.enqueue(session, lane, {}, "test", AT)
    claimed = runs.claim(session, "gpu-1", AT)
    assert claimed is not None
    return claimed


def test_a_run_is_shown_with_its_stage_and_how_far_it_is(db: Database) -> None:
    run = db.write(running, "default")
    assert f"Run {run.id}: running" in told(db)
    db.write(runs.report, run.id, run.attempt, "train", {"what": "sft", "done": 60, "total": 150}, AT)
    assert f"Run {run.id}: running · training 40%" in told(db)
    db.write(runs.report, run.id, run.attempt, "score", {"what": "", "done": 7, "total": 0}, AT)
    assert told(db).endswith(f"Run {run.id}: running · scoring")


def test_a_run_that_waits_for_the_card_says_what_lacks(db: Database) -> None:
    run = db.write(running, "default")
    waits = {"code": "card_memory", "lacks_gib": "4.0"}
    db.write(runs.report, run.id, run.attempt, "train", {"what": "", "done": 0, "total": 0, "waits": waits}, AT)
    assert "memory on the graphics card: 4.0 GiB short" in told(db)


def test_times_are_told_in_the_zone_that_schedules_goes_by_with_what_a_due_run_waits_for(db: Database) -> None:
    serve(db)
    zone = ZoneInfo("Asia/Shanghai")
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=zone, quiet_hours="08:00-23:00")
    loop.consider(db, plan, AT)
    assert "next at 2026-11-25 03:00 CST" in told(db)
    assert "Quiet hours until 2026-11-24 23:00 CST" in told(db)


def test_the_time_of_the_next_run_is_when_it_can_start(db: Database) -> None:
    serve(db)
    loop.consider(db, loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC, quiet_hours="02:00-06:00"), AT)
    assert "next at 2026-11-25 06:00 UTC" in told(db)


def test_a_run_that_is_under_way_is_shown_however_many_came_after_it(db: Database) -> None:
    first = db.write(running, "first")
    for _ in range(5):
        queued = db.write(runs.enqueue, "second", {}, "test", AT)
        assert queued is not None
        db.write(runs.ask_cancel, queued.id, AT)
    assert f"Run {first.id}: running" in told(db)


def reasons() -> set[str]:
    """Every code that schedules may give."""
    calls = (
        node
        for path in (REPOSITORY / "schedules").glob("*.py")
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Reason"
    )
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}  # type: ignore[misc]


@pytest.mark.parametrize("code", sorted(reasons() - {"not_yet"}))  # that one is the line with the next time
def test_every_reason_of_schedules_has_words(code: str) -> None:
    assert f"schedule.{code}" in catalogue("en")
