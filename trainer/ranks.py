"""One of several processes that train one stage together, as `accelerate launch` starts it.

The first tells on its standard output how far all are. Whichever fails first writes down why, for the others fail with
it and know less. This module does not know what a run is.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from storage.recipe import Recipe, Stage, Train
from trainer import training, tuning
from trainer.launcher import FAILURE, TOLD
from trainer.leash import PR_SET_PDEATHSIG
from trainer.tokens import TrainingFailed, fitting
from trainer.training import Job


def main(path: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    told = json.loads(path.read_bytes())
    try:
        work(told)
    except Exception as error:
        with contextlib.suppress(FileExistsError), (Path(told["out_dir"]) / FAILURE).open("x") as file:
            json.dump(described(error), file)
        raise


def work(told: Mapping[str, Any]) -> None:
    settings, job = Train(**told["settings"]), job_of(told)
    in_4bit = tuning.is_in_4bit(job.recipe, settings)
    checkpoint = Path(told["checkpoint"]) if told["checkpoint"] else None
    with training.quiet_libraries():
        last = training.train_from(checkpoint, job, settings, in_4bit=in_4bit)
    if int(os.environ["RANK"]) == 0:
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else training.peak_process_bytes()
        say({"checkpoint": str(last), "peak_bytes": peak})
    torch.distributed.destroy_process_group()


def job_of(told: Mapping[str, Any]) -> Job:
    """The rows are those that fitted, in their order."""
    recipe, stage, weights_dir = Recipe.from_dict(told["recipe"]), told["stage"], Path(told["weights_dir"])
    tokenizer = training.load_tokenizer(weights_dir)
    fit = fitting(tokenizer, told["rows"], stage, recipe.data)
    held_out = None if told["held_out"] is None else fitting(tokenizer, told["held_out"], stage, recipe.data)
    return Job(
        weights_dir,
        Path(told["adapter"]) if told["adapter"] else None,
        recipe,
        stage,
        dataclasses.replace(fit, in_turn=told["in_turn"]),
        tokenizer,
        Path(told["out_dir"]),
        progress,
        held_out,
        tuple(told["report_to"]),
    )


def progress(_stage: Stage, step: int, steps: int, measures: Mapping[str, float]) -> None:
    say({"step": step, "steps": steps, "measures": dict(measures)})


def say(what: Mapping[str, Any]) -> None:
    sys.stdout.write(f"{TOLD}{json.dumps(what)}\n")
    sys.stdout.flush()


def described(error: Exception) -> dict[str, Any]:
    if isinstance(error, TrainingFailed):
        return {"code": error.code, "params": json.loads(json.dumps(error.params, default=str))}
    if isinstance(error, RuntimeError) and training.is_out_of_memory(error):
        return {"text": training.NO_MEMORY_WORDS}
    if isinstance(error, OSError) and error.errno is not None:
        return {"errno": error.errno, "text": str(error)}
    return {"text": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
