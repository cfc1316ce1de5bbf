"""pytest tests/trainer/test_preflight.py: what fits where, and what would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.recipe import Recipe, parse
from trainer.preflight import GIB, Machine, Preflight, Reading, Shape, preflight

RECIPES = Path(__file__).parents[2] / "recipes"
LLAMA_3_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
CARD_24_GIB = Machine(64 * GIB, 100 * GIB, 16, vram_bytes=24 * GIB, gpu="NVIDIA GeForce RTX 4090")
LAPTOP = Machine(16 * GIB, 20 * GIB, 2)
READING = Reading(texts=100, questions=30)


def recipe(name: str, extra: str = "") -> Recipe:
    return parse(extra + "\n" + (RECIPES / f"{name}.toml").read_text())


def of_8b(machine: Machine, given: Recipe | None = None, **options: Any) -> Preflight:
    given = given or recipe("llama3-8b-chinese-chat")
    return preflight(LLAMA_3_8B, given, {"sft": 500, "dpo": 300}, machine, mean_tokens=400, reading=READING, **options)


def part(checked: Preflight, resource: str, name: str) -> float:
    return next(need.parts[name] for need in checked.needs if need.resource == resource) / GIB


def needed(checked: Preflight, resource: str) -> float:
    return next(need.needed_bytes for need in checked.needs if need.resource == resource) / GIB


def test_weights_are_counted_as_the_models_makers_count_them() -> None:
    assert Shape.of(LLAMA_3_8B).weights == 8_030_261_248
    assert Shape.of(SMOLLM2_135M).weights == 134_515_008
    assert Shape.of(LLAMA_3_8B).adapter_weights(16) == 41_943_040


def test_8b_in_four_bits_fits_a_24_gib_card() -> None:
    checked = of_8b(CARD_24_GIB)
    assert checked.fits
    assert checked.advice == ()
    assert 5 < part(checked, "vram", "weights") < 6
    assert 0.2 < part(checked, "vram", "adapter") < 0.5
    assert 7 < needed(checked, "vram") < 14
    assert 1 < checked.minutes_of["train"] < 120


def test_8b_on_8_gib_is_told_what_would_fit() -> None:
    checked = of_8b(replace(CARD_24_GIB, vram_bytes=8 * GIB))
    assert not checked.fits
    (advice,) = checked.advice
    assert advice.code == "change_recipe"
    assert advice.params == {"train.batch": 1, "train.accumulate": 16, "data.max_tokens": 1024}


def test_what_is_advised_fits() -> None:
    machine = replace(CARD_24_GIB, vram_bytes=8 * GIB)
    given = recipe("llama3-8b-chinese-chat").to_dict()
    for key, value in of_8b(machine).advice[0].params.items():
        table, name = key.split(".")
        given[table][name] = value
    given["data"]["max_prompt_tokens"] = 512
    given["preference"].pop("batch")
    assert of_8b(machine, Recipe.from_dict(given)).fits


def test_8b_on_4_gib_fits_in_no_way() -> None:
    (advice,) = of_8b(replace(CARD_24_GIB, vram_bytes=4 * GIB)).advice
    assert advice.code == "no_setting_fits"
    assert advice.params["vram"] > 4 * GIB


def test_whole_weights_in_sixteen_bits_do_not_fit_8_gib_and_four_bits_are_advised() -> None:
    given = recipe("llama3-8b-chinese-chat").to_dict()
    given["train"]["load_in_4bit"] = False
    checked = of_8b(replace(CARD_24_GIB, vram_bytes=12 * GIB), Recipe.from_dict(given))
    assert part(checked, "vram", "weights") > 15
    assert checked.advice[0].params == {"train.load_in_4bit": True}


def tuned(**keys: Any) -> Recipe:
    given = recipe("llama3-8b-chinese-chat").to_dict()
    given["train"] |= keys
    given["peft"] = {} if keys.get("tune", "lora") != "lora" else given["peft"]
    return Recipe.from_dict(given)


def test_eight_bits_lie_between_four_and_sixteen() -> None:
    of = {name: part(of_8b(CARD_24_GIB, tuned(**keys)), "vram", "weights") for name, keys in BITS.items()}
    assert of["4"] < of["8"] < of["16"]
    assert of["8"] == pytest.approx(9.6, abs=1)  # 8 bits of the linear layers, 16 of the rest


BITS: dict[str, dict[str, Any]] = {
    "4": {"load_in_4bit": True},
    "8": {"load_in_4bit": False, "load_in_8bit": True},
    "16": {"load_in_4bit": False},
}


def test_training_all_of_8b_needs_a_row_of_cards_and_an_adapter_is_advised() -> None:
    checked = of_8b(CARD_24_GIB, tuned(tune="full"))
    assert needed(checked, "vram") > 16 * 8  # weights, gradients and moments in float32, and DPO's second base
    assert part(checked, "disk", "checkpoints") > 250
    assert checked.advice[0].params["train.tune"] == "lora"
    one = tuned(tune="full")
    assert (
        part(preflight(SMOLLM2_135M, one, {"sft": 9}, CARD_24_GIB, mean_tokens=99, reading=READING), "vram", "trained")
        < 2
    )


def test_galore_and_frozen_layers_need_less_than_all() -> None:
    full, galore, frozen = (
        part(of_8b(CARD_24_GIB, tuned(**keys)), "vram", "trained")
        for keys in ({"tune": "full"}, {"tune": "full", "optimizer": "galore_adamw"}, {"tune": "freeze"})
    )
    assert frozen < galore < full
    advised = of_8b(CARD_24_GIB, tuned(tune="full", optimizer="galore_adamw")).advice[0].params
    assert advised["train.optimizer"] == "auto"  # GaLore is nothing for an adapter


def test_the_demo_fits_a_laptop() -> None:
    checked = preflight(SMOLLM2_135M, recipe("demo"), {"sft": 100, "dpo": 20}, LAPTOP, mean_tokens=100, reading=READING)
    assert checked.fits
    assert {need.resource for need in checked.needs} == {"ram", "disk"}
    assert checked.minutes < 15


def test_orpo_pays_for_its_logits() -> None:
    dpo = preflight(LLAMA_3_8B, recipe("demo"), {"dpo": 10}, CARD_24_GIB, mean_tokens=100, reading=READING)
    orpo = preflight(LLAMA_3_8B, recipe("demo"), {"orpo": 10}, CARD_24_GIB, mean_tokens=100, reading=READING)
    assert part(dpo, "vram", "logits") == 0
    assert part(orpo, "vram", "logits") > 2


def test_checkpointing_trades_memory_for_time() -> None:
    given = recipe("llama3-8b-chinese-chat")
    without = replace(given, train=replace(given.train, gradient_checkpointing=False))
    assert part(of_8b(CARD_24_GIB, without), "vram", "activations") > part(of_8b(CARD_24_GIB), "vram", "activations")
    assert of_8b(CARD_24_GIB, without).minutes < of_8b(CARD_24_GIB).minutes


def test_a_full_disk_is_told_in_bytes() -> None:
    checked = of_8b(replace(CARD_24_GIB, disk_bytes=20 * GIB))
    assert [advice.code for advice in checked.advice] == ["free_disk"]
    assert checked.advice[0].params["bytes"] > 10 * GIB
    assert of_8b(replace(CARD_24_GIB, disk_bytes=20 * GIB), fetched=True).fits


def test_scoring_an_8b_file_on_a_cpu_takes_longer_than_training_it_on_a_card() -> None:
    checked = of_8b(CARD_24_GIB)
    assert checked.minutes_of["score"] > checked.minutes_of["train"]
    assert 30 < checked.minutes_of["score"] < 240
    assert 5 < checked.minutes_of["convert"] < 60
    assert of_8b(replace(CARD_24_GIB, cores=64)).minutes_of["score"] < checked.minutes_of["score"] / 3


def test_what_is_told_is_json_in_gib_and_minutes() -> None:
    told = json.loads(json.dumps(of_8b(replace(CARD_24_GIB, disk_bytes=20 * GIB)).to_dict()))
    assert (told["fits"], [each["code"] for each in told["advice"]]) == (False, ["free_disk"])
    assert told["needs"]["disk"]["available_gib"] == 20
    assert set(told["minutes"]) == {"train", "convert", "score"}


def test_weighing_columns_takes_a_while_and_more_cores_take_less() -> None:
    weighed, plain = (replace(recipe("llama3-8b-chinese-chat"), importance=each) for each in (True, False))
    of = {name: of_8b(CARD_24_GIB, given).minutes_of["convert"] for name, given in (("on", weighed), ("off", plain))}
    assert of["off"] < of["on"] < of["off"] + 15
    assert of["on"] < of_8b(replace(CARD_24_GIB, cores=4), weighed).minutes_of["convert"]


def test_a_faster_card_takes_less_time() -> None:
    assert of_8b(replace(CARD_24_GIB, gpu="NVIDIA H100 80GB HBM3")).minutes < of_8b(CARD_24_GIB).minutes


@pytest.mark.parametrize(
    "config",
    [{}, {"hidden_size": "big"}, LLAMA_3_8B | {"num_hidden_layers": 0}, {"num_attention_heads": 0, "hidden_size": 1}],
)
def test_a_config_of_another_kind_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no estimate"):
        preflight(config, recipe("tiny"), {"sft": 1}, LAPTOP, mean_tokens=10, reading=READING)


def test_an_estimate_needs_no_torch() -> None:
    code = "import sys, trainer.preflight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=RECIPES.parent).returncode == 0
