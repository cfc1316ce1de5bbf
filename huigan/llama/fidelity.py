"""How far a file's expectations are from another's, over the same real text: what quantising or merging has cost.

Both are asked, token by token of given answers, what they expect next. KL divergence and agreement on the likeliest
token are what `llama-perplexity --kl-divergence` of llama.cpp tells, too. The reference may wear an adapter, which
llama.cpp then adds as it computes: so a merged file is compared with what was merged into it, and no merged 16-bit file
has to be written for that. It knows token ids, and nothing of examples, bars or verdicts.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from huigan.llama import adapter, gguf
from huigan.llama.adapter import Delta
from huigan.llama.gguf import KeyValue, Tensor, Written
from huigan.llama.merge import merge
from huigan.llama.score import Pair, Progress, Scorer


@dataclass(frozen=True)
class Divergence:
    """Of a file from a reference. `mean` and `p99` are KL divergences in nats a token."""

    texts: int
    tokens: int
    mean: float
    p99: float
    same_top: float  # share of tokens where both expect the same
    reference_perplexity: float
    perplexity: float

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity / self.reference_perplexity


@dataclass(frozen=True)
class Reference:
    """16 bits, which others are compared with: a file, and an adapter that it wears (a GGUF of its own) if any."""

    path: Path
    adapter: Path | None = None


@dataclass(frozen=True)
class Reading:
    """How the files are read. `folder` takes four bytes for each token and word of the vocabulary, for a while."""

    folder: Path
    context_tokens: int
    threads: int
    progress: Progress | None = None


def divergence(candidate: Path, reference: Reference, texts: Sequence[Pair], reading: Reading) -> Divergence:
    """Of `candidate` from `reference`, over (prompt, answer) pairs.

    Raises BadGguf, LlamaError, ScorerDied, OSError; ValueError where a text does not fit.
    """
    with tempfile.TemporaryDirectory(dir=reading.folder) as scratch:
        expected = Path(scratch) / "expected"
        expect(reference, texts, expected, reading)
        return compare(candidate, texts, expected, reading)


def expect(reference: Reference, texts: Sequence[Pair], out: Path, reading: Reading) -> None:
    """The first half of `divergence`, for a reference that several files are compared with."""
    with opened(reference.path, reading, reference.adapter) as scorer:
        scorer.distributions(texts, out, progress=reading.progress)


def compare(candidate: Path, texts: Sequence[Pair], expected: Path, reading: Reading) -> Divergence:
    """The second half: `expected` was written for the same texts."""
    with opened(candidate, reading) as scorer:
        return divergence_of(scorer.divergences(texts, expected, progress=reading.progress), len(texts))


def divergence_of(told: Sequence[tuple[float, bool, float, float]], texts: int) -> Divergence:
    kl, same, there, here = (np.array(column, np.float64) for column in zip(*told, strict=True))
    return Divergence(
        texts=texts,
        tokens=len(told),
        mean=float(kl.mean()),
        p99=float(np.quantile(kl, 0.99)),
        same_top=float(same.mean()),
        reference_perplexity=math.exp(-there.mean()),
        perplexity=math.exp(-here.mean()),
    )


def opened(path: Path, reading: Reading, worn: Path | None = None) -> Scorer:
    return Scorer(path, context_tokens=reading.context_tokens, threads=reading.threads, sequences=1, adapter=worn)


def taught(base: Path, adapter_folder: Path, scratch: Path) -> Reference:
    """What was trained, in 16 bits: the base with the adapter on. What cannot be worn is merged, in `scratch`."""
    header = gguf.read(base)
    deltas = adapter.read(adapter_folder, header)
    plain = {name: each for name, each in deltas.items() if isinstance(each, Delta)}
    if len(plain) == len(deltas):
        return Reference(base, write_adapter(scratch / "worn.gguf", plain, header.architecture).path)
    return Reference(merge(base, adapter_folder, scratch / "sixteen.gguf", "F16").path)


def write_adapter(out: Path, deltas: Mapping[str, Delta], architecture: str) -> Written:
    """An adapter as llama.cpp loads it. Each pair has its scale already in it, so alpha is 0, which says so."""
    values = {}
    for name, delta in deltas.items():
        values[f"{name}.lora_a"] = np.asarray(delta.a, np.float32)
        values[f"{name}.lora_b"] = np.asarray(delta.b * np.float32(delta.scale), np.float32)
    tensors = [Tensor(name, value.shape, GGMLQuantizationType.F32) for name, value in values.items()]
    text = GGUFValueType.STRING
    key_values = [
        KeyValue.of("general.type", "adapter", text),
        KeyValue.of("general.architecture", architecture, text),
        KeyValue.of("adapter.type", "lora", text),
        KeyValue.of("adapter.lora.alpha", 0.0, GGUFValueType.FLOAT32),
    ]
    return gguf.write(out, key_values, tensors, lambda tensor: [values[tensor.name]])
