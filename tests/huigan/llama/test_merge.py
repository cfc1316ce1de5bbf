"""Base + adapter in GGUF space is what PEFT's own merge gives; what cannot be merged is refused with the fix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from huigan.llama import adapter, gguf
from huigan.llama.adapter import AdapterWithoutEffect, BadAdapter
from huigan.llama.convert import dequantise
from huigan.llama.merge import QuantisedBase, merge, quantise
from huigan.llama.score import Scorer
from tests.huigan.llama.conftest import tiny_adapter
from tests.huigan.llama.tiny import tiny_gguf

PLAIN = {}
PATTERNED = {
    "use_rslora": True,
    "alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 16},
    "rank_pattern": {"down_proj": 2, "lm_head": 8},
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
}


def furthest(one: Path, other: Path) -> float:
    """The largest difference of any weight."""
    left, right = gguf.read(one), gguf.read(other)
    assert left.tensors.keys() == right.tensors.keys()
    return max(float(np.abs(left.floats(name) - right.floats(name)).max()) for name in left.tensors)


@pytest.mark.parametrize("lora", [PLAIN, PATTERNED], ids=["plain", "patterns and rank-stabilised"])
def test_merging_equals_peft_s_own_merge(tiny_folder: Path, tiny: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    adapted = tiny_adapter(tiny_folder, tmp_path / "adapter", **lora)
    merged_weights = tmp_path / "merged"
    shutil.copytree(tiny_folder, merged_weights, ignore=shutil.ignore_patterns("*.safetensors"))
    adapted.merge_and_unload().save_pretrained(merged_weights)
    theirs = tiny_gguf(merged_weights, tmp_path / "theirs.gguf").path
    ours = merge(tiny, tmp_path / "adapter", tmp_path / "ours.gguf", "F16").path
    assert furthest(ours, theirs) < 0.0005
    assert furthest(ours, tiny) > 0.01


def test_all_key_values_are_the_base_s(tiny: Path, adapter_folder: Path, tmp_path: Path) -> None:
    merged = gguf.read(merge(tiny, adapter_folder, tmp_path / "out.gguf", "Q4_K_M").path)
    for key, entry in gguf.read(tiny).key_values.items():
        assert key == "general.file_type" or merged.key_values[key] == entry


def test_a_merged_and_quantised_file_loads_and_generates(tiny: Path, adapter_folder: Path, tmp_path: Path) -> None:
    merged = merge(tiny, adapter_folder, tmp_path / "out.gguf", "Q4_K_M").path
    with Scorer(merged, context_tokens=128, threads=1) as scorer:
        prompt = scorer.tokenize("<|im_start|>user\n回甘？<|im_end|>\n")
        (answer,) = scorer.generate([prompt], max_tokens=8)
    assert 1 <= answer.tokens <= 8


def test_progress_counts_every_tensor(tiny: Path, adapter_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    merge(tiny, adapter_folder, tmp_path / "out.gguf", "F16", progress=lambda *step: seen.append(step))
    total = len(gguf.read(tiny).tensors)
    assert seen == [("merge", done, total) for done in range(1, total + 1)]


def test_rows_are_merged_the_same_whatever_the_block(
    tiny: Path, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = merge(tiny, adapter_folder, tmp_path / "whole.gguf", "Q4_K_M")
    monkeypatch.setattr(gguf, "BLOCK_ELEMENTS", 7 * 256)
    pieces = merge(tiny, adapter_folder, tmp_path / "pieces.gguf", "Q4_K_M")
    assert furthest(whole.path, pieces.path) < 0.01


def test_merging_into_a_quantised_base_is_refused_and_the_advice_works(
    tiny: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    four_bit = quantise(tiny, tmp_path / "four.gguf", "Q4_K_M").path
    with pytest.raises(QuantisedBase, match="dequantise"):
        merge(four_bit, adapter_folder, tmp_path / "out.gguf", "Q4_K_M")
    sixteen_bit = dequantise(four_bit, tmp_path / "sixteen.gguf").path
    assert furthest(sixteen_bit, four_bit) < 0.001
    assert merge(sixteen_bit, adapter_folder, tmp_path / "out.gguf", "Q4_K_M").path.is_file()


def test_an_adapter_that_was_not_trained_is_refused(tiny_folder: Path, tiny: Path, tmp_path: Path) -> None:
    tiny_adapter(tiny_folder, tmp_path / "adapter", effect=0.0)
    with pytest.raises(AdapterWithoutEffect, match="changes nothing"):
        merge(tiny, tmp_path / "adapter", tmp_path / "out.gguf", "F16")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"modules_to_save": ["lm_head"]}, "without modules_to_save"),
        ({"bias": "all"}, 'bias = "none"'),
        ({"init_lora_weights": "pissa"}, "convert the adapter to plain LoRA"),
        ({"init_lora_weights": "loftq"}, "convert the adapter to plain LoRA"),
        ({"trainable_token_indices": [1]}, "without trainable_token_indices"),
        ({"target_parameters": ["experts"]}, "target_modules"),
        ({"peft_type": "IA3"}, "only peft_type LORA"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": "many"}, "lora_alpha"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_with_the_fix(
    tiny: Path, adapter_folder: Path, tmp_path: Path, changes: dict[str, Any], advice: str
) -> None:
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    config = json.loads((folder / adapter.CONFIG).read_text())
    (folder / adapter.CONFIG).write_text(json.dumps({**config, **changes}))
    with pytest.raises(BadAdapter, match=advice):
        adapter.read(folder, gguf.read(tiny))


def test_every_special_is_an_option_that_peft_has(adapter_folder: Path) -> None:
    config = json.loads((adapter_folder / adapter.CONFIG).read_text())
    assert set(adapter.SPECIAL) <= config.keys()


def changed(folder: Path, to: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """A copy of the adapter with matrices replaced, added, or (None) left out."""
    copy = shutil.copytree(folder, to)
    tensors = {**load_file(copy / adapter.WEIGHTS), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, copy / adapter.WEIGHTS)
    return copy


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({f"{Q}.lora_B.weight": None}, "damaged"),
        ({f"{Q}.lora_B.weight": torch.ones(256, 5)}, "do not fit together"),
        ({f"{Q}.lora_B.weight": torch.full((256, 4), float("nan"))}, "diverged"),
        ({f"{Q}.lora_A.weight": torch.ones(4, 128)}, "the base that the adapter was trained on"),
        ({f"{Q}.lora_B.weight": torch.ones(250, 4)}, "another base"),
        ({f"{Q}.lora_B.weight": torch.ones(256, 4, dtype=torch.int32)}, "float type"),
        ({"base_model.model.lm_head.weight": torch.ones(4, 4)}, "linear layers only"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 400)}, "linear layers only"),
        (
            {
                "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 256),
                "base_model.model.model.layers.9.mlp.up_proj.lora_B.weight": torch.ones(512, 4),
            },
            "the base has no tensor for",
        ),
    ],
)
def test_matrices_that_do_not_belong_to_the_base_are_refused(
    tiny: Path, adapter_folder: Path, tmp_path: Path, change: dict[str, torch.Tensor | None], complaint: str
) -> None:
    with pytest.raises(BadAdapter, match=complaint):
        adapter.read(changed(adapter_folder, tmp_path / "adapter", change), gguf.read(tiny))


def test_matrices_saved_as_bfloat16_are_read(tiny: Path, adapter_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter_folder / adapter.WEIGHTS)
    halves = changed(adapter_folder, tmp_path / "adapter", {key: one.bfloat16() for key, one in tensors.items()})
    expected = tensors[f"{Q}.lora_A.weight"].bfloat16().float().numpy()
    assert np.array_equal(adapter.read(halves, gguf.read(tiny))["blk.0.attn_q.weight"].a, expected)


def test_a_truncated_or_missing_adapter_is_refused(tiny: Path, adapter_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    weights = folder / adapter.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadAdapter, match="cannot be read"):
        adapter.read(folder, gguf.read(tiny))
    with pytest.raises(BadAdapter, match="name the folder that PEFT saved"):
        adapter.read(tmp_path, gguf.read(tiny))
