"""Every quantisation of what a run has trained, measured on its own held-out answers, so that an admin can choose one.

The run's folder has all that is needed. This module does not know how a quantisation is measured, nor terminals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from huigan.llama import fidelity, merge, quantisations
from huigan.llama.fidelity import Reading
from huigan.llama.gguf import Written
from huigan.llama.quantisations import Measured, Way
from huigan.llama.quantise import MIXTURES
from storage.recipe import Recipe
from storage.records import Run
from trainer import dataset, score, stages
from trainer.dataset import Built
from trainer.score import Scored
from trainer.stages import Merged, Taught

COLUMNS: dict[str, Callable[[Measured], object]] = {
    "quantisation": lambda one: one.name + (", weighed" if one.weighed else ""),
    "MiB": lambda one: f"{one.size_bytes / 2**20:,.0f}",
    "bits a weight": lambda one: f"{one.bits:.2f}",
    "perplexity": lambda one: f"{one.divergence.perplexity:.3f}",
    "× F16": lambda one: f"{one.divergence.perplexity_ratio:.4f}",
    "KL, nats": lambda one: f"{one.divergence.mean:.4f}",
    "same next token": lambda one: f"{one.divergence.same_top:.1%}",
    "tokens/s": lambda one: f"{one.tokens_a_second:.1f}",
    "speed × F16": lambda one: f"{one.speed:.2f}",
}
Tell = Callable[[str, int, int], None]
# All but 16 bits, whose figures come with every other's. Eight and six bits lose nothing that weighing could save.
WAYS = tuple(Way(name, weighed=name not in ("Q8_0", "Q6_K")) for name in MIXTURES if name != "F16")


class NothingToMeasure(Exception):
    """The run's folder lacks something; the message says what to do."""


def of_run(home: Path, run: Run, names: Sequence[str], tell: Tell, *, threads: int | None = None) -> Iterator[Measured]:
    """The run must have come as far as to a candidate. Raises NothingToMeasure, and what measuring raises."""
    folder = stages.folder_of(home, run)
    try:
        built = TypeAdapter(Built).validate_json((folder / "dataset.json").read_bytes())
        taught = TypeAdapter(Taught).validate_json((folder / "train.json").read_bytes())
        merged = TypeAdapter(Merged).validate_json((folder / "merge.json").read_bytes())
    except FileNotFoundError as error:
        raise NothingToMeasure(
            f"Run {run.id} made no candidate on this machine: {error.filename} is missing"
        ) from error
    recipe = Recipe.from_dict(run.recipe)
    texts = held_out(built, taught, recipe, tell)
    importance = merged.importance or importance_of(folder, built, taught, merged.base, recipe, tell)

    def make(way: Way, out: Path) -> Written:
        weights = importance if way.weighed else None
        return merge.merge(merged.base, taught.adapter, out, way.name, importance=weights, progress=tell)

    with TemporaryDirectory(dir=folder) as scratch:
        reference = fidelity.taught(merged.base, taught.adapter, Path(scratch))
        reading = Reading(Path(scratch), recipe.data.max_tokens, threads or os.cpu_count() or 1, tell)
        ways = [way for way in WAYS if way.name in names] if names else list(WAYS)
        yield from quantisations.measured(reference, ways, make, texts, reading)


def held_out(built: Built, taught: Taught, recipe: Recipe, tell: Tell) -> list[tuple[Sequence[int], Sequence[int]]]:
    enough = replace(recipe, gate=replace(recipe.gate, max_fidelity_tokens=max(512, recipe.gate.max_fidelity_tokens)))
    scored = Scored(built.folder, enough, stages.tokenizer_of(taught.weights), None, tell)
    bench = score.bench_of(scored)
    texts = list(score.few_tokens(scored, [each.spans[0] for each in (*bench.answers, *bench.pairs)]))
    if not texts:
        raise NothingToMeasure("Nothing is held out in the run's data set: choose a run with more feedback")
    return texts


def importance_of(folder: Path, built: Built, taught: Taught, base: Path, recipe: Recipe, tell: Tell) -> Path:
    from trainer import importance

    kept = folder / "importance.gguf"
    if not kept.is_file():
        rows, tokenizer = dataset.rows_to_train(built), stages.tokenizer_of(taught.weights)
        importance.measure(taught.weights, taught.adapter, base, rows, recipe, tokenizer, kept, progress=tell)
    return kept
