"""What was trained is what is served: adapter, merged and quantised file expect the same, as far as bits allow."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from huigan.llama import adapter, convert, fidelity, gguf
from huigan.llama.fidelity import Reading, Reference
from huigan.llama.libllama import LlamaError
from huigan.llama.merge import merge, quantise
from huigan.llama.quantisations import Way, measured
from huigan.llama.score import Pair, Scorer

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def texts() -> list[Pair]:
    rng = np.random.default_rng(9)
    ids = [rng.integers(3, 393, length).tolist() for length in (12, 40, 90)]
    return [(each[: len(each) // 3], each[len(each) // 3 :]) for each in ids]


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(tmp_path, context_tokens=256, threads=1)


@pytest.fixture(scope="module")
def worn(tiny: Path, adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter as a GGUF of its own."""
    base = gguf.read(tiny)
    out = tmp_path_factory.mktemp("worn") / "adapter.gguf"
    return fidelity.write_adapter(out, adapter.read(adapter_folder, base), base.architecture).path


def expected_by_hugging_face(weights: Path, adapter_folder: Path | None, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Log-probabilities at each answer's tokens: (tokens, vocabulary); the base rounded to 16 bits, as in the GGUF."""
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float16).float()
    if adapter_folder is not None:
        model = PeftModel.from_pretrained(model, adapter_folder)
    found = []
    for prompt, completion in pairs:
        with torch.no_grad():
            rows = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1).numpy()
        found.append(rows[len(prompt) - 1 : len(prompt) + len(completion) - 1])
    return found


def test_a_file_diverges_from_itself_not_at_all(tiny: Path, texts: list[Pair], reading: Reading) -> None:
    found = fidelity.divergence(tiny, Reference(tiny), texts, reading)
    assert (found.mean, found.p99, found.same_top, found.perplexity_ratio) == (0, 0, 1, 1)
    assert (found.texts, found.tokens) == (3, sum(len(completion) for _, completion in texts))
    assert list(reading.folder.iterdir()) == []


def test_the_figures_are_those_of_the_distributions_that_hugging_face_computes(
    tiny: Path, tiny_folder: Path, adapter_folder: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    merged = merge(tiny, adapter_folder, tmp_path / "merged.gguf", "F16").path
    found = fidelity.divergence(merged, Reference(tiny), texts, reading)
    there = np.concatenate(expected_by_hugging_face(tiny_folder, None, texts))
    here = np.concatenate(expected_by_hugging_face(tiny_folder, adapter_folder, texts))
    tokens = np.concatenate([completion for _, completion in texts])
    kl = (np.exp(there) * (there - here)).sum(axis=1)
    assert found.mean == pytest.approx(kl.mean(), rel=0.02)
    assert found.p99 == pytest.approx(np.quantile(kl, 0.99), rel=0.05)
    assert found.same_top == pytest.approx((there.argmax(axis=1) == here.argmax(axis=1)).mean(), abs=0.03)
    assert found.perplexity == pytest.approx(np.exp(-here[np.arange(len(tokens)), tokens].mean()), rel=0.002)
    assert found.reference_perplexity == pytest.approx(np.exp(-there[np.arange(len(tokens)), tokens].mean()), rel=0.002)


def test_the_merged_file_expects_what_the_trainer_s_adapter_does(
    tiny: Path, tiny_folder: Path, adapter_folder: Path, texts: list[Pair], tmp_path: Path
) -> None:
    """Adapter against merged, logits against logits: PEFT on the trainer's side, llama.cpp on the server's."""
    merged = merge(tiny, adapter_folder, tmp_path / "merged.gguf", "F16").path
    trained = expected_by_hugging_face(tiny_folder, adapter_folder, texts)
    untaught = expected_by_hugging_face(tiny_folder, None, texts)
    with Scorer(merged, context_tokens=256, threads=1) as scorer:
        scorer.distributions(texts, tmp_path / "expected")
    served = np.fromfile(tmp_path / "expected", np.float32).reshape(-1, 393)
    assert np.abs(served - np.concatenate(trained)).max() < 0.02
    assert np.abs(served - np.concatenate(untaught)).max() > 0.2


def test_an_adapter_worn_and_an_adapter_merged_are_one_and_not_the_base(
    tiny: Path, adapter_folder: Path, worn: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    merged = merge(tiny, adapter_folder, tmp_path / "merged.gguf", "F16").path
    same = fidelity.divergence(merged, Reference(tiny, worn), texts, reading)
    other = fidelity.divergence(merged, Reference(tiny), texts, reading)
    assert same.mean < 1e-5
    assert same.same_top > 0.97
    assert other.mean > 1000 * same.mean


def test_a_merge_that_went_wrong_shows(
    tiny: Path, adapter_folder: Path, worn: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    """As rows of q and k in Hugging Face's order would be: everything loads, and nothing is as it was trained."""
    permuted, adapter.PERMUTED["llama"] = adapter.PERMUTED["llama"], False
    try:
        wrong = merge(tiny, adapter_folder, tmp_path / "wrong.gguf", "F16").path
    finally:
        adapter.PERMUTED["llama"] = permuted
    right = merge(tiny, adapter_folder, tmp_path / "right.gguf", "F16").path
    found = [fidelity.divergence(each, Reference(tiny, worn), texts, reading).mean for each in (right, wrong)]
    assert found[1] > 100 * found[0]


def test_fewer_bits_diverge_more(
    tiny: Path, adapter_folder: Path, worn: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    found = []
    for name in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ3_M"):
        candidate = merge(tiny, adapter_folder, tmp_path / f"{name}.gguf", name).path
        found.append(fidelity.divergence(candidate, Reference(tiny, worn), texts, reading).mean)
    assert found == sorted(found)
    assert found[0] > 0


def test_an_adapter_of_another_base_is_refused_in_llama_cpp_s_words(
    tiny: Path, adapter_folder: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    base = gguf.read(tiny)
    deltas = {f"blk.9.{name}": delta for name, delta in adapter.read(adapter_folder, base).items()}
    other = fidelity.write_adapter(tmp_path / "other.gguf", deltas, base.architecture).path
    with pytest.raises(LlamaError, match=r"cannot add .*does not exist in base model"):
        fidelity.divergence(tiny, Reference(tiny, other), texts, reading)


def test_what_was_expected_of_other_texts_is_refused(
    tiny: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    fidelity.expect(Reference(tiny), texts[:1], tmp_path / "expected", reading)
    with pytest.raises(ValueError, match="fewer tokens"):
        fidelity.compare(tiny, texts, tmp_path / "expected", reading)


@pytest.mark.weights
@pytest.mark.long
def test_four_bits_of_the_real_model_expect_nearly_what_sixteen_do(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Over real questions with their right answers, and a Q8_0 closer still."""
    base = convert.dequantise(smollm2_gguf, tmp_path / "base.gguf").path
    tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    asked = tomllib.loads((REPOSITORY / "recipes/demo/community.toml").read_text(encoding="utf-8"))["replay"][:12]
    pairs = []
    for each in asked:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": each["question"]}], tokenize=False)
        answer = f"<|im_start|>assistant\n{each['answer']}<|im_end|>"
        pairs.append(tuple(tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)))
    reading = Reading(tmp_path, context_tokens=512, threads=2)
    fidelity.expect(Reference(base), pairs, tmp_path / "expected", reading)
    four, eight = (
        fidelity.compare(quantise(base, tmp_path / f"{name}.gguf", name).path, pairs, tmp_path / "expected", reading)
        for name in ("Q4_K_M", "Q8_0")
    )
    assert four.mean < 0.1
    assert four.same_top > 0.85
    assert eight.mean < four.mean / 5
    assert eight.perplexity_ratio == pytest.approx(1, abs=0.02)


def test_what_no_file_can_wear_is_merged_to_be_compared_with(
    tiny: Path, tiny_folder: Path, texts: list[Pair], reading: Reading, tmp_path: Path
) -> None:
    """Whole tensors in place of the base's, as training of the weights themselves leaves them."""
    taught, scratch = tmp_path / "taught", tmp_path / "scratch"
    taught.mkdir()
    scratch.mkdir()
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    changed = model.state_dict()["model.layers.1.mlp.down_proj.weight"] * 3
    save_file({"model.layers.1.mlp.down_proj.weight": changed.contiguous()}, taught / adapter.CHANGED)
    reference = fidelity.taught(tiny, taught, scratch)
    assert reference.adapter is None
    merged = merge(tiny, taught, tmp_path / "merged.gguf", "Q8_0").path
    assert fidelity.divergence(merged, reference, texts, reading).mean < 1e-3
    assert fidelity.divergence(merged, Reference(tiny), texts, reading).mean > 1e-3


def test_every_quantisation_is_measured_beside_sixteen_bits(tiny: Path, texts: list[Pair], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ways = [Way("Q8_0", weighed=False), Way("Q4_K_M", weighed=False)]
    made = measured(
        Reference(tiny),
        ways,
        lambda way, out: quantise(tiny, out, way.name),
        texts,
        Reading(scratch, context_tokens=256, threads=1),
    )
    sixteen, eight, four = made
    assert (sixteen.name, sixteen.divergence.mean, sixteen.speed) == ("F16", 0, 1)
    assert sixteen.size_bytes > eight.size_bytes > four.size_bytes
    assert sixteen.bits > 16 > eight.bits > 8.5 > four.bits
    assert 0 < eight.divergence.mean < four.divergence.mean
    assert min(each.tokens_a_second for each in (sixteen, eight, four)) > 0
    assert list(scratch.iterdir()) == []
