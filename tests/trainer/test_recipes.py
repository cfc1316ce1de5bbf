"""The recipes that come with the program: each can be read, with the general questions that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.recipe import parse
from trainer import replay
from trainer.measures import script

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: str(path.stem))
def test_every_packaged_recipe_can_be_used(path: Path) -> None:
    recipe = parse(path.read_text(encoding="utf-8"))
    assert recipe.name == path.stem
    mixed_in = replay.read(recipe.data.replays, recipe.system.text)
    assert bool(mixed_in.rows) is bool(mixed_in.controls) is (recipe.data.replay is not None)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.toml")), ids=lambda path: str(path.parent.name))
def test_no_control_is_trained_on_or_answered_by_repeating_it(path: Path) -> None:
    mixed_in = replay.read([str(path)], "s")
    taught = {prompt[-1][1] for prompt, _ in mixed_in.rows}
    controls = {each.question for each in mixed_in.controls}
    assert not taught & controls
    assert len(controls) == len(mixed_in.controls)
    assert [each.question for each in mixed_in.controls if each.is_right(each.question)] == []


def test_the_8b_recipe_knows_whether_chinese_and_english_were_kept() -> None:
    recipe = parse((RECIPES / "llama3-8b-chinese-chat.toml").read_text(encoding="utf-8"))
    mixed_in = replay.read(recipe.data.replays, recipe.system.text)
    asked = [script(each.question) for each in mixed_in.controls]
    answered = [script(answer) for _, answer in mixed_in.rows]
    assert min(asked.count("cjk"), asked.count("latin")) >= 14
    assert min(answered.count("cjk"), answered.count("latin")) >= 15
    assert recipe.gate.max_generated_tokens >= recipe.generate.num_predict
