"""What a training leaves on disk, so that it can be killed at any instant and gone on from. Knows no torch.

A folder belongs to one piece of work, named by a fingerprint: whatever another left there is deleted, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.recipe import Recipe, Stage
from trainer import patience, seals
from trainer.patience import Look
from trainer.tokens import Row

MARK = "whole"  # the name of the file that is written last into a checkpoint


def fingerprint(weights_dir: Path, rows: Sequence[Row], recipe: Recipe, stage: Stage, adapter: Path | None) -> str:
    """Equal for equal work. Weights count by their config: a folder of weights never changes under its name."""
    digest = hashlib.sha256((weights_dir / "config.json").read_bytes())
    digest.update(json.dumps([stage, recipe.to_dict(), list(rows)], sort_keys=True).encode())
    for file in sorted(adapter.glob("*.safetensors")) if adapter is not None else ():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare_folder(out_dir: Path, key: str, *, keep: bool) -> None:
    started = out_dir / "started.json"
    if not (keep and started.is_file() and started.read_text() == key):
        for name in ("checkpoints", "adapter", "tensorboard"):
            shutil.rmtree(out_dir / name, ignore_errors=True)
        for name in ("curves.jsonl", "trained.json", "beginning.safetensors"):
            (out_dir / name).unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    started.write_text(key)


def finished(out_dir: Path, key: str) -> dict[str, Any] | None:
    """What `record` kept for this very work."""
    path = out_dir / "trained.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return kept["result"] if kept.get("key") == key else None


def record(out_dir: Path, key: str, result: dict[str, Any]) -> None:
    part = out_dir / "trained.json.part"
    with part.open("w") as file:
        json.dump({"key": key, "result": result}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(out_dir / "trained.json")


def last_whole(checkpoints: Path) -> Path | None:
    """The newest that was written to its end; the halves that a kill left are deleted, lest they be counted as kept."""
    whole = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / MARK).is_file() and seals.holds(folder / MARK, folder):
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=step_of, default=None)


def mark_whole(checkpoint: Path) -> None:
    seals.put(checkpoint / MARK, checkpoint)


def state_of(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text())
    return state


def is_final(checkpoint: Path, patience_looks: int) -> bool:
    """Whether nothing comes after it: the last step, or held-out rows were learnt no better for that many looks."""
    state = state_of(checkpoint)
    return bool(state["global_step"] >= state["max_steps"]) or patience.is_over(looks(checkpoint), patience_looks)


def looks(checkpoint: Path) -> list[Look]:
    """Those of the whole training up to there, kills or not."""
    return patience.looks(state_of(checkpoint)["log_history"])


def best(checkpoint: Path) -> Path:
    """The checkpoint whose loss on held-out rows was least, which the Trainer keeps beside the last one; where nobody
    looked, the last one."""
    found = patience.best(looks(checkpoint))
    kept = checkpoint if found is None else checkpoint.with_name(f"checkpoint-{found.step}")
    return kept if (kept / MARK).is_file() else checkpoint


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def keep_curves(path: Path, steps: int) -> None:
    """Drops the points after the checkpoint that training goes on from, and the half line a kill may have left."""
    if not path.is_file():
        return
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= steps))
