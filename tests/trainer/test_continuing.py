"""pytest tests/trainer/test_continuing.py: a run that continues the live release starts from its adapter."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from huigan.serving.client import Ollama
from storage import runs
from storage.recipe import Recipe
from storage.records import Run, RunState
from tests.fakes.ollama import FakeOllama
from tests.trainer.chats import rows
from tests.trainer.learning import curve
from tests.trainer.world import World, counting_ollama, tiny_base, tiny_recipe
from trainer import child, pipeline, stages
from trainer.stages import Work
from trainer.tokens import TrainingFailed
from trainer.training import train_stages


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[FakeOllama]:
    with counting_ollama(tiny) as fake:
        yield fake


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tiny: Path, server: FakeOllama) -> World:
    """A world whose live release is the adapter of its first run, merged; no test of this module changes it."""
    world = World(tmp_path_factory.mktemp("released"), tiny, server)
    first = world.enqueue(recipe(start="continue"))  # of a base there is nothing to continue: as from the base
    assert pipeline.run(work_of(world, first)).state is RunState.RELEASED
    return world


def recipe(**changes: Any) -> Recipe:
    steps = {"train": {"max_steps": 2}, "preference": {"max_steps": 2, "sft_weight": 0.0}}
    return tiny_recipe(quantisation="F16", **steps | changes)


def work_of(world: World, run: Run) -> Work:
    given = {"db": world.db, "patience_seconds": 0.0, "threads": 1, "tell": lambda *_: None}
    client = Ollama(world.ollama.host)
    return Work(run=run, recipe=Recipe.from_dict(run.recipe), home=world.home, client=client, now=child.now, **given)


def asked_for(world: World, chosen: Recipe) -> Work:
    """As the next run would be; nothing is queued."""
    return dataclasses.replace(work_of(world, world.db.read(runs.get, 1)), recipe=chosen)


def folder_of_first(world: World, home: Path) -> Path:
    return stages.folder_of(home, world.db.read(runs.get, 1))


def test_the_first_run_of_a_base_has_nothing_to_continue(released: World) -> None:
    assert json.loads((folder_of_first(released, released.home) / "start.json").read_text())["adapter"] is None


def test_it_starts_from_the_live_adapter_and_compares_with_it(released: World, tmp_path: Path) -> None:
    chosen = recipe(start="continue", method="dpo")
    origin = stages.start(asked_for(released, chosen))
    first = folder_of_first(released, released.home)
    assert origin.adapter is not None
    assert origin.adapter.is_relative_to(first)
    (trained,) = train_stages(released.tiny / "weights", {"dpo": rows("dpo")}, chosen, tmp_path, start=origin.adapter)
    point = curve(trained)[0]
    assert (point["rewards/chosen"], point["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=1e-5)
    (fresh,) = train_stages(released.tiny / "weights", {"dpo": rows("dpo")}, chosen, tmp_path / "fresh")
    assert curve(fresh)[0]["logps/chosen"] != pytest.approx(point["logps/chosen"], abs=0.5)


def test_by_default_every_run_starts_from_the_base(released: World) -> None:
    assert stages.start(asked_for(released, recipe())).adapter is None


def test_another_kind_of_training_cannot_continue_it(released: World) -> None:
    chosen = recipe(start="continue", train={"max_steps": 2, "tune": "full"})
    with pytest.raises(TrainingFailed) as caught:
        stages.start(asked_for(released, chosen))
    assert (caught.value.code, caught.value.params["tune"]) == ("adapter_of_another_kind", "full")


def test_an_adapter_that_is_gone_is_said_to_be(released: World, tmp_path: Path) -> None:
    home = shutil.copytree(released.home, tmp_path / "home")
    shutil.rmtree(folder_of_first(released, home))
    work = dataclasses.replace(asked_for(released, recipe(start="continue")), home=home)
    with pytest.raises(TrainingFailed) as caught:
        stages.start(work)
    assert caught.value.code == "adapter_gone"
    assert child.failure_of(caught.value)["tag"] == released.tag()
