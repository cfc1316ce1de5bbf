"""What may be looked at, claimed, judged and told without the libraries that train."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TRAINS = {"importance", "methods", "optimisers", "ranks", "recorder", "training", "tuning", "weights"}
BEGIN_LIGHTLY = {"methods", "weights"}  # import the heavy where they use it
HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "xllamacpp", "datasets", "pyarrow")

LOADED = """
import importlib, sys
for name in sys.argv[1].split():
    importlib.import_module(f"trainer.{name}")
print(*sorted(sys.modules.keys() & set(sys.argv[2].split())))
"""


def modules() -> set[str]:
    return {path.stem for path in (REPOSITORY / "trainer").glob("*.py")} - {"__init__"}


def test_nothing_heavy_is_loaded_before_a_stage_needs_it() -> None:
    named = " ".join(sorted(modules() - (TRAINS - BEGIN_LIGHTLY) - {"__main__"}))
    asked = [sys.executable, "-c", LOADED, named, " ".join(HEAVY)]
    told = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


def test_the_contract_on_torch_names_every_module_that_does_not_train() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["name"] == "Torch stays in training and export")
    named = {each.partition(".")[2] for each in contract["source_modules"] if each.startswith("trainer.")}
    assert named == modules() - TRAINS - {"__main__"}
