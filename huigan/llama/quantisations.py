"""What each quantisation of the same weights costs and saves: size, divergence, perplexity and speed, beside 16 bits.

Everything is measured on one machine, over the same texts; speed in rounds that alternate with the 16-bit file's, so
that a machine that is busy is busy for both. This module does not know where weights or texts come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huigan.llama import fidelity, gguf
from huigan.llama.fidelity import Divergence, Reading, Reference
from huigan.llama.gguf import Written
from huigan.llama.score import Pair, Scorer

ROUNDS, ANSWERS, ANSWER_TOKENS = 3, 4, 32


@dataclass(frozen=True)
class Way:
    """A quantisation, and whether columns are weighed by their importance."""

    name: str
    weighed: bool


@dataclass(frozen=True)
class Measured:
    """`speed` is tokens a second answering a question, as a multiple of the 16-bit file's in the same minute."""

    name: str
    weighed: bool
    size_bytes: int
    bits: float  # a weight, over the whole file
    divergence: Divergence
    tokens_a_second: float
    speed: float


def measured(
    reference: Reference,
    ways: Sequence[Way],
    make: Callable[[Way, Path], Written],
    texts: Sequence[Pair],
    reading: Reading,
) -> Iterator[Measured]:
    """The reference first, then one way after the other; `make` writes a file, which is deleted when it is measured.

    Raises what `huigan.llama.fidelity` and `make` raise.
    """
    weights = sum(tensor.rows * tensor.shape[-1] for tensor in gguf.read(reference.path).tensors.values())
    expected, out = reading.folder / "expected", reading.folder / "quantised.gguf"
    try:
        fidelity.expect(reference, texts, expected, reading)
        yield sixteen_bits(reference, expected, weights, texts, reading)
        for way in ways:
            written = make(way, out)
            found = fidelity.compare(out, texts, expected, reading)
            yield told(way, written.nbytes, weights, found, speeds(reference.path, out, texts, reading))
    finally:
        expected.unlink(missing_ok=True)
        out.unlink(missing_ok=True)


def sixteen_bits(
    reference: Reference, expected: Path, weights: int, texts: Sequence[Pair], reading: Reading
) -> Measured:
    """Of the reference from itself: nothing, at a perplexity and a speed."""
    with fidelity.opened(reference.path, reading, reference.adapter) as scorer:
        found = fidelity.divergence_of(scorer.divergences(texts, expected, progress=reading.progress), len(texts))
    with fidelity.opened(reference.path, reading) as scorer:
        seconds, tokens = answered(scorer, [prompt for prompt, _ in texts[:ANSWERS]])
    speed = tokens / seconds
    return told(Way("F16", weighed=False), reference.path.stat().st_size, weights, found, (speed, speed))


def told(way: Way, size: int, weights: int, found: Divergence, speed: tuple[float, float]) -> Measured:
    here, sixteen = speed
    return Measured(way.name, way.weighed, size, 8 * size / weights, found, here, here / sixteen)


def speeds(sixteen: Path, quantised: Path, texts: Sequence[Pair], reading: Reading) -> tuple[float, float]:
    """Tokens a second of the quantised file and of the 16-bit one: both answer the same questions, in turn."""
    prompts = [prompt for prompt, _ in texts[:ANSWERS]]
    seconds, tokens = [0.0, 0.0], [0, 0]
    with fidelity.opened(quantised, reading) as here, fidelity.opened(sixteen, reading) as there:
        for _ in range(ROUNDS):
            for at, scorer in enumerate((here, there)):
                spent, count = answered(scorer, prompts)
                seconds[at] += spent
                tokens[at] += count
    return tokens[0] / seconds[0], tokens[1] / seconds[1]


def answered(scorer: Scorer, prompts: Sequence[Sequence[int]]) -> tuple[float, int]:
    began = time.perf_counter()
    answers = scorer.generate(prompts, max_tokens=ANSWER_TOKENS)
    return time.perf_counter() - began, sum(each.tokens for each in answers)
