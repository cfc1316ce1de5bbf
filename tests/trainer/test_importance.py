"""Importance is what the trained model's layers are given, added up over prompts and approved answers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from huigan.llama import gguf
from huigan.llama import importance as importances
from storage.recipe import Recipe
from tests.huigan.llama.conftest import tiny_adapter
from tests.trainer.world import tiny_base
from trainer import importance
from trainer.stages import tokenizer_of
from trainer.tokens import Row, render_ids

RECIPE = Recipe.from_dict({"name": "weighed"})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_base(tmp_path_factory.mktemp("weighed"))
    tiny_adapter(folder / "weights", folder / "adapter")
    return folder


def row(n: int, **more: Any) -> Row:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": f"What is {n}?"}]
    return {"prompt": prompt, **{name: [{"role": "assistant", "content": text}] for name, text in more.items()}}


def measured(base: Path, rows: dict[Any, list[Row]], recipe: Recipe = RECIPE) -> gguf.Gguf:
    out = base / "importance.gguf"
    given = (base / "weights", base / "adapter", base / "base.gguf", rows, recipe, tokenizer_of(base / "weights"), out)
    importance.measure(*given, progress=lambda *_: None)
    return gguf.read(out)


def test_it_is_the_mean_square_of_each_column_s_input_in_the_merged_model(base: Path) -> None:
    rows = [row(1, completion="It is one."), row(2, completion="回甘，二。")]
    found = importances.read(measured(base, {"sft": rows}).path, gguf.read(base / "base.gguf"))
    merged = tiny_adapter(base / "weights", base / "again").merge_and_unload().eval()
    tokenizer, inputs = tokenizer_of(base / "weights"), []
    down = merged.model.layers[1].mlp.down_proj
    hook = down.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0].detach().numpy()))
    for each in rows:
        ids = render_ids(tokenizer, [*each["prompt"], *each["completion"]], answer_next=False)
        with torch.no_grad():
            merged(torch.tensor([ids]))
    hook.remove()
    assert np.allclose(found["blk.1.ffn_down.weight"], (np.concatenate(inputs) ** 2).mean(axis=0), rtol=1e-3, atol=1e-9)
    inside = [name for name, tensor in gguf.read(base / "base.gguf").tensors.items() if name.startswith("blk.")]
    assert set(found) == {name for name in inside if "norm" not in name}


def test_the_first_layer_is_given_the_embedding_s_norm_whatever_is_above(base: Path) -> None:
    rows = [row(1, completion="It is one.")]
    found = importances.read(measured(base, {"sft": rows}).path, gguf.read(base / "base.gguf"))
    ids = render_ids(tokenizer_of(base / "weights"), [*rows[0]["prompt"], *rows[0]["completion"]], answer_next=False)
    model = AutoModelForCausalLM.from_pretrained(base / "weights", dtype=torch.float32)
    with torch.no_grad():
        given = model.model.layers[0].input_layernorm(model.model.embed_tokens(torch.tensor(ids))).numpy()
    assert np.allclose(found["blk.0.attn_q.weight"], (given**2).mean(axis=0), rtol=1e-4)


def test_only_what_people_approved_of_is_read_and_each_text_once(base: Path) -> None:
    pair = row(2, chosen="It is two.", rejected="Never heard of it.")
    rows = {
        "sft": [row(1, completion="It is one."), row(1, completion="It is one.")],
        "dpo": [pair],
        "kto": [{**row(3, completion="Three."), "label": True}, {**row(4, completion="No idea."), "label": False}],
    }
    spans = importance.spans(tokenizer_of(base / "weights"), rows, RECIPE)
    texts = sorted(tokenizer_of(base / "weights").decode(span.ids[span.prompt_tokens :]) for span in spans)
    assert [text.partition("<|im_end|>")[0] for text in texts] == ["It is one.", "It is two.", "Three."]


def test_reading_ends_when_there_are_tokens_enough_and_chooses_the_same_again(base: Path) -> None:
    few = Recipe.from_dict({"name": "few", "importance_tokens": 256})
    rows = {"sft": [row(n, completion=f"It is {n}.") for n in range(40)]}
    tokenizer = tokenizer_of(base / "weights")
    spans = importance.spans(tokenizer, rows, few)
    assert 256 <= sum(len(span.ids) for span in spans) < 256 + max(len(span.ids) for span in spans)
    assert spans == importance.spans(tokenizer, rows, few)
    assert [span.ids for span in spans] != [span.ids for span in importance.spans(tokenizer, rows, RECIPE)][
        : len(spans) - 1
    ]
