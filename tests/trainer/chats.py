"""Rows of every stage, and the tiny Llama they are trained on, for the tests of what trains."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from storage.recipe import Recipe, Stage

SYSTEM = "You are a helpful assistant."
TINY_RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.toml"


def prompt(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def rows(stage: Stage, count: int = 16) -> list[dict[str, Any]]:
    return [row(stage, at) for at in range(count)]


def row(stage: Stage, at: int) -> dict[str, Any]:
    asked = prompt(f"茶馆{at}号几点开门？")
    if stage == "sft":
        return {"prompt": asked, "completion": answer(f"早上{at}点。")}
    if stage == "kto":
        return {"prompt": asked, "completion": answer(f"早上{at}点。"), "label": at % 3 > 0}
    return {"prompt": asked, "chosen": answer(f"早上{at}点。"), "rejected": answer("What is the capital?")}


def tiny_recipe(**changes: dict[str, Any]) -> Recipe:
    """recipes/tiny.toml with some keys of some tables changed."""
    raw = tomllib.loads(TINY_RECIPE.read_text())
    for table, values in changes.items():
        raw[table] = raw.get(table, {}) | values
    return Recipe.from_dict(raw)
