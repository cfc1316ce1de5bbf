"""pytest -m long tests/trainer/test_ranks.py: two CPU processes train one adapter, with one curve, kills or not."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from storage.recipe import Stage
from tests.trainer.chats import row, rows, tiny_recipe
from tests.trainer.learning import broken, check_trained, curve, weights
from tests.trainer.processes import until
from trainer import launcher
from trainer.ranks import described
from trainer.tokens import TrainingFailed
from trainer.training import Trained, is_out_of_memory, train

REPOSITORY = Path(__file__).parents[2]
SHARED = {"batch": 2, "accumulate": 2, "save_steps": 2}
HELD_OUT = {stage: [row(stage, at) for at in range(100, 108)] for stage in ("sft", "dpo", "kto", "orpo")}


class Kill:
    """Raised where a run is cancelled: every process must be gone, and the next attempt go on."""

    def __init__(self, step: int, seen: list[Path], folder: Path) -> None:
        self.step, self.seen, self.folder = step, seen, folder

    def __call__(self, _stage: Stage, step: int, _steps: int, _measures: Mapping[str, float]) -> None:
        if step == self.step:
            self.seen += self.folder.rglob("*")
            raise KeyboardInterrupt


def trained_by(count: int, tiny: Path, folder: Path, stage: Stage = "sft", **options: object) -> Trained:
    recipe = tiny_recipe(train={**SHARED, "processes": count}, peft={"lora_dropout": 0.0})
    return train(tiny, rows(stage), recipe, folder, stage=stage, held_out=HELD_OUT[stage], **options)  # type: ignore[arg-type]


def ranks() -> list[str]:
    return [
        path.read_bytes().decode() for path in Path("/proc").glob("[0-9]*/cmdline") if b"trainer.ranks" in read(path)
    ]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_why_the_first_process_failed_reaches_the_one_that_started_it(tmp_path: Path) -> None:
    def told(error: Exception) -> Exception:
        (tmp_path / launcher.FAILURE).write_text(json.dumps(described(error)))
        return launcher.failure(tmp_path / launcher.FAILURE, 1)

    memory = told(torch.OutOfMemoryError("CUDA out of memory"))
    assert isinstance(memory, RuntimeError)
    assert is_out_of_memory(memory)  # so that the batch is halved, for all
    named = told(TrainingFailed("tokens_differ", row=3))
    assert isinstance(named, TrainingFailed)
    assert (named.code, named.params) == ("tokens_differ", {"row": 3})
    full = told(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, OSError)
    assert full.errno == errno.ENOSPC
    assert "the lamp went out" in str(told(ValueError("the lamp went out")))
    dead = launcher.failure(tmp_path / "nothing", -9)
    assert isinstance(dead, TrainingFailed)
    assert dead.code == "process_died"


@pytest.mark.long
def test_two_processes_give_one_s_adapter_and_one_curve_also_after_a_kill(tiny: Path, tmp_path: Path) -> None:
    alone = trained_by(1, tiny, tmp_path / "one")
    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        trained_by(2, tiny, tmp_path / "two", progress=Kill(4, seen, tmp_path / "two" / "checkpoints"))
    whole = {each.parent for each in seen if each.name == "whole"}
    assert whole
    assert all({each / f"rng_state_{rank}.pth" for rank in (0, 1)} <= set(seen) for each in whole)
    told: list[int] = []
    both = trained_by(2, tiny, tmp_path / "two", progress=lambda _stage, step, *_: told.append(step))
    assert (both.processes, told[-1]) == (2, both.steps)
    assert 1 < told[0] <= 5
    check_curves(both, alone)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(both)[name], tensor, atol=2e-4, rtol=0)
    assert both.held_out["looks"] == alone.held_out["looks"] == 3


def check_curves(one: Trained, other: Trained) -> None:
    for name in ("loss", "eval_loss"):
        left, right = ([(each["step"], each[name]) for each in curve(of) if name in each] for of in (one, other))
        assert [step for step, _ in left] == [step for step, _ in right]
        assert [value for _, value in left] == pytest.approx([value for _, value in right], abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["dpo", "kto", "orpo"])
def test_every_method_trains_in_two_processes(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    check_trained(trained_by(2, tiny, tmp_path, stage))


@pytest.mark.long
def test_what_ends_one_process_ends_the_training_by_name(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as caught:
        trained_by(2, broken(tiny, tmp_path / "broken"), tmp_path / "out")
    assert (caught.value.code, caught.value.params["step"]) == ("loss_not_finite", 1)
    assert not [each for each in ranks() if str(tmp_path) in each]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from storage.recipe import Recipe
from trainer.training import train
tiny, folder, recipe, rows = json.loads(sys.stdin.read())
train(Path(tiny), rows, Recipe.from_dict(recipe), Path(folder), stage="sft",
      progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.long
def test_no_process_outlives_the_one_that_started_it(tiny: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(train={**SHARED, "processes": 2, "max_steps": 10_000})
    work = json.dumps([str(tiny), str(tmp_path), recipe.to_dict(), rows("sft")])
    child = subprocess.run([sys.executable, "-c", KILLED], input=work, text=True, cwd=REPOSITORY, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    until(lambda: not [each for each in ranks() if str(tmp_path) in each])
