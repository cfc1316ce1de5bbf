"""Which optimiser takes a stage's steps: AdamW in 32 or 8 bits, Adafactor, GaLore's, or LoRA+'s two rates.

Knows models only by their parameters, and neither rows nor losses.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import transformers
from peft.optimizers import create_loraplus_optimizer

from storage.recipe import Train
from trainer.tokens import TrainingFailed

GALORE_MODULES = [r".*\.(self_attn|mlp)\..*"]  # the paper's: matrices of attention and MLP, arXiv 2403.03507


def arguments(settings: Train, *, quantised: bool) -> dict[str, Any]:
    chosen = {"auto": "paged_adamw_8bit" if quantised else "adamw_torch", "adamw": "adamw_torch"}
    name = chosen.get(settings.optimizer, settings.optimizer)
    if not name.startswith("galore"):
        return {"optim": name}
    if importlib.util.find_spec("galore_torch") is None:
        raise TrainingFailed("not_possible_here", key="train.optimizer", package="galore-torch", why="not_installed")
    rank = f"rank={settings.galore_rank}"
    return {"optim": name, "optim_target_modules": GALORE_MODULES, "optim_args": rank}


def loraplus(model: Any, args: Any, ratio: float) -> Any:
    """B learns `ratio` times as fast as A, arXiv 2402.12354."""
    optimizer_class, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
    decay = {"loraplus_weight_decay": args.weight_decay}
    return create_loraplus_optimizer(model, optimizer_class, loraplus_lr_ratio=ratio, **options | decay)
