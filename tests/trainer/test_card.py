"""The graphics card is said to be taken, Ollama's files leave it, and afterwards answers find their way back to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from huigan.operate import settable
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import artefacts, deployments, gpu, releases, runs, settings
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Run, RunState
from tests.fakes.ollama import FakeOllama
from trainer import card, child
from trainer.machine import Card
from trainer.stages import GIB, Work

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


def deployed(session: Session) -> None:
    values = {"quantisation": "Q4_K_M", "weights": "/w", "template": "t", "system": "s", "parameters": {}}
    at = child.now()
    artefact = artefacts.add(session, **values, created_at=at)
    deployments.deploy(session, releases.add(session, TAG, artefact.id, at).id, "terminal", "base", at)


@dataclass
class Driver:
    """A card whose memory goes to Ollama's files and to somebody else, who leaves after so many looks."""

    fake: FakeOllama
    total: int = 24 * GIB
    others: int = 0
    leave_after: int = 10**9
    looks: int = 0

    def __call__(self) -> Card:
        self.looks += 1
        on_card = [name for name in self.fake.loaded if name not in self.fake.on_cpu]
        others = self.others if self.looks <= self.leave_after else 0
        return Card("fake", self.total, max(0, self.total - others - len(on_card) * self.fake.vram_bytes))


def test_a_run_waits_for_memory_that_somebody_else_holds_and_says_how_much_lacks(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    driver = Driver(fake, others=20 * GIB, leave_after=3)
    work = working(sqlite_db, fake, tmp_path, measure_card=driver)
    seen: list[tuple[Any, Any]] = []

    def tell(*told: Any) -> None:
        work.tell(*told)
        if not seen:
            seen.append((the_run(work).progress["waits"], sqlite_db.read(gpu.held, child.now())))

    with card.taken(replace(work, tell=tell), on_card=True, needed_bytes=8 * GIB):
        assert driver.looks > 3
        assert the_run(work).progress["waits"] == {}
    assert seen == [({"code": "card_memory", "lacks_gib": "4.0"}, None)], "answers do not wait meanwhile"


def test_it_waits_no_longer_than_it_was_told_and_goes_on(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    driver = Driver(fake, others=20 * GIB)
    work = working(sqlite_db, fake, tmp_path, measure_card=driver, card_wait_minutes=60.0)
    sqlite_db.write(settable.choose, "card_wait_minutes", "0.003", None, child.now())  # an admin beats the environment
    with card.taken(work, on_card=True, needed_bytes=8 * GIB):
        assert the_run(work).stage == "train"


def test_what_ollama_will_leave_is_not_waited_for(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    driver = Driver(fake)
    fake.vram_bytes = 20 * GIB
    work = working(sqlite_db, fake, tmp_path, measure_card=driver)
    library.warm(work.client, TAG)
    with card.taken(work, on_card=True, needed_bytes=20 * GIB):
        assert driver.looks == 1
        assert library.on_card(work.client) == []


@pytest.mark.parametrize(("setting", "left"), [("yes", {TAG}), ("no", {TAG, "huigan:old"})])
def test_where_answers_share_a_card_that_is_short_idle_tags_leave_it_by_setting_and_the_live_one_stays(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path, setting: str, left: set[str]
) -> None:
    fake.add("huigan:old")
    sqlite_db.write(deployed)
    sqlite_db.write(settings.put, gpu.SETTING, "share", None, child.now())
    sqlite_db.write(settable.choose, "unload_idle", setting, None, child.now())
    work = working(sqlite_db, fake, tmp_path, measure_card=Driver(fake), card_wait_minutes=0.0)
    for tag in (TAG, "huigan:old"):
        library.warm(work.client, tag)
    with card.taken(work, on_card=True, needed_bytes=18 * GIB):
        assert set(library.on_card(work.client)) == left


def test_nothing_is_unloaded_from_a_shared_card_with_room(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    fake.add("huigan:old")
    sqlite_db.write(settings.put, gpu.SETTING, "share", None, child.now())
    work = working(sqlite_db, fake, tmp_path, measure_card=Driver(fake))
    library.warm(work.client, "huigan:old")
    with card.taken(work, on_card=True, needed_bytes=8 * GIB):
        assert library.on_card(work.client) == ["huigan:old"]


@pytest.mark.parametrize("way", ["cpu", "wait"])
def test_the_live_release_is_on_the_card_again_before_it_is_asked(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path, way: str
) -> None:
    sqlite_db.write(deployed)
    sqlite_db.write(settings.put, gpu.SETTING, way, None, child.now())
    work = working(sqlite_db, fake, tmp_path, measure_card=Driver(fake))
    library.warm(work.client, TAG)
    with card.taken(work, on_card=True, needed_bytes=8 * GIB):
        assert library.on_card(work.client) == []
    assert library.on_card(work.client) == [TAG]


def test_a_run_that_was_killed_while_it_had_the_card_leaves_it_to_answers_all_the_same(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    sqlite_db.write(deployed)
    work = working(sqlite_db, fake, tmp_path)
    work.hold(True)
    library.warm(work.client, TAG, options=gpu.CPU_ALONE)  # an answer, meanwhile
    card.give_back_late(sqlite_db, work.client, child.now())
    assert library.on_card(work.client) == [], "it has the card still"
    sqlite_db.write(runs.release_worker, the_run(work), child.now())  # killed
    fake.inject("/api/generate", 503, "server busy, please try again.  maximum pending requests exceeded")
    with pytest.raises(ServingError):
        card.give_back_late(sqlite_db, work.client, child.now())
    card.give_back_late(sqlite_db, work.client, child.now())
    assert library.on_card(work.client) == [TAG]
    assert sqlite_db.read(gpu.left) == []


def test_a_run_that_is_cancelled_while_it_has_the_card_calls_answers_back(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path)
    with pytest.raises(child.Cancelled), card.taken(work, on_card=True):
        library.warm(work.client, TAG, options=gpu.CPU_ALONE)  # an answer, meanwhile
        sqlite_db.write(runs.ask_cancel, work.run.id, child.now())
    assert fake.loaded == {}, "else it would stay on the CPU"


def test_what_an_attempt_did_not_give_back_is_known_after_the_next(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path)
    work.hold(True)
    sqlite_db.write(runs.release_worker, the_run(work), child.now())  # killed
    again = sqlite_db.write(runs.claim, "w", child.now())
    assert again is not None
    tell = child.Teller(sqlite_db, again, child.Bars(None, None))
    tell("dataset", "", 0, 0)  # it fails before it takes the card
    sqlite_db.write(runs.move, again.id, again.attempt, RunState.RUNNING, RunState.FAILED, child.now())
    assert [each.id for each in sqlite_db.read(gpu.left)] == [again.id]


def test_where_nobody_can_measure_the_card_nothing_is_waited_for(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path, measure_card=lambda: None)
    with card.taken(work, on_card=True, needed_bytes=500 * GIB):
        assert the_run(work).stage == "train"


def test_a_run_elsewhere_waits_for_its_own_card_and_asks_ollama_nothing(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    driver = Driver(fake, others=20 * GIB, leave_after=2)
    work = working(sqlite_db, fake, tmp_path, measure_card=driver, ollama_is_here=False)
    with card.taken(work, on_card=True, needed_bytes=8 * GIB):
        assert driver.looks == 3
    assert fake.exchanges == []


def test_a_run_that_is_cancelled_while_it_waits_takes_nothing(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    work = working(sqlite_db, fake, tmp_path, measure_card=Driver(fake, others=20 * GIB))
    library.warm(work.client, TAG)
    sqlite_db.write(runs.ask_cancel, work.run.id, child.now())
    with pytest.raises(child.Cancelled), card.taken(work, on_card=True, needed_bytes=8 * GIB):
        raise AssertionError("it must not train")
    assert library.on_card(work.client) == [TAG]


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
