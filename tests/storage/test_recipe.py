"""pytest tests/storage/test_recipe.py: a recipe is refused whole or used whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.recipe import BadRecipe, Recipe, parse

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def complaints_of(text: str) -> dict[str, str]:
    with pytest.raises(BadRecipe) as caught:
        parse(text)
    assert str(caught.value) == "\n".join(map(str, caught.value.complaints))
    return {each.key: f"{each.problem}; {each.fix}" for each in caught.value.complaints}


def test_a_name_is_all_a_recipe_needs() -> None:
    recipe = parse('name = "plain"')
    assert (recipe.method, recipe.quantisation, recipe.approval, recipe.lane) == (
        "auto",
        "Q4_K_M",
        "approve",
        "default",
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_we_ship_is_good(path: Path) -> None:
    assert parse(path.read_text()).name == path.stem


def test_recipes_are_shipped() -> None:
    assert {path.stem for path in RECIPES} >= {"demo", "tiny", "llama3-8b-chinese-chat"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_survives_being_stored_as_json(path: Path) -> None:
    recipe = parse(path.read_text())
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_all_complaints_come_at_once_and_each_says_what_to_do() -> None:
    said = complaints_of(
        """
        name = "Has Spaces"
        metod = "sft"
        [train]
        epochs = nan
        batch = true
        learning_rat = 1
        [data]
        held_out_share = 0.9
        """
    )
    assert said["name"].startswith("is 'Has Spaces'; it must match")
    assert said["metod"] == "unknown key; did you mean method?"
    assert said["train.epochs"] == "is nan; give a finite number"
    assert said["train.batch"] == "is True; give a whole number"
    assert said["train.learning_rat"] == "unknown key; did you mean learning_rate?"
    assert said["data.held_out_share"] == "is 0.9; give a number from 0 to 0.5"
    assert len(said) == 6


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("train = 3", "train"),
        ("trl = 3", "trl"),
        ("sft = 3", "sft"),
        ("method = 'rlhf'", "method"),
        ("seed = -1", "seed"),
        ("seed = 1.0", "seed"),
        ("lane = '../up'", "lane"),
        ("sft.epoch = 1", "sft.epoch"),
        ("preference.beta = 0", "preference.beta"),
        ("trl.output_dir = '/'", "trl.output_dir"),
        ("trl.max_steps = 1", "trl.max_steps"),
        ("peft.modules_to_save = ['lm_head']", "peft.modules_to_save"),
        ("peft.r = inf", "peft"),
        ("trl.since = 2026-01-01", "trl"),
        ("train.load_in_4bit = 1", "train.load_in_4bit"),
        ("data.replay = ''", "data.replay"),
        ("data.replay = ['a', '']", "data.replay"),
        ("data.replay = [1]", "data.replay"),
        ("data.replay = ['a\\u0000b']".replace("'", '"'), "data.replay"),
        ("data.max_prompt_tokens = 9999", "data.max_prompt_tokens"),
        ("generate.num_predict = 9999", "generate.num_predict"),
        ("seed = 0x" + "f" * 9999, "seed"),
        ("peft.r = 0x" + "f" * 9999, "peft"),
        ("train.learning_rate = 0x" + "f" * 9999, "train.learning_rate"),
        ('system.text = " "', "system.text"),
        ('system.text = "a\\u0000b"', "system.text"),
        ('system.template = "{{ .Prompt }}"', "system.template"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_key(line: str, key: str) -> None:
    assert list(complaints_of(f'name = "x"\n{line}')) == [key]


@pytest.mark.parametrize("depth", range(100, 500, 40))
def test_a_deeply_nested_table_is_a_recipe_or_a_complaint(depth: int) -> None:
    text = f'name = "x"\npeft.r = {"[" * depth}{"]" * depth}'
    try:
        held = parse(text).name == "x"
    except BadRecipe as bad:
        held = bool(bad.complaints)
    assert held


@pytest.mark.parametrize("text", ["a = [", "a = " + "[" * 9999, "a = " + "9" * 9999, "\x00"])
def test_what_is_not_toml_is_refused_with_a_pointer_to_what_is(text: str) -> None:
    assert "see recipes/demo.toml" in complaints_of(text)["recipe"]


def test_a_missing_name_is_asked_for() -> None:
    assert complaints_of("") == {"name": "missing; add it"}


def test_a_stage_overrides_only_what_it_names() -> None:
    recipe = parse('name = "x"\ntrain.batch = 2\nsft.epochs = 3\npreference.learning_rate = 1e-6')
    assert (recipe.training("sft").epochs, recipe.training("sft").batch) == (3.0, 2)
    assert isinstance(recipe.training("sft").epochs, float)
    assert recipe.training("dpo") == dataclasses.replace(recipe.train, learning_rate=1e-6)


@pytest.mark.parametrize(
    ("method", "rows", "stages"),
    [
        ("auto", {"answers": 5, "pairs": 5, "thumbs": 5}, ("sft", "dpo")),
        ("auto", {"answers": 5, "pairs": 0, "thumbs": 5}, ("sft", "kto")),
        ("auto", {"answers": 5, "pairs": 0, "thumbs": 0}, ("sft",)),
        ("auto", {"answers": 0, "pairs": 5, "thumbs": 0}, ("dpo",)),
        ("auto", {"answers": 0, "pairs": 0, "thumbs": 0}, ()),
        ("orpo", {"answers": 5, "pairs": 0, "thumbs": 0}, ("orpo",)),
    ],
)
def test_auto_teaches_answers_before_taste(method: str, rows: dict[str, int], stages: tuple[str, ...]) -> None:
    assert parse(f'name = "x"\nmethod = "{method}"').stages(**rows) == stages


def test_options_left_out_are_left_to_the_server() -> None:
    recipe = parse('name = "x"\ngenerate.temperature = 0')
    assert recipe.generate.options() == {"num_ctx": 4096, "num_predict": 512, "temperature": 0.0}


def test_a_recipe_keeps_its_own_copy_of_open_tables() -> None:
    raw: dict[str, Any] = {"name": "x", "peft": {"target_modules": ["q_proj"]}}
    recipe = Recipe.from_dict(raw)
    raw["peft"]["target_modules"].append("k_proj")
    assert recipe.peft == {"target_modules": ["q_proj"]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(
    st.sampled_from([field.name for field in dataclasses.fields(Recipe)]) | st.text(), json_values, max_size=6
)


@given(tables)
def test_any_table_is_a_recipe_or_a_list_of_complaints(raw: dict[str, Any]) -> None:
    try:
        recipe = Recipe.from_dict({"name": "x"} | raw)
    except BadRecipe as bad:
        held = bool(bad.complaints)
    else:
        held = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert held


@given(st.text())
def test_any_text_is_a_recipe_or_a_list_of_complaints(text: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        parse(text + "\nunknown_key = 1")
    assert caught.value.complaints


# ---- ways to train that make no sense together


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("train.load_in_4bit = true\ntrain.load_in_8bit = true", "train.load_in_8bit"),
        ("train.tune = 'full'\ntrain.load_in_8bit = true", "train.load_in_8bit"),
        ("train.tune = 'freeze'\ntrain.load_in_4bit = true", "train.load_in_4bit"),
        ("train.tune = 'full'\npeft.r = 8", "train.tune"),
        ("train.tune = 'full'\ntrain.loraplus_ratio = 16", "train.loraplus_ratio"),
        ("train.tune = 'full'\nsft.tune = 'lora'", "sft.tune"),
        ("train.optimizer = 'galore_adamw'", "train.optimizer"),
        ("peft.init_lora_weights = 'loftq'\ntrain.load_in_4bit = false", "train.load_in_4bit"),
        ("peft.init_lora_weights = 'pissa'\ntrain.load_in_4bit = true", "train.load_in_4bit"),
        ("peft.init_lora_weights = 'olora'\ntrain.load_in_8bit = true", "train.load_in_8bit"),
        ("peft.init_lora_weights = 'pissa'\npeft.use_dora = true", "peft.use_dora"),
        ("peft.init_lora_weights = 'pissa'\nstart = 'continue'", "peft.init_lora_weights"),
        ("peft.init_lora_weights = 'eva'", "peft.init_lora_weights"),
        ("train.packing = true\ntrain.padding_free = false", "train.padding_free"),
        ("preference.dpo_loss = 'robust'", "train.label_smoothing"),
        ("preference.label_smoothing = 0.1", "preference.label_smoothing"),
        ("preference.dpo_loss = 'ipo'\npreference.ld_alpha = 0.5", "preference.ld_alpha"),
        ("method = 'kto'\npreference.ld_alpha = 0.5", "preference.ld_alpha"),
        ("method = 'kto'\npreference.dpo_loss = 'ipo'", "preference.dpo_loss"),
        ("method = 'dpo'\npreference.kto_loss = 'kto'", "preference.kto_loss"),
        ("preference.kto_loss = 'kto'\npreference.batch = 1", "preference.batch"),
        ("preference.dpo_loss = 'ipo'\ntrl.loss_type = 'hinge'", "preference.dpo_loss"),
        ("trl.optim = 'sgd'", "trl.optim"),
        ("trl.report_to = 'wandb'", "trl.report_to"),
    ],
)
def test_what_makes_no_sense_together_is_named_by_its_key(lines: str, key: str) -> None:
    assert list(complaints_of(f'name = "x"\n{lines}')) == [key]


@pytest.mark.parametrize(
    "lines",
    [
        "train.tune = 'full'\ntrain.optimizer = 'galore_adamw'\ntrain.galore_rank = 8",
        "train.tune = 'freeze'\ntrain.trained_layers = 1",
        "train.load_in_8bit = true\ntrain.loraplus_ratio = 16",
        "peft.use_dora = true\npeft.use_rslora = true",
        "peft.init_lora_weights = 'pissa_niter_4'",
        "peft.init_lora_weights = 'loftq'\ntrain.load_in_4bit = true",
        "preference.dpo_loss = 'robust'\npreference.label_smoothing = 0.1",
        "preference.dpo_loss = 'ipo'\npreference.kto_loss = 'apo_zero_unpaired'\npreference.batch = 1",
        "preference.ld_alpha = 0.5\npreference.sft_weight = 0",
        "start = 'continue'\npeft.init_lora_weights = 'gaussian'",
    ],
)
def test_what_makes_sense_together_is_let_be(lines: str) -> None:
    assert parse(f'name = "x"\n{lines}').name == "x"


@pytest.mark.parametrize(
    ("text", "weighed"),
    [
        ("", False),
        ('quantisation = "IQ4_XS"', True),
        ('quantisation = "IQ4_XS"\nimportance = false', False),
        ("importance = true", True),
        ('quantisation = "F16"', False),
    ],
)
def test_columns_are_weighed_where_bits_are_few_or_where_it_is_asked_for(text: str, weighed: bool) -> None:
    assert parse(f'name = "plain"\n{text}').weighs_columns is weighed


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ('quantisation = "IQ2_M"\nimportance = false', "choose IQ4_XS or more"),
        ('quantisation = "IQ3_XXS"\nimportance = false', "choose IQ4_XS or more"),
        ('quantisation = "F16"\nimportance = true', "leave it out"),
        ("importance_tokens = 10", "from 256"),
        ('quantisation = "IQ1_S"', '"IQ2_M"'),
    ],
)
def test_quantising_that_makes_no_sense_is_refused(text: str, fix: str) -> None:
    with pytest.raises(BadRecipe, match=fix):
        parse(f'name = "plain"\n{text}')


def test_the_gates_own_tables_are_checked_as_the_others_are() -> None:
    told = complaints_of(
        """
        name = "gate"
        [gate]
        suite = " "
        max_cases = -1
        [gate.max_loss]
        facts = 2
        taste = 0.1
        [judge]
        prompt = "Which is better?"
        max_seconds = 0
        """
    )
    assert set(told) == {
        *("gate.suite", "gate.max_cases", "gate.max_loss.facts", "gate.max_loss.taste"),
        *("judge.prompt", "judge.max_seconds"),
    }


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[gate]\nsuite = "mine.jsonl"\nmax_cases = 0', "gate.suite"),
        ('[judge]\nprompt = "{question} {one} {other}"', "judge.prompt"),
    ],
)
def test_what_nobody_would_read_is_refused(text: str, key: str) -> None:
    assert set(complaints_of(f'name = "x"\n{text}')) == {key}


def test_a_recipe_of_before_there_was_a_suite_reads_as_one_with_the_projects() -> None:
    old = parse('name = "old"').to_dict()
    new = ("suite", "max_loss", "max_cases", "max_case_tokens", "max_paragraphs")
    for name in (*new, "max_general_perplexity_ratio", "min_judge_share"):
        del old["gate"][name]
    del old["judge"]
    assert Recipe.from_dict(old) == parse('name = "old"')


def test_general_text_is_named_once_or_as_a_list() -> None:
    assert parse('name = "x"').data.replays == ()
    assert parse('name = "x"\ndata.replay = "zh.jsonl"').data.replays == ("zh.jsonl",)
    several = parse('name = "x"\ndata.replay = ["zh.jsonl", "en.jsonl"]')
    assert several.data.replays == ("zh.jsonl", "en.jsonl")
    assert Recipe.from_dict(several.to_dict()) == Recipe.from_dict(json.loads(json.dumps(several.to_dict()))) == several
