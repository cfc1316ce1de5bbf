"""Which adapter a run goes on from where its recipe says `continue`: that of the live release, as its run left it.

It is merged into the fixed base again, with what the run adds; nothing is ever merged into a release.
"""

from __future__ import annotations

import json
from pathlib import Path

from storage.recipe import Recipe
from trainer.tokens import TrainingFailed

TRAINED = "train.json"  # of a run's folder, written by its training


def adapter_in(folder: Path, recipe: Recipe, tag: str) -> Path:
    """Raises TrainingFailed where it is gone, or is of another kind than the recipe trains."""
    trained = folder / TRAINED
    adapter = Path(json.loads(trained.read_bytes())["adapter"]) if trained.is_file() else None
    if adapter is None or not any(adapter.glob("*.safetensors")):
        raise TrainingFailed("adapter_gone", tag=tag, folder=str(folder))
    is_adapter = (adapter / "adapter_config.json").is_file()
    if is_adapter != (recipe.train.tune == "lora"):
        raise TrainingFailed("adapter_of_another_kind", tag=tag, tune=recipe.train.tune)
    return adapter
