"""Where a run that continues the live release begins, once somebody has taken back what that one learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huigan.operate import releases
from huigan.serving.client import Ollama
from huigan.texts import LOCALES, text
from storage import audit, holdings, runs
from storage.db import Database
from storage.recipe import Recipe
from storage.records import Run
from tests.huigan.operate.conftest import ARTEFACT
from tests.trainer.community import AT, Community
from tests.trainer.world import tiny_recipe
from trainer import stages
from trainer.stages import Work

NOBODY = Ollama("http://127.0.0.1:9")  # whom nothing here asks


@pytest.fixture
def began(db: Database, tmp_path: Path) -> Callable[[], tuple[stages.Origin, Run]]:
    """A release of run 1 answers, whose adapter lies where its run left it. Each call begins a run that continues."""
    Community(db).live(weights="/weights")
    first = claimed(db)
    folder = stages.folder_of(tmp_path, first)
    (folder / "adapter").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / "adapter" / name).touch()
    (folder / "train.json").write_text(json.dumps({"adapter": str(folder / "adapter")}))
    assert db.write(releases.publish, first.id, first.attempt, ARTEFACT, "huigan:run1-0", AT) is not None

    def begin() -> tuple[stages.Origin, Run]:
        run = claimed(db)
        given: dict[str, Any] = {"now": lambda: AT, "tell": lambda *_: None}
        work = Work(db=db, run=run, recipe=Recipe.from_dict(run.recipe), home=tmp_path, client=NOBODY, **given)
        return stages.start(work), db.read(runs.get, run.id)

    return begin


def claimed(db: Database) -> Run:
    for lane in ("default", "other"):
        if db.write(runs.enqueue, lane, tiny_recipe(start="continue").to_dict(), "test", AT) is not None:
            break
    run = db.write(runs.claim, "test", AT)
    assert run is not None
    return run


def test_nothing_goes_on_from_a_run_that_holds_what_was_taken_back_and_the_audit_says_why(
    db: Database, began: Callable[[], tuple[stages.Origin, Run]]
) -> None:
    db.write(holdings.mark, [1], AT)
    origin, run = began()
    assert (origin.adapter, run.continues_run_id) == (None, None)
    assert db.read(holdings.of_run, run.id) is None, "it is the one that is to be clean"
    [told] = [each for each in db.read(audit.newest) if each.act == "run.from_base"]
    assert dict(told.params) == {"run": run.id, "holds": 1}
    assert all(text(locale, "act.run_from_base") for locale in LOCALES)


def test_what_goes_on_from_a_clean_run_is_marked_with_it_when_something_is_taken_back(
    db: Database, began: Callable[[], tuple[stages.Origin, Run]]
) -> None:
    origin, run = began()
    assert origin.adapter is not None
    assert run.continues_run_id == 1
    assert [each.run_id for each in db.write(holdings.mark, [1], AT)] == [1, run.id]
    assert not [each for each in db.read(audit.newest) if each.act == "run.from_base"]
