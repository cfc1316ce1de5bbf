"""The graphics card is said to be taken, Ollama's files leave it, and afterwards answers find their way back to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from huigan.serving import library
from huigan.serving.client import Ollama
from storage import gpu, runs, settings
from storage.db import Database
from storage.recipe import Recipe
from storage.records import Run
from tests.fakes.ollama import FakeOllama
from trainer import card, child
from trainer.stages import Work

TAG = "huigan:live"


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add(TAG)
        running.vram_bytes = 5 * 2**30
        yield running


def working(db: Database, fake: FakeOllama, folder: Path, **options: Any) -> Work:
    recipe = Recipe.from_dict({"name": "test", "serving": {"while_training": "cpu"}})
    db.write(runs.enqueue, "default", recipe.to_dict(), "test", child.now())
    run = db.write(runs.claim, "w", child.now())
    assert run is not None
    tell = child.Teller(db, run, child.Bars(None, None))
    how: dict[str, Any] = {"tell": tell, "note": tell.note, "point": tell.point, "hold": tell.hold}
    how |= {"ollama_is_here": True, "patience_seconds": 2.0} | options
    return Work(db, run, recipe, folder, Ollama(fake.host, timeout_seconds=10), child.now, **how)


def the_run(work: Work) -> Run:
    return work.db.read(runs.get, work.run.id)


def test_what_is_loaded_leaves_the_card_before_training_and_answers_come_back_to_it(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path)
    library.warm(work.client, TAG)
    assert library.on_card(work.client) == [TAG]
    with card.taken(work, on_card=True):
        assert library.on_card(work.client) == []
        held = sqlite_db.read(gpu.held, child.now())
        assert held is not None
        assert (held.run_id, held.way) == (work.run.id, "cpu")
        library.warm(work.client, TAG, options=gpu.CPU_ALONE)  # an answer, meanwhile
        assert library.on_card(work.client) == []
    assert sqlite_db.read(gpu.held, child.now()) is None
    assert fake.loaded == {}, "else it would stay on the CPU"


@pytest.mark.parametrize("where", [{"ollama_is_here": False}, {"on_card": False}])
def test_a_run_elsewhere_takes_nothing(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path, where: dict[str, bool]
) -> None:
    on_card = where.pop("on_card", True)
    work = working(sqlite_db, fake, tmp_path, **where)
    library.warm(work.client, TAG)
    with card.taken(work, on_card=on_card):
        assert sqlite_db.read(gpu.held, child.now()) is None
        assert library.on_card(work.client) == [TAG]


def test_where_answers_share_the_card_nothing_is_unloaded(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path)
    sqlite_db.write(settings.put, gpu.SETTING, "share", None, child.now())
    library.warm(work.client, TAG)
    with card.taken(work, on_card=True):
        assert the_run(work).progress[gpu.NOTE]
        assert sqlite_db.read(gpu.held, child.now()) is None
        assert library.on_card(work.client) == [TAG]


def test_the_card_is_given_back_whatever_ends_the_training_and_no_ollama_is_no_hindrance(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path)
    fake.stop()
    with pytest.raises(KeyboardInterrupt), card.taken(work, on_card=True):
        assert sqlite_db.read(gpu.held, child.now()) is not None
        raise KeyboardInterrupt
    assert sqlite_db.read(gpu.held, child.now()) is None
    fake.start()


def test_what_will_not_leave_the_card_does_not_hold_up_the_run_for_ever(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path, patience_seconds=0.1)
    library.warm(work.client, TAG)
    fake.inject("/api/generate", 500, "busy with somebody else", times=1000)
    with card.taken(work, on_card=True):
        assert the_run(work).stage == "train"


def test_points_wait_for_the_database_and_none_is_lost(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    from storage import run_points
    from tests.trainer.world import Away

    work = working(sqlite_db, fake, tmp_path)
    away = Away(sqlite_db, times=1)
    work.point("sft", 1, {"loss": 2.0})
    work.tell("train", "sft", 1, 3)
    assert away.times == 0
    work.point("sft", 2, {"loss": 1.0})
    work.tell("merge", "", 0, 0)
    assert [each.step for each in sqlite_db.read(run_points.curve, work.run.id)] == [1, 2]
