"""Who has the graphics card, and what answers do meanwhile: by recipe, by setting, and only while a run beats."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage import gpu, runs, settings
from storage.db import Database
from storage.gpu import Held

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
CPU = {"serving": {"while_training": "cpu"}}


def training(db: Database, recipe: dict[str, Any], lane: str = "default", **progress: Any) -> int:
    db.write(runs.enqueue, lane, recipe, "test", AT)
    run = db.write(runs.claim, "w", AT)
    assert run is not None
    db.write(runs.report, run.id, run.attempt, "train", progress, AT)
    return run.id


def test_a_run_has_the_card_while_it_says_so_and_beats(sqlite_db: Database) -> None:
    number = training(sqlite_db, CPU, gpu=True, left_seconds={"train": 600, "run": 900, "at": AT.isoformat()})
    assert sqlite_db.read(gpu.held, AT + timedelta(seconds=30)) == Held(number, "cpu", 570.0)
    assert sqlite_db.read(gpu.held, AT + timedelta(seconds=90)) is None, "its worker is silent"
    sqlite_db.write(runs.report, number, 1, "merge", {"gpu": False}, AT)
    assert sqlite_db.read(gpu.held, AT) is None
    sqlite_db.write(runs.report, number, 1, "train", {"gpu": True}, AT)
    assert sqlite_db.read(gpu.held, AT) == Held(number, "cpu", None)
    run = sqlite_db.read(runs.get, number)
    sqlite_db.write(runs.release_worker, run, AT)
    assert sqlite_db.read(gpu.held, AT) is None, "it runs no more"


@pytest.mark.parametrize(
    ("recipe", "chosen", "way"),
    [
        (CPU, None, "cpu"),
        (CPU, "wait", "wait"),
        (CPU, "share", None),
        ({}, None, None),
        ({}, "cpu", "cpu"),
        ({"serving": {"while_training": "wait"}}, "nonsense", "wait"),
    ],
)
def test_a_setting_beats_the_recipe(sqlite_db: Database, recipe: dict[str, Any], chosen: str | None, way: str) -> None:
    training(sqlite_db, recipe, gpu=True)
    if chosen is not None:
        sqlite_db.write(settings.put, gpu.SETTING, chosen, None, AT)
    held = sqlite_db.read(gpu.held, AT)
    assert (held.way if held else None) == way


def test_of_two_runs_the_one_that_keeps_it_longest_counts(sqlite_db: Database) -> None:
    training(sqlite_db, CPU, "a", gpu=True, left_seconds={"train": 60, "at": AT.isoformat()})
    longest = training(sqlite_db, CPU, "b", gpu=True, left_seconds={"train": 6000, "at": AT.isoformat()})
    held = sqlite_db.read(gpu.held, AT)
    assert held is not None
    assert (held.run_id, held.minutes_left) == (longest, 100)
