"""What a training tells while it runs: a point of its curves after each step, and after each look at held-out rows.

`curves.jsonl` is the record that a resumed training goes on with; TensorBoard's events are written beside it, always,
and other trackers are told where the environment names them. This module does not know models or rows.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.integrations import TensorBoardCallback

from storage.recipe import Stage
from trainer import checkpoints, patience
from trainer.tokens import TrainingFailed

# (stage, step, steps in all, what was measured)
Progress = Callable[[Stage, int, int, Mapping[str, float]], None]

# What people want to see of TRL's log, and what it is called here.
SHOWN = {
    "loss": "loss",
    "eval_loss": "held_out_loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "mean_token_accuracy": "token_accuracy",
    "grad_norm": "gradient",
    "learning_rate": "learning_rate",
}
# DPO and KTO compare with a frozen copy of what they start from: before the first update rewards are rounding errors.
MAX_FIRST_REWARD = 0.05
EVENTS = "tensorboard"


def silent(_stage: Stage, _step: int, _steps: int, _measures: Mapping[str, float]) -> None:
    """Progress for callers that show none."""


class Recorder(transformers.TrainerCallback):  # type: ignore[misc]
    """Writes a curve point and tells progress after each step; ends a training that has lost its way, or learns no
    more. A step's point is told when what the held-out rows said of it is known."""

    def __init__(self, out_dir: Path, stage: Stage, progress: Progress, patience_looks: int) -> None:
        self.out_dir, self.stage, self.progress, self.patience = out_dir, stage, progress, patience_looks

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "eval_loss" in numbers:
            self.write(state, {"eval_loss": numbers["eval_loss"]})
        if "loss" not in numbers:  # also the summary at the end
            return
        if not math.isfinite(numbers["loss"]):
            raise TrainingFailed("loss_not_finite", stage=self.stage, step=state.global_step)
        if state.global_step == 1 and self.stage in ("dpo", "kto"):
            check_reference(numbers)
        self.write(state, numbers)
        if not control.should_evaluate:
            self.progress(self.stage, state.global_step, state.max_steps, shown(numbers))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **_: Any) -> None:
        if patience.is_over(patience.looks(state.log_history), self.patience):
            control.should_training_stop = True
        if state.is_world_process_zero:
            step = {**last_of(state.log_history, "loss"), "eval_loss": metrics.get("eval_loss")}
            self.progress(self.stage, state.global_step, state.max_steps, shown(step))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.world_size > 1:  # each process writes its own dice
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoints.mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def write(self, state: Any, numbers: Mapping[str, float]) -> None:
        point = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with (self.out_dir / "curves.jsonl").open("a") as file:
            file.write(json.dumps({"stage": self.stage, "step": state.global_step} | point) + "\n")


def last_of(history: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((each for each in reversed(history) if name in each), {})


def shown(logged: Mapping[str, Any]) -> dict[str, float]:
    """A point of the curves as it is told: what is no number, or was not measured, is left out."""
    found = {name: logged.get(key) for key, name in SHOWN.items()}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def curve(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, measures) of a stage, from its folder: also of the stretches before a kill."""
    points: dict[int, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        logged = json.loads(line)
        points.setdefault(logged["step"], {}).update(shown(logged))
    yield from points.items()


def check_reference(numbers: Mapping[str, float]) -> None:
    for name in ("rewards/chosen", "rewards/rejected"):
        if abs(numbers.get(name, 0.0)) > MAX_FIRST_REWARD:
            raise TrainingFailed("wrong_reference", reward=numbers[name])


# ---- TensorBoard and others


def check_trackers(names: Sequence[str]) -> None:
    """Raises TrainingFailed, before anything is loaded."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise TrainingFailed("tracker_missing", name=name)


def trackers(names: Sequence[str], out_dir: Path, *, first_step: int) -> list[Any]:
    """TensorBoard's callback, and those of the trackers that the environment names. W&B and MLflow read where they are,
    and their secrets, from the environment: none passes through here."""
    from transformers.integrations import get_reporting_integration_callbacks

    return [tensorboard(out_dir, first_step), *(each() for each in get_reporting_integration_callbacks(list(names)))]


def tensorboard(out_dir: Path, first_step: int) -> Any:
    """`purge_step`: what a killed training had told of the steps that are trained again is hidden."""
    from tensorboardX import SummaryWriter

    # Files are named by the second in which they are begun.
    writer = SummaryWriter(str(out_dir / EVENTS), purge_step=first_step + 1, filename_suffix=f".{first_step}")
    return TensorBoardCallback(writer)


def end_trackers(names: Sequence[str]) -> None:
    """transformers leaves W&B's run open, and would write the next stage into it."""
    if "wandb" in names:
        import wandb

        wandb.finish()
