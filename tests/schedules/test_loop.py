"""The loop on a real database: it queues what is due, once, and leaves word of why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from huigan.operate import releases as releases_of_runs
from huigan.operate import settable, timetable, workers
from huigan.operate.cron import BadCron
from huigan.operate.recipes import NoSuchRecipe
from schedules import loop
from storage import holdings, runs, settings, updates
from storage.db import Database
from storage.recipe import Data, Recipe
from storage.records import Run, RunState
from tests.schedules.ratings import add_base, rate

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RECIPE = Recipe(name="test", data=Data(min_ratings=4, min_raters=2, min_answers=4))
ARTEFACT = {"quantisation": "Q4_K_M", "weights": "/w", "template": "t", "system": "s", "parameters": {}}


def codes(db: Database) -> list[str]:
    kept = db.read(settings.get, loop.DECISION_KEY)
    assert kept is not None
    return [reason["code"] for reason in kept.value["reasons"]]


def look_first(db: Database, plan: loop.Plan, at: datetime) -> None:
    """Schedules has gone by this plan since then, and finds nothing to train."""
    assert not loop.consider(db, plan, at).enqueue


def test_what_is_due_is_queued_once_and_then_says_what_it_waits_for(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC)
    assert not loop.consider(db, plan, AT).enqueue
    assert codes(db) == [
        "no_base", "nothing_new", "too_few_ratings", "too_few_raters", "too_few_of_each", "too_few_new",
    ]  # fmt: skip
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    assert loop.consider(db, plan, AT).enqueue
    assert codes(db) == ["no_trainer"]
    (queued,) = db.read(runs.newest)
    assert (queued.why, queued.recipe) == ("threshold", RECIPE.to_dict())
    assert not loop.consider(db, plan, AT + timedelta(minutes=1)).enqueue
    assert codes(db)[0] == "already_queued"


def test_ratings_are_counted_from_the_last_run_even_if_it_failed(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC)
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    db.write(workers.mark_seen, "gpu", AT)
    assert loop.consider(db, plan, AT + timedelta(seconds=1)).enqueue
    claimed = db.write(runs.claim, "gpu", AT)
    assert claimed is not None
    db.write(runs.move, claimed.id, claimed.attempt, RunState.RUNNING, RunState.FAILED, AT)
    later = AT + timedelta(hours=1)
    assert not loop.consider(db, plan, later).enqueue
    db.write(rate, 4, later)
    assert loop.consider(db, plan, later).enqueue


def test_a_firing_missed_while_nothing_ran_is_made_up_for(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC)
    look_first(db, plan, AT - timedelta(days=3))
    db.write(add_base, AT - timedelta(days=3))
    db.write(rate, 4, AT)
    assert loop.consider(db, plan, AT).why == "schedule"
    assert [each.why for each in db.read(runs.newest)] == ["schedule"]


def test_an_hour_that_is_written_after_it_struck_waits_for_tomorrow(db: Database) -> None:
    """No training begins at noon because an admin has just moved it to half past two in the night."""
    noon = AT.replace(hour=12, minute=0)
    plan = loop.Plan(lambda: RECIPE, cron="0 23 * * *", zone=UTC)
    db.write(add_base, noon - timedelta(hours=10))
    db.write(rate, 4, noon - timedelta(hours=1))
    assert not loop.consider(db, plan, noon).enqueue
    db.write(timetable.set_cron, "30 2 * * *", None, noon)
    assert not loop.consider(db, plan, noon + timedelta(minutes=1)).enqueue
    assert loop.consider(db, plan, noon + timedelta(hours=15)).why == "schedule"


def test_an_hour_that_comes_to_hold_after_it_struck_waits_for_tomorrow_whoever_says_it(db: Database) -> None:
    """The environment's, once an admin takes back what beat it; another that it says after a restart; another zone's;
    and at the very first look. A restart that changes nothing still makes up for what was missed."""
    noon, day, changed = AT.replace(hour=12, minute=0), timedelta(days=1), timedelta(minutes=1)
    db.write(add_base, noon - timedelta(days=2))
    db.write(rate, 4, noon - timedelta(hours=12))
    by_night = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC)
    assert not loop.consider(db, by_night, noon).enqueue
    db.write(timetable.set_cron, "0 23 * * *", None, noon)
    assert not loop.consider(db, by_night, noon + changed).enqueue
    db.write(settable.take_back, "schedule", None, noon + changed)
    assert not loop.consider(db, by_night, noon + 2 * changed).enqueue
    earlier = loop.Plan(lambda: RECIPE, cron="30 2 * * *", zone=UTC)
    assert not loop.consider(db, earlier, noon + 3 * changed).enqueue
    elsewhere = loop.Plan(lambda: RECIPE, cron="30 2 * * *", zone=ZoneInfo("Asia/Shanghai"))
    assert not loop.consider(db, elsewhere, noon + 4 * changed).enqueue
    assert loop.consider(db, elsewhere, noon + day).why == "schedule"


def test_an_admins_word_counts_from_when_it_was_given_though_schedules_was_down(db: Database) -> None:
    midnight = AT.replace(hour=0)
    plan = loop.Plan(lambda: RECIPE, cron="0 23 * * *", zone=UTC)
    db.write(add_base, midnight - timedelta(minutes=30))
    db.write(rate, 4, midnight - timedelta(minutes=30))
    look_first(db, plan, midnight)
    db.write(timetable.set_cron, "0 3 * * *", None, midnight + timedelta(hours=1))
    assert loop.consider(db, plan, midnight + timedelta(hours=9)).why == "schedule"


def test_an_admins_setting_beats_the_environment(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=1000, zone=UTC)
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    assert not loop.consider(db, plan, AT).enqueue
    db.write(settings.put, timetable.CRON_KEY, "not a cron", None, AT)
    loop.consider(db, plan, AT)
    assert codes(db) == ["bad_schedule"]
    db.write(settings.put, timetable.CRON_KEY, "", None, AT)
    db.write(settings.put, timetable.MIN_RATINGS_KEY, 2, None, AT)
    assert loop.consider(db, plan, AT).enqueue


def test_two_loops_beside_each_other_queue_one_run(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC)
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    threads = [threading.Thread(target=loop.consider, args=(db, plan, AT)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(db.read(runs.newest)) == 1


def test_two_schedulers_as_processes_start_one_run_for_each_batch_of_ratings(db: Database, tmp_path: Path) -> None:
    """Also where a trainer claims it at once: then the lane's queue is free again, and only the count is old."""
    db.write(add_base, AT - timedelta(days=1))
    url = db.engine.url.render_as_string(hide_password=False)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(Path(__file__).with_name("rival.py")), url, str(tmp_path)]
    rivals = [subprocess.Popen([*command, name], env=environment) for name in ("one", "other")]
    try:
        _until(lambda: all((tmp_path / name).exists() for name in ("one", "other")))
        for batch in range(1, 6):
            now = datetime.now(UTC)
            db.write(rate, 4, now)
            _until(
                lambda: (claimed := db.write(runs.claim, "w", datetime.now(UTC))) is not None and finish(db, claimed)
            )
            looks = [int((tmp_path / name).read_text() or 0) for name in ("one", "other")]
            _until(lambda seen=looks: all(  # both have looked since
                int((tmp_path / name).read_text() or 0) > before + 1
                for name, before in zip(("one", "other"), seen, strict=True)
            ))  # fmt: skip
            assert len(db.read(runs.newest)) == batch
    finally:
        (tmp_path / "stop").touch()
        for rival in rivals:
            assert rival.wait(20) == 0


def finish(db: Database, run: Run) -> bool:
    return db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.FAILED, datetime.now(UTC)) is not None


def _until(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_firing_that_finds_too_little_lapses_and_a_rating_at_noon_waits_for_the_night(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC)
    look_first(db, plan, AT - timedelta(days=3))
    db.write(add_base, AT - timedelta(days=3))
    assert loop.consider(db, plan, AT).lapses
    db.write(rate, 4, AT + timedelta(hours=1))
    assert not loop.consider(db, plan, AT + timedelta(hours=2)).enqueue
    assert codes(db) == ["not_yet"]
    assert loop.consider(db, plan, datetime(2026, 11, 25, 3, 0, 20, tzinfo=UTC)).why == "schedule"


def test_what_was_missed_in_quiet_hours_is_made_up_for_at_their_end(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC, quiet_hours="08:00-23:00")
    look_first(db, plan, AT - timedelta(days=3))
    db.write(add_base, AT - timedelta(days=3))
    db.write(rate, 4, AT)
    decision = loop.consider(db, plan, AT)
    assert (decision.enqueue, decision.due_at) == (False, datetime(2026, 11, 22, 3, 0, tzinfo=UTC))
    assert codes(db) == ["quiet_hours"]
    assert loop.consider(db, plan, datetime(2026, 11, 24, 23, 0, tzinfo=UTC)).enqueue


def test_a_queued_run_that_nobody_asked_for_is_not_claimed_in_quiet_hours(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=ZoneInfo("Asia/Shanghai"), quiet_hours="22:00-08:00")
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    assert loop.consider(db, plan, AT).enqueue
    evening = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)  # ten o'clock in Shanghai
    assert db.read(timetable.quiet_until, evening) == datetime(2026, 11, 25, 0, 0, tzinfo=UTC)
    assert db.write(runs.claim, "w", evening, asked_for=True) is None
    assert db.write(runs.claim, "w", evening) is not None
    asked = db.write(runs.enqueue, "other", {}, "command", evening)
    assert asked is not None
    claimed = db.write(runs.claim, "w", evening, asked_for=True)
    assert claimed is not None
    assert claimed.id == asked.id


def test_a_run_that_a_wrong_clock_has_dated_years_ahead_holds_nothing_up(db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", zone=UTC, cool_down_hours=5)
    look_first(db, plan, AT - timedelta(days=3))
    db.write(add_base, AT - timedelta(days=3))
    years = AT + timedelta(days=3650)
    written = db.write(runs.enqueue, "default", {}, "command", years)
    assert written is not None
    db.write(runs.ask_cancel, written.id, years)
    db.write(settings.put, loop.LAPSED_KEY, True, None, years)
    db.write(rate, 4, AT)
    assert loop.consider(db, plan, AT).why == "schedule"


def test_the_pause_counts_from_the_run_that_ended_last_though_another_was_queued_and_cancelled_meanwhile(
    db: Database,
) -> None:
    """And from when it let go of the machine, not from when somebody decided on what it made."""
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC, cool_down_hours=12)
    db.write(add_base, AT)
    trained = db.write(runs.enqueue, "default", {}, "command", AT)
    assert trained is not None
    assert db.write(runs.claim, "gpu", AT) is not None
    queued = db.write(runs.enqueue, "default", {}, "command", AT + timedelta(hours=1))
    assert queued is not None
    db.write(runs.ask_cancel, queued.id, AT + timedelta(hours=1))
    end = AT + timedelta(hours=2)
    proposed = db.write(releases_of_runs.propose, trained.id, 1, ARTEFACT, "huigan:run1-0", end)
    assert proposed is not None
    db.write(rate, 4, end)
    assert not loop.consider(db, plan, end + timedelta(minutes=1)).enqueue
    assert codes(db) == ["cooling_down"]
    releases_of_runs.reject(db, proposed.id, by_user_id=None, why="", at=end + timedelta(hours=6))
    assert not loop.consider(db, plan, end + timedelta(hours=11)).enqueue
    assert loop.consider(db, plan, end + timedelta(hours=12)).enqueue


def test_a_recipe_that_went_wrong_is_told_and_the_next_look_takes_the_right_one(sqlite_db: Database) -> None:
    found = iter([NoSuchRecipe("gone"), RECIPE])

    def recipe() -> Recipe:
        each = next(found)
        if isinstance(each, Exception):
            raise each
        return each

    plan = loop.Plan(recipe, zone=UTC)
    loop.consider(sqlite_db, plan, AT)
    assert codes(sqlite_db) == ["bad_recipe"]
    loop.consider(sqlite_db, plan, AT)
    assert codes(sqlite_db)[0] == "no_base"


def test_a_decision_is_kept_only_where_it_changed(sqlite_db: Database) -> None:
    plan = loop.Plan(lambda: RECIPE, zone=UTC)
    loop.consider(sqlite_db, plan, AT)
    loop.consider(sqlite_db, plan, AT + timedelta(minutes=1))
    kept = sqlite_db.read(settings.get, loop.DECISION_KEY)
    assert kept is not None
    assert kept.set_at == AT


def test_the_loop_looks_reaps_and_prunes_and_a_failing_chore_stops_nothing(sqlite_db: Database) -> None:
    sqlite_db.write(add_base, AT)
    sqlite_db.write(rate, 4, AT)
    sqlite_db.write(runs.enqueue, "other", {}, "test", AT)
    lost = sqlite_db.write(runs.claim, "gone", AT)
    assert lost is not None
    stop, pruned = threading.Event(), threading.Event()

    def prune(_at: datetime) -> None:
        pruned.set()
        raise RuntimeError("nothing to prune")

    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC)
    how = {"chores": {"prune": prune}, "stop": stop, "look_seconds": 0.2, "now": lambda: AT + timedelta(minutes=5)}
    thread = threading.Thread(target=loop.main, args=(sqlite_db, plan), kwargs=how)
    thread.start()
    until = time.monotonic() + 20
    try:
        while not (pruned.is_set() and {each.state for each in sqlite_db.read(runs.newest)} == {RunState.QUEUED}):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join()
    assert {each.lane for each in sqlite_db.read(runs.newest)} == {"other", "default"}


def test_a_bad_cron_is_named_before_anything_starts(sqlite_db: Database) -> None:
    with pytest.raises(BadCron, match="61"):
        loop.main(sqlite_db, loop.Plan(lambda: RECIPE, cron="61 * * * *"), stop=threading.Event())


def test_as_a_process_it_ends_clean_on_sigterm(sqlite_db: Database, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "test"\n')
    environment = {
        **os.environ,
        "HUIGAN_RECIPE": str(recipe),
        "HUIGAN_SCHEDULE": "0 3 * * *",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'huigan.db'}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "huigan", "schedules"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 30
        while sqlite_db.read(settings.get, loop.DECISION_KEY) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    assert (process.returncode, b"Traceback" in stderr) == (0, False)
    assert codes(sqlite_db)[0] == "no_base"


def test_a_run_that_only_wrote_a_data_set_neither_uses_up_ratings_nor_a_firing(sqlite_db: Database) -> None:
    before = sqlite_db.read(loop.facts, "default", AT)
    written = sqlite_db.write(runs.enqueue, "default", {}, "command", AT, dataset_only=True)
    assert written is not None
    sqlite_db.write(runs.ask_cancel, written.id, AT)
    assert sqlite_db.read(loop.facts, "default", AT) == before


def test_handled_updates_are_forgotten_after_a_week_and_others_never(sqlite_db: Database) -> None:
    for number in (1, 2, 3):
        sqlite_db.write(updates.store, number, {"update_id": number}, AT)
    sqlite_db.write(updates.mark_handled, 1, AT)
    sqlite_db.write(updates.mark_handled, 2, AT + timedelta(days=6))
    loop.forget_updates(sqlite_db, AT + timedelta(days=8))
    assert [each.update_id for each in sqlite_db.read(updates.unhandled)] == [3]
    assert sqlite_db.write(updates.store, 1, {}, AT)
    assert not sqlite_db.write(updates.store, 2, {}, AT)


def published(db: Database) -> Run:
    """A run of four ratings, whose release answers."""
    db.write(add_base, AT - timedelta(days=1))
    db.write(rate, 4, AT)
    assert db.write(runs.enqueue, RECIPE.lane, RECIPE.to_dict(), "command", AT) is not None
    claimed = db.write(runs.claim, "gpu", AT)
    assert claimed is not None
    db.write(releases_of_runs.publish, claimed.id, claimed.attempt, ARTEFACT, "huigan:run1-0", AT)
    return claimed


def test_what_somebody_took_back_is_made_anew_by_night_though_nothing_new_was_rated(db: Database) -> None:
    """And once only: the run that is queued for it stands for everybody who did."""
    plan = loop.Plan(lambda: RECIPE, zone=UTC)  # no cron at all
    look_first(db, plan, AT - timedelta(days=1))
    trained = published(db)
    assert not loop.consider(db, plan, AT + timedelta(hours=20)).enqueue
    db.write(holdings.mark, [trained.id], AT + timedelta(hours=1))
    assert not loop.consider(db, plan, AT + timedelta(hours=2)).enqueue
    assert codes(db)[0] == "rebuild_wanted"
    night = AT + timedelta(hours=15)
    assert loop.consider(db, plan, night).why == "rebuild"
    assert [each.why for each in db.read(runs.newest)] == ["rebuild", "command"]
    assert not loop.consider(db, plan, night + timedelta(minutes=1)).enqueue


def rebuilt_and_refused(db: Database, plan: loop.Plan, at: datetime) -> Run:
    """A run is queued, to make a release anew, and the gate turns it down."""
    assert loop.consider(db, plan, at).why == "rebuild"
    run = db.write(runs.claim, "gpu", at)
    assert run is not None
    db.write(releases_of_runs.turn_down, run.id, run.attempt, ARTEFACT, at)
    return run


def test_one_that_was_made_anew_and_turned_down_is_not_made_again_of_the_same(db: Database) -> None:
    """One that failed or was cancelled is tried the night after; a new rating is reason enough for another."""
    plan, night, day = loop.Plan(lambda: RECIPE, zone=UTC), AT + timedelta(hours=15), timedelta(days=1)
    look_first(db, plan, AT - day)
    db.write(holdings.mark, [published(db).id], AT + timedelta(hours=1))
    assert loop.consider(db, plan, night).why == "rebuild"
    failed = db.write(runs.claim, "gpu", night)
    assert failed is not None
    db.write(runs.move, failed.id, failed.attempt, RunState.RUNNING, RunState.FAILED, night)
    refused = rebuilt_and_refused(db, plan, night + day)
    assert not loop.consider(db, plan, night + 9 * day).enqueue
    kept = db.read(settings.get, loop.DECISION_KEY)
    assert kept is not None
    assert kept.value["reasons"][0] == {"code": "rebuild_turned_down", "params": {"run": refused.id}}
    db.write(rate, 1, night + 10 * day)
    assert loop.consider(db, plan, night + 10 * day).why == "rebuild"
    cancelled = db.read(runs.newest, 1)[0].id
    db.write(runs.ask_cancel, cancelled, night + 10 * day)
    assert loop.consider(db, plan, night + 11 * day).why == "rebuild"


def test_one_that_was_turned_down_and_holds_what_was_taken_back_since_is_made_again(db: Database) -> None:
    plan, night, day = loop.Plan(lambda: RECIPE, zone=UTC), AT + timedelta(hours=15), timedelta(days=1)
    look_first(db, plan, AT - day)
    db.write(holdings.mark, [published(db).id], AT + timedelta(hours=1))
    refused = rebuilt_and_refused(db, plan, night)
    assert not loop.consider(db, plan, night + day).enqueue
    db.write(holdings.mark, [refused.id], night + day)
    assert loop.consider(db, plan, night + day + timedelta(minutes=1)).why == "rebuild"


def test_one_that_was_turned_down_is_made_again_by_another_recipe(db: Database) -> None:
    plan, night, day = loop.Plan(lambda: RECIPE, zone=UTC), AT + timedelta(hours=15), timedelta(days=1)
    look_first(db, plan, AT - day)
    db.write(holdings.mark, [published(db).id], AT + timedelta(hours=1))
    rebuilt_and_refused(db, plan, night)
    by_hand = loop.Plan(lambda: replace(RECIPE, approval="auto"), zone=UTC)
    assert not loop.consider(db, by_hand, night + day).enqueue, "it would be the same"
    other = loop.Plan(lambda: replace(RECIPE, seed=2), zone=UTC)
    assert loop.consider(db, other, night + day).why == "rebuild"


def test_two_that_are_told_different_hours_keep_each_its_own(db: Database) -> None:
    """Beside each other on one database: neither takes the other's word for a change of its own."""
    early, late = loop.Plan(lambda: RECIPE, "0 14 * * *", zone=UTC), loop.Plan(lambda: RECIPE, "0 15 * * *", zone=UTC)
    db.write(add_base, AT)
    db.write(rate, 4, AT)
    for minute in range(120):
        for plan in (late, early):
            assert not loop.consider(db, plan, AT + timedelta(minutes=minute)).enqueue
    assert loop.consider(db, early, AT + timedelta(hours=2)).why == "schedule"
