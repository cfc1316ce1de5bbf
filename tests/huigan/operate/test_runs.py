"""Runs as an operator starts and cancels them, and the news of how they end."""

from __future__ import annotations

from datetime import timedelta

from huigan.operate import runs, settable, workers
from huigan.operate.refusals import Refusal
from storage import audit, deployments, outbox, settings, users
from storage import runs as stored
from storage.db import Database
from storage.records import Run, RunState
from tests.huigan.operate.conftest import ARTEFACT, AT, RECIPE, Desk, minutes


def enqueue(db: Database, **how: object) -> runs.Enqueued | Refusal:
    return runs.enqueue(db, RECIPE, why="command", by_user_id=None, at=AT, **how)  # type: ignore[arg-type]


def queued(db: Database) -> Run:
    added = enqueue(db)
    assert isinstance(added, runs.Enqueued)
    return added.run


def test_a_run_is_queued_with_its_whole_recipe_and_says_whether_a_trainer_lives(db: Database, desk: Desk) -> None:
    first = enqueue(db)
    assert isinstance(first, runs.Enqueued)
    assert (first.run.recipe, first.trainer_lives) == (RECIPE.to_dict(), False)
    db.write(workers.mark_seen, "gpu-1", AT - timedelta(seconds=5))
    runs.cancel(db, first.run.id, by_user_id=None, at=AT)
    second = enqueue(db)
    assert isinstance(second, runs.Enqueued)
    assert second.trainer_lives


def test_what_an_admin_says_of_releases_beats_the_recipe_and_stands_in_the_run(db: Database, desk: Desk) -> None:
    for said, expected in (("canary", "canary"), ("a word of tomorrow", RECIPE.approval), (None, RECIPE.approval)):
        db.write(settings.put, settable.APPROVAL, said, None, AT)
        run = queued(db)
        assert run.recipe == {**RECIPE.to_dict(), "approval": expected}
        runs.cancel(db, run.id, by_user_id=None, at=AT)


def test_a_second_run_in_the_queue_is_refused_and_names_the_first(db: Database, desk: Desk) -> None:
    first = queued(db)
    assert enqueue(db) == Refusal("already_queued", {"run": first.id, "lane": "default"})
    assert [each.params.get("refused") for each in db.read(audit.newest)][:2] == ["already_queued", None]


def test_without_a_base_only_a_data_set_can_be_built(db: Database) -> None:
    assert enqueue(db) == Refusal("no_base")
    assert isinstance(enqueue(db, dataset_only=True), runs.Enqueued)


def test_a_base_without_weights_cannot_be_trained(db: Database, desk: Desk) -> None:
    run = desk.running()
    from huigan.operate import releases

    db.write(releases.publish, run.id, run.attempt, {**ARTEFACT, "weights": None}, "huigan:bare-0", AT)
    assert enqueue(db) == Refusal("no_weights", {"tag": "huigan:bare-0"})


def test_a_queued_run_is_cancelled_at_once_and_a_running_one_is_asked(db: Database, desk: Desk) -> None:
    waiting = queued(db)
    done = runs.cancel(db, waiting.id, by_user_id=None, at=minutes(1))
    assert isinstance(done, runs.Cancelled)
    assert done.run.state is RunState.CANCELLED
    running = desk.running()
    asked = runs.cancel(db, running.id, by_user_id=None, at=minutes(1))
    assert isinstance(asked, runs.Cancelled)
    assert (asked.run.state, asked.run.cancel_asked_at) == (RunState.RUNNING, minutes(1))


def test_what_neither_waits_nor_runs_cannot_be_cancelled(db: Database, desk: Desk) -> None:
    waiting = queued(db)
    runs.cancel(db, waiting.id, by_user_id=None, at=AT)
    assert runs.cancel(db, waiting.id, by_user_id=None, at=AT) == Refusal(
        "run_not_active", {"run": waiting.id, "state": RunState.CANCELLED}
    )
    assert runs.cancel(db, 99, by_user_id=None, at=AT) == Refusal("unknown_run", {"run": 99})
    assert [each.act for each in db.read(audit.newest)][:3] == ["run.cancel"] * 3


def test_whoever_asked_for_a_run_hears_how_it_ended(db: Database, desk: Desk) -> None:
    ann = db.write(users.meet, "telegram", "1", "Ann", None, AT)
    added = runs.enqueue(db, RECIPE, why="command", by_user_id=ann.id, at=AT)
    assert isinstance(added, runs.Enqueued)
    claimed = db.write(stored.claim, "gpu-1", AT)
    assert claimed is not None
    db.write(runs.fail, claimed.id, claimed.attempt, {"code": "disk_full", "free_gib": 1}, minutes(1))
    assert db.write(runs.fail, claimed.id, claimed.attempt, {"code": "again"}, minutes(1)) is None
    (notice,) = db.read(outbox.unsent)
    assert (notice.code, notice.user_id, notice.params["error"]["code"]) == ("run_failed", ann.id, "disk_full")


def test_a_run_that_lost_its_worker_too_often_fails_and_says_so_once(db: Database, desk: Desk) -> None:
    run = desk.running()
    for attempt in (1, 2, 3):
        now = minutes(attempt * 10)
        (moved,) = db.write(runs.reap, now, now)
        claimed = db.write(stored.claim, "gpu-1", now)
        assert (claimed is None) == (attempt == 3)
    assert (moved.state, moved.error) == (RunState.FAILED, {"code": "worker_lost", "attempts": 3})
    assert [each.code for each in db.read(outbox.unsent)] == ["run_failed"]
    assert db.read(stored.get, run.id).attempt == 3


def test_a_worker_that_leaves_in_order_costs_no_attempt(db: Database, desk: Desk) -> None:
    run = desk.running()
    for _ in range(5):
        handed = db.write(runs.lose, run, AT, orderly=True)
        assert handed is not None
        assert handed.state is RunState.QUEUED
        claimed = db.write(stored.claim, "gpu-1", AT)
        assert claimed is not None
        run = claimed
    moved = db.write(runs.lose, run, AT)
    assert moved is not None
    assert (moved.state, moved.attempt) == (RunState.QUEUED, 6)


def test_a_trainer_is_believed_to_live_until_it_leaves_or_falls_silent(db: Database) -> None:
    assert not db.read(workers.is_alive, AT)
    db.write(workers.mark_seen, "gpu-1", AT)
    assert db.read(workers.is_alive, AT + timedelta(seconds=59))
    assert not db.read(workers.is_alive, AT + timedelta(seconds=60))
    db.write(workers.mark_gone, "gpu-2", AT)
    assert db.read(workers.is_alive, AT)
    db.write(workers.mark_gone, "gpu-1", AT)
    assert db.read(workers.seen) is None


def test_a_setting_is_overwritten_also_by_two_at_once(db: Database) -> None:
    import threading

    threads = [
        threading.Thread(target=lambda n=n: [db.write(settings.put, "k", n, None, AT) for _ in range(10)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = db.read(settings.get, "k")
    assert found is not None
    assert found.value in range(4)
    assert db.read(deployments.live) is None
