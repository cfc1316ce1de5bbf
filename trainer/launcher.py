"""One stage on several cards: `accelerate launch` starts a process for each, and this one hears what they tell.

A step stays a step on as many examples: what one process accumulated is shared among several. Nothing of torch is
imported here, and nothing of the work is done: see `trainer.ranks`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.recipe import Train
from trainer import leash
from trainer.tokens import TrainingFailed

WORK, FAILURE, TOLD = "ranks.json", "failed.json", "told: "
ENDING_SECONDS = 20.0


def processes(settings: Train, cards: int) -> int:
    """How many take part: as many as asked for or, for 0, as there are cards, if a step's batches divide among them."""
    wanted = settings.processes or cards
    return max(count for count in range(1, wanted + 1) if settings.accumulate % count == 0)


def train_from(checkpoint: Path | None, job: Any, settings: Train, count: int) -> tuple[Path, int]:
    """The last checkpoint, and the first process's peak of memory in bytes. Raises what `job.progress` does, and what
    ended the first process that failed."""
    (job.out_dir / FAILURE).unlink(missing_ok=True)
    (job.out_dir / WORK).write_text(json.dumps(told_to_ranks(checkpoint, job, settings, count), ensure_ascii=False))
    ended: dict[str, Any] = {}
    with subprocess.Popen(command(job.out_dir / WORK, count), stdout=subprocess.PIPE, text=True) as launched:
        try:
            for said in heard(launched):
                if "step" in said:
                    job.progress(job.stage, said["step"], said["steps"], said["measures"])
                else:
                    ended = said
        except BaseException:
            end(launched)
            raise
    if launched.returncode or not ended:
        raise failure(job.out_dir / FAILURE, launched.returncode)
    return Path(ended["checkpoint"]), int(ended["peak_bytes"])


def told_to_ranks(checkpoint: Path | None, job: Any, settings: Train, count: int) -> dict[str, Any]:
    shared = dataclasses.replace(settings, accumulate=settings.accumulate // count)
    return {
        "weights_dir": str(job.weights_dir),
        "adapter": job.adapter and str(job.adapter),
        "recipe": job.recipe.to_dict(),
        "settings": dataclasses.asdict(shared),
        "stage": job.stage,
        "rows": job.fit.rows,
        "in_turn": job.fit.in_turn,
        "held_out": None if job.held_out is None else job.held_out.rows,
        "report_to": list(job.report_to),
        "checkpoint": checkpoint and str(checkpoint),
        "out_dir": str(job.out_dir),
    }


def command(work: Path, count: int) -> list[str]:
    """`--multi_gpu` is torchrun, also where there is no GPU; for CPUs accelerate would want mpirun. On the leash: ranks
    end with the launcher, and it with us."""
    held = [sys.executable, "-I", leash.__file__, str(os.getpid())]
    options = ["--multi_gpu", "--num_processes", str(count), "--num_machines", "1", "--main_process_port", "0"]
    neither = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options, *neither]
    return [*held, *launch, "-m", "trainer.ranks", str(work)]


def heard(launched: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert launched.stdout is not None
    for line in launched.stdout:
        if line.startswith(TOLD):
            yield json.loads(line.removeprefix(TOLD))


def end(launched: subprocess.Popen[str]) -> None:
    launched.terminate()
    try:
        launched.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        launched.kill()


def failure(path: Path, returncode: int) -> Exception:
    """What the first process that failed wrote down."""
    if not path.is_file():
        return TrainingFailed("process_died", returncode=returncode)
    said = json.loads(path.read_text())
    if "code" in said:
        return TrainingFailed(said["code"], **said["params"])
    if "errno" in said:
        return OSError(said["errno"], said["text"])
    return RuntimeError(said["text"])
