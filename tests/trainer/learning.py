"""What a training must have done, wherever it ran: for the tests on a CPU and for those on a card."""

from __future__ import annotations

import gc
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from huigan.llama import merge
from huigan.llama.score import Scorer
from storage.recipe import Recipe, Stage
from tests.huigan.llama.tiny import tiny_gguf
from tests.trainer.chats import rows, tiny_recipe
from trainer.tokens import fitting
from trainer.training import Job, Trained, load_tokenizer, train

REPOSITORY = Path(__file__).parents[2]
LINEARS = 7  # of one layer


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(trained.adapter_dir / "adapter_model.safetensors")
    return loaded


def broken(tiny: Path, folder: Path) -> Path:
    """A copy of the weights that gives no numbers."""
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][:] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def curve(trained: Trained) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trained.curves.read_text().splitlines()]


def job_of(tiny: Path, folder: Path, stage: Stage, recipe: Recipe | None = None, adapter: Path | None = None) -> Job:
    recipe, tokenizer = recipe or tiny_recipe(), load_tokenizer(tiny)
    fit = fitting(tokenizer, rows(stage), stage, recipe.data)
    folder.mkdir(exist_ok=True)
    return Job(tiny, adapter, recipe, stage, fit, tokenizer, folder, lambda *_: None)


def check_trained(trained: Trained) -> None:
    """An adapter with effect, without a copy of its reference, and a whole curve."""
    assert any(tensor.abs().max() > 0 for name, tensor in weights(trained).items() if "lora_B" in name)
    assert {name for name in weights(trained) if "ref" in name.split(".")} == set()
    points = [point for point in curve(trained) if "eval_loss" not in point]
    assert [point["step"] for point in points] == list(range(1, trained.steps + 1))
    assert all(math.isfinite(point["loss"]) and point["learning_rate"] >= 0 for point in points)
    assert not (trained.adapter_dir.parent / "checkpoints").exists()


def check_nf4(model: Any) -> None:
    """Every linear map below the head lies in nf4 whose constants are quantised, too."""
    quantised = [each for each in model.modules() if isinstance(each, Linear4bit)]
    assert len(quantised) == model.config.num_hidden_layers * LINEARS
    assert {each.weight.quant_state.quant_type for each in quantised} == {"nf4"}
    assert all(each.weight.quant_state.nested for each in quantised)
    assert not any(each.weight.requires_grad for each in quantised)


def check_merged(tiny: Path, trained: Trained, folder: Path) -> None:
    """The adapter, merged into the 16-bit base and quantised, is a file that llama.cpp loads and that answers
    otherwise than the base."""
    tiny_gguf(tiny, folder / "base.gguf")
    merged = merge.merge(folder / "base.gguf", trained.adapter_dir, folder / "merged.gguf", "Q8_0").path
    merge.quantise(folder / "base.gguf", folder / "untaught.gguf", "Q8_0")
    scores = []
    for file in (merged, folder / "untaught.gguf"):
        with Scorer(file, context_tokens=128, threads=1) as scorer:
            (found,) = scorer.completion_logprobs([([1, 50, 51], [60, 61, 62])])
            scores.append(found)
    assert all(math.isfinite(each) for found in scores for each in found)
    assert scores[0] != scores[1]


def models() -> int:
    return sum(type(each) in (PeftModelForCausalLM, LlamaForCausalLM) for each in gc.get_objects())


KILLED = """
import json, os, signal, sys
from pathlib import Path
from storage.recipe import Recipe
from trainer.training import train
tiny, folder, stage, adapter, recipe, rows, step = json.loads(sys.stdin.read())
def kill_at(_stage, now, _steps, _loss):
    if now == step:
        os.kill(os.getpid(), signal.SIGKILL)
train(Path(tiny), rows, Recipe.from_dict(recipe), Path(folder), stage=stage,
      adapter=Path(adapter) if adapter else None, progress=kill_at)
"""


def killed_and_whole(
    tiny: Path, folder: Path, recipe: Recipe, stage: Stage, adapter: Path | None
) -> tuple[Trained, Trained]:
    """A training killed at its third step and gone on from the second, and one that was left alone."""
    work = [str(tiny), str(folder / "killed"), stage, adapter and str(adapter), recipe.to_dict(), rows(stage), 3]
    child = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(work), text=True, cwd=REPOSITORY, capture_output=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert (folder / "killed" / "checkpoints" / "checkpoint-2").is_dir()
    told: list[int] = []
    resumed = train(
        tiny,
        rows(stage),
        recipe,
        folder / "killed",
        stage=stage,
        adapter=adapter,
        progress=lambda _stage, step, *_: told.append(step),
    )
    assert told[0] == 3
    return resumed, train(tiny, rows(stage), recipe, folder / "whole", stage=stage, adapter=adapter)
