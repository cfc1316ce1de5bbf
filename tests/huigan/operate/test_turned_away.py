"""What was turned away is known again by its data, its recipe and what it started from; else it may be proposed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from huigan.operate import releases, rollbacks, turned_away
from huigan.serving.client import Ollama
from storage import datasets, deployments, runs
from storage.db import Database
from storage.recipe import Data, Recipe
from storage.records import Deployment, Release, Run, RunState
from storage.release_policy import Canary
from tests.huigan.operate.conftest import ARTEFACT, AT, Desk, minutes

RECIPE = Recipe(name="test")
STARTED = minutes(1)


def running(desk: Desk, recipe: Recipe = RECIPE, content: str = "a", *, at: datetime = STARTED) -> Run:
    """It has its data set."""
    desk.db.write(runs.enqueue, recipe.lane, recipe.to_dict(), "test", AT)
    run = desk.db.write(runs.claim, "worker", at)
    assert run is not None
    desk.db.write(datasets.add, run.id, "sft", (1, 1), {}, {}, content * 64, "/data", [], AT)
    return run


def proposed(desk: Desk, recipe: Recipe = RECIPE) -> Release:
    run = running(desk, recipe)
    made = desk.db.write(releases.propose, run.id, run.attempt, ARTEFACT, desk.tag(run), AT)
    assert made is not None
    return made


def reject(db: Database, release: Release) -> None:
    releases.reject(db, release.id, by_user_id=None, why="", at=minutes(2))


def test_a_rejected_release_is_known_again(desk: Desk, db: Database) -> None:
    older = proposed(desk)
    run = running(desk)
    assert db.read(turned_away.same_as, run.id) is None, "it was not turned away yet"
    reject(db, older)
    assert db.read(turned_away.same_as, run.id) == older.id


def test_a_release_that_was_rolled_back_is_known_again_until_somebody_makes_it_live(
    desk: Desk, db: Database, client: Ollama
) -> None:
    older = proposed(desk)
    releases.promote(db, client, older.id, by_user_id=None, at=minutes(2))
    run = running(desk)
    assert db.read(turned_away.same_as, run.id) is None
    rollbacks.rollback(db, client, by_user_id=None, at=minutes(3))
    assert db.read(turned_away.same_as, run.id) == older.id
    releases.promote(db, client, older.id, by_user_id=None, at=minutes(4))
    assert db.read(turned_away.same_as, run.id) is None


@pytest.mark.parametrize(
    ("recipe", "content", "is_same"),
    [
        (replace(RECIPE, name="other", approval="canary", canary=Canary(share=0.3)), "a", True),
        (RECIPE, "b", False),
        (replace(RECIPE, seed=7), "a", False),
        (replace(RECIPE, data=Data(min_ratings=1)), "a", False),
        (replace(RECIPE, start="continue"), "a", False),
    ],
)
def test_only_the_same_data_and_recipe_make_the_same(desk: Desk, recipe: Recipe, content: str, is_same: bool) -> None:
    older = proposed(desk)
    reject(desk.db, older)
    run = running(desk, recipe, content)
    assert desk.db.read(turned_away.same_as, run.id) == (older.id if is_same else None)


def test_going_on_from_another_live_release_makes_another(desk: Desk, db: Database) -> None:
    going_on: Any = replace(RECIPE, start="continue")
    older = proposed(desk, going_on)
    reject(db, older)
    run = running(desk, going_on)
    assert db.read(turned_away.same_as, run.id) == older.id
    db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.FAILED, minutes(3))
    db.write(deployments.deploy, older.id, "test", "test", minutes(3))
    run = running(desk, going_on, at=minutes(4))
    assert db.read(turned_away.same_as, run.id) is None


def test_a_run_without_a_data_set_is_like_none(desk: Desk, db: Database) -> None:
    reject(db, proposed(desk))
    assert db.read(turned_away.same_as, desk.running().id) is None


def test_what_the_gate_refused_is_no_release_and_may_be_tried_again(desk: Desk, db: Database) -> None:
    run = running(desk)
    db.write(releases.turn_down, run.id, run.attempt, ARTEFACT, AT)
    assert db.read(runs.get, run.id).state is RunState.REJECTED
    assert db.read(turned_away.all_of_them) == set()


@pytest.mark.parametrize(
    ("history", "gone"),
    [
        ("1 2", set()),
        ("1 2 r1", {2}),
        ("1 2 r1 2", set()),
        ("1 2 r1 3 r1", {2, 3}),
        ("1 2 3 r1", {3}),
        ("1 c2 r1", set()),
    ],
)
def test_a_rollback_goes_back_over_what_was_live(history: str, gone: set[int]) -> None:
    log = [
        Deployment(number, int(each[-1]), 0.5 if "c" in each else 1.0, "u", "rollback" if "r" in each else "p", AT)
        for number, each in enumerate(history.split(), 1)
    ]
    assert turned_away.gone_back_over(log[::-1]) == gone
