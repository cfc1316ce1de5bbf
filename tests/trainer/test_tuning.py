"""pytest tests/trainer/test_tuning.py: whatever of the tiny Llama is trained is merged and served as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from huigan.llama import merge
from huigan.llama.score import Scorer
from storage.recipe import Stage
from tests.trainer.chats import rows, tiny_recipe
from tests.trainer.learning import check_merged, curve, killed_and_whole
from trainer import tuning
from trainer.training import Trained, train

TOKENS = [1, 50, 51, 60, 61, 62, 70, 71]
STEPS = {"train": {"max_steps": 3, "save_steps": 2}, "preference": {"max_steps": 2}}
KINDS: dict[str, dict[str, Any]] = {
    "rank-stabilised": {"peft": {"use_rslora": True, "r": 8}},
    "DoRA": {"peft": {"use_dora": True, "r": 8}},
    "PiSSA": {"peft": {"init_lora_weights": "pissa", "r": 8, "use_rslora": True}},
    "OLoRA": {"peft": {"init_lora_weights": "olora", "r": 8, "alpha_pattern": {"q_proj": 3}}},
    "LoftQ": {"peft": {"init_lora_weights": "loftq", "r": 8}},
    "LoRA+": {"train": {"loraplus_ratio": 16.0}},
    "8 bits": {"train": {"load_in_8bit": True}},
    "freeze": {"train": {"tune": "freeze", "trained_layers": 1}},
    "full": {"train": {"tune": "full"}},
    "GaLore": {"train": {"tune": "full", "optimizer": "galore_adamw", "galore_rank": 8}},
}
# Trained on other numbers than the fixed base's: what they are merged into is not what they were trained on.
LOSSY = ("LoftQ", "8 bits")


def recipe_of(kind: str) -> Any:
    tables = {name: {**STEPS.get(name, {}), **KINDS[kind].get(name, {})} for name in ("train", "preference", "peft")}
    return tiny_recipe(**tables)


def logprobs(model: Any) -> list[float]:
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([TOKENS])).logits[0].log_softmax(-1)
    return [float(scores[at - 1, TOKENS[at]]) for at in range(3, len(TOKENS))]


def served(file: Path) -> list[float]:
    with Scorer(file, context_tokens=128, threads=1) as scorer:
        (found,) = scorer.completion_logprobs([(TOKENS[:3], TOKENS[3:])])
    return list(found)


def trained_model(tiny: Path, trained: Trained, recipe: Any) -> Any:
    model = tuning.load_base(tiny, recipe.train, in_4bit=False)
    if recipe.train.tune == "lora":
        return PeftModel.from_pretrained(model, trained.adapter_dir).eval()
    tuning.put_back(model, trained.adapter_dir)
    return model.eval()


SELDOM = [pytest.param(kind, marks=pytest.mark.long) for kind in ("rank-stabilised", "OLoRA", "LoRA+")]


@pytest.mark.parametrize("kind", [*sorted(KINDS.keys() - {"rank-stabilised", "OLoRA", "LoRA+"}), *SELDOM])
def test_every_kind_is_merged_quantised_and_served_as_it_was_trained(tiny: Path, tmp_path: Path, kind: str) -> None:
    recipe = recipe_of(kind)
    trained = train(tiny, rows("sft"), recipe, tmp_path / "run", stage="sft")
    assert curve(trained)[-1]["loss"] < curve(trained)[0]["loss"]
    check_merged(tiny, trained, tmp_path)
    if kind not in LOSSY:
        whole = merge.merge(tmp_path / "base.gguf", trained.adapter_dir, tmp_path / "whole.gguf", "F16").path
        assert served(whole) == pytest.approx(logprobs(trained_model(tiny, trained, recipe)), abs=0.01)


@pytest.mark.parametrize(
    "kind", ["DoRA", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("PiSSA", "LoftQ", "full"))]
)
def test_preferences_build_on_it_and_compare_with_it(tiny: Path, tmp_path: Path, kind: str) -> None:
    recipe = recipe_of(kind)
    taught = train(tiny, rows("sft"), recipe, tmp_path / "sft", stage="sft")
    trained = train(tiny, rows("dpo"), recipe, tmp_path / "dpo", stage="dpo", adapter=taught.adapter_dir)
    first = curve(trained)[0]
    assert (first["rewards/chosen"], first["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=0.01)
    check_merged(tiny, trained, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "stage"), [("PiSSA", "sft"), ("full", "dpo")])
def test_killed_and_started_again_it_ends_the_same(tiny: Path, tmp_path: Path, kind: str, stage: Stage) -> None:
    changes = {**KINDS[kind], "preference": {"max_steps": 4}}
    resumed, whole = killed_and_whole(tiny, tmp_path, tiny_recipe(**changes), stage, None)
    (one,), (other,) = (list(each.adapter_dir.glob("*.safetensors")) for each in (resumed, whole))
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_what_is_taken_from_the_base_is_no_change_of_it(tiny: Path, tmp_path: Path) -> None:
    """PiSSA before its first step answers as the base does, and its plain form is no adapter of effect."""
    recipe = recipe_of("PiSSA")
    base = tuning.load_base(tiny, recipe.train, in_4bit=False)
    untaught = logprobs(base.eval())
    (tmp_path / "run").mkdir()
    begun = tuning.tuned(base, tiny, recipe, recipe.train, None, tmp_path / "run").eval()
    assert logprobs(begun) == pytest.approx(untaught, abs=1e-4)
    again = tuning.load_base(tiny, recipe.train, in_4bit=False)
    taken_again = tuning.tuned(again, tiny, recipe, recipe.train, None, tmp_path / "run").eval()
    for name, parameter in begun.named_parameters():
        assert torch.equal(parameter, taken_again.get_parameter(name)), name


def test_loftq_makes_up_for_some_of_what_four_bits_lose(tiny: Path, tmp_path: Path) -> None:
    recipe = recipe_of("LoftQ")
    whole = tuning.weight_of(tiny, "model.layers.0.mlp.up_proj.weight")
    model = tuning.load_base(tiny, recipe.train, in_4bit=True)
    begun = tuning.tuned(model, tiny, recipe, recipe.train, None, tmp_path)
    layer = tuning.adapted(begun)["base_model.model.model.layers.0.mlp.up_proj"]
    stored = tuning.dequantize_module_weight(layer.get_base_layer()).float()
    with torch.no_grad():
        made_up = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    best = torch.linalg.svdvals(whole - stored)[8:].norm()  # no matrices of rank 8 leave less
    assert (whole - stored - made_up).norm() == pytest.approx(float(best), rel=1e-3)


def test_frozen_layers_stay_as_they_are(tiny: Path, tmp_path: Path) -> None:
    trained = train(tiny, rows("sft"), recipe_of("freeze"), tmp_path, stage="sft")
    assert {name.split(".")[2] for name in load_file(trained.adapter_dir / tuning.CHANGED)} == {"1"}
