"""pytest tests/trainer/test_stopping.py: held-out rows end a stage and choose its checkpoint, kills or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from storage.recipe import Stage
from tests.trainer.chats import row, rows, tiny_recipe
from tests.trainer.learning import curve, weights
from trainer import patience, recorder
from trainer.methods import STAGES
from trainer.patience import FEWEST_ROWS, Look
from trainer.tokens import TrainingFailed
from trainer.training import Trained, curve_of, train


def held_out(stage: Stage, count: int = FEWEST_ROWS) -> list[dict[str, object]]:
    return [row(stage, at) for at in range(100, 100 + count)]


# So fast that it is soon past the best: what is held out is not what is trained on.
STEEP = {
    "train": {"learning_rate": 3e-2, "max_steps": 40, "save_steps": 2, "patience": 2},
    "peft": {"lora_dropout": 0.1},
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_method_looks_at_its_held_out_rows(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    trained = train(tiny, rows(stage), tiny_recipe(), tmp_path, stage=stage, held_out=held_out(stage))
    looked = [point["eval_loss"] for point in curve(trained) if "eval_loss" in point]
    assert len(looked) == trained.steps / 2 == trained.held_out["looks"]
    assert trained.held_out["rows"] == FEWEST_ROWS
    assert trained.held_out["loss"] == min(looked)
    shown = dict(curve_of(trained))
    assert [shown[step]["held_out_loss"] for step in sorted(shown) if "held_out_loss" in shown[step]] == looked


def stopped_early(tiny: Path, folder: Path, **options: object) -> Trained:
    return train(
        tiny,
        rows("sft"),
        tiny_recipe(**STEEP),
        folder,
        stage="sft",
        held_out=held_out("sft"),
        **options,  # type: ignore[arg-type]
    )


def test_a_stage_ends_when_held_out_rows_are_learnt_no_better_and_keeps_its_best(tiny: Path, tmp_path: Path) -> None:
    trained = stopped_early(tiny, tmp_path)
    looked = {point["step"]: point["eval_loss"] for point in curve(trained) if "eval_loss" in point}
    best = min(looked, key=lambda step: (looked[step], step))
    assert trained.steps == best + 2 * 2 < 40
    assert trained.held_out["kept_step"] == best
    assert trained.held_out["stopped_early"]


class Kill:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, _stage: Stage, step: int, _steps: int, _measures: Mapping[str, float]) -> None:
        if step == self.step:
            raise KeyboardInterrupt


def test_killed_anywhere_it_ends_with_the_same_step_and_adapter(tiny: Path, tmp_path: Path) -> None:
    whole = stopped_early(tiny, tmp_path / "whole")
    for at in (whole.held_out["kept_step"] + 1, whole.steps):
        with pytest.raises(KeyboardInterrupt):
            stopped_early(tiny, tmp_path / f"at {at}", progress=Kill(at))
        again = stopped_early(tiny, tmp_path / f"at {at}")
        assert (again.steps, again.held_out) == (whole.steps, whole.held_out)
        assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(again).items())
        assert list(curve_of(again)) == list(curve_of(whole))


@pytest.mark.parametrize(("count", "patience_looks", "why"), [(7, 3, "too_few_rows"), (8, 0, "patience_0")])
def test_without_enough_rows_or_patience_nobody_looks_and_the_run_says_so(
    tiny: Path, tmp_path: Path, count: int, patience_looks: int, why: str
) -> None:
    recipe = tiny_recipe(train={"patience": patience_looks})
    trained = train(tiny, rows("sft"), recipe, tmp_path, stage="sft", held_out=held_out("sft", count))
    assert trained.held_out == {"rows": 0, "off": why}
    assert not any("eval_loss" in point for point in curve(trained))


def test_looking_changes_nothing_of_what_is_learnt(tiny: Path, tmp_path: Path) -> None:
    seen = train(tiny, rows("sft"), tiny_recipe(), tmp_path / "seen", stage="sft", held_out=held_out("sft"))
    blind = train(tiny, rows("sft"), tiny_recipe(), tmp_path / "blind", stage="sft")
    losses = [[point["loss"] for point in curve(each) if "loss" in point] for each in (seen, blind)]
    assert losses[0] == losses[1]


# ---- the rule by itself


@pytest.mark.parametrize(
    ("losses", "over"),
    [([], False), ([3, 2, 1], False), ([1, 2], False), ([1, 2, 3], True), ([2, 1, 1, 1], True), ([3, 4, 2, 5], False)],
)
def test_patience_counts_looks_since_the_best(losses: list[float], over: bool) -> None:
    assert patience.is_over([Look(step, loss) for step, loss in enumerate(losses)], 2) is over


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    assert patience.best([Look(1, float("nan")), Look(2, 5.0)]) == Look(2, 5.0)
    assert patience.is_over([Look(1, float("nan")), Look(2, float("nan"))], 2)


def test_tensorboard_has_every_step_once(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=Kill(4))
    trained = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft")
    assert scalars(tmp_path / recorder.EVENTS) == pytest.approx(
        {point["step"]: point["loss"] for point in curve(trained)}, rel=1e-5
    )


def scalars(folder: Path) -> dict[int, float]:
    """The losses in TensorBoard's files, as TensorBoard shows them: a later file replaces what it begins again."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[int, float] = {}
    for path in sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime_ns):
        for raw in records(path.read_bytes()):
            event = Event.FromString(raw)
            if event.HasField("session_log"):
                found = {step: loss for step, loss in found.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found[event.step] = value.simple_value
    return found


def records(data: bytes) -> list[bytes]:
    """TFRecord: length, its checksum, the record, its checksum."""
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        found.append(data[at + 12 : at + 12 + length])
        at += 16 + length
    return found


def test_an_absent_tracker_is_named_before_training(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as caught:
        train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", report_to=["no_such_tracker"])
    assert (caught.value.code, caught.value.params) == ("tracker_missing", {"name": "no_such_tracker"})
    assert not (tmp_path / "adapter").exists()
