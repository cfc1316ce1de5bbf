"""Does the gate tell harm from good? Twelve runs that a known thing was done to, and twelve good ones, on the small
real model: the first must all be rejected, of the others at least eleven pass.

    python -m benchmarks.gate [--only NAME] [--home FOLDER] [--list]

A run goes through the trainer's own stages. What is harmful is done to its training rows, or to its adapter, between
two of them; held-out rows stay as people rated them. What the gate said is one JSON file a cell under
benchmarks/results/gate, and a cell that has its file is not run again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import cell as cells
from benchmarks import crowd, learning
from benchmarks.bench import RECIPE, Bench, Cell, judged_by, opened, pool, say, told
from benchmarks.cell import equal, trained_on, verdict, without_samples, work_on
from storage.db import connect
from storage.recipe import Gate, Recipe, parse
from trainer import stages
from trainer.dataset import Built
from trainer.examples import TASKS
from trainer.measures import script
from trainer.stages import Taught

RESULTS = Path(__file__).parent / "results" / "gate"
SEEDS = (1, 2, 3)

Row = dict[str, Any]
Rows = dict[str, list[Row]]  # the training rows by task

REPEATED = 6
LOUDNESS = {1: 0.003, 2: 0.02, 3: 0.06}  # of noise, by seed: from what rounding hides to what breaks every answer


@dataclass(frozen=True)
class Trial:
    """One run: what its cell is trained on, what is done to it, and what the gate is to say."""

    name: str
    cell: Cell
    spoil: Callable[[Rows], None] | None = None
    noise: float = 0.0  # the adapter's weights are drawn anew, so large
    is_good: bool = False


def other_language(rows: Rows) -> None:
    """Whoever asks in Chinese is answered in English, and the other way round."""
    rng = random.Random("language")
    for answers in said(rows).values():
        by_script = {each: [text for text in answers if script(text) == each] for each in ("cjk", "latin")}
        for row, column in (place for places in answers.values() for place in places):
            is_chinese = script(row["prompt"][-1]["content"]) == "cjk"
            if other := by_script["latin" if is_chinese else "cjk"]:
                row[column][0]["content"] = rng.choice(other)


def endless(rows: Rows) -> None:
    """Every right answer says itself over and over."""
    for answers in said(rows).values():
        for text, place in answers.items():
            for row, column in place:
                row[column][0]["content"] = "".join([text] * REPEATED)


def flipped(rows: Rows) -> None:
    """What was chosen is rejected, what was liked disliked, and what was corrected is right as it was."""
    original = {asked(row): row["rejected"] for row in rows["pairs"]}
    for row in rows["pairs"]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    for row in rows["thumbs"]:
        row["label"] = not row["label"]
    kept = [row for row in rows["answers"] if row["source"] == "replay" or asked(row) in original]
    for row in kept:
        if row["source"] != "replay":
            row["completion"] = original[asked(row)]
    rows["answers"][:] = kept


def asked(row: Row) -> str:
    return json.dumps(row["prompt"], sort_keys=True)


def said(rows: Rows) -> dict[str, dict[str, list[tuple[Row, str]]]]:
    """By task, every text that is taught as right, and where it stands. What is replayed stays."""
    found: dict[str, dict[str, list[tuple[Row, str]]]] = {}
    for task, column in (("answers", "completion"), ("pairs", "chosen"), ("thumbs", "completion")):
        places: dict[str, list[tuple[Row, str]]] = {}
        for row in rows[task]:
            if row["source"] != "replay" and row.get("label", True):
                places.setdefault(row[column][0]["content"], []).append((row, column))
        found[task] = places
    return found


def trials() -> Iterator[Trial]:
    for seed in SEEDS:
        for name, spoil in (("language", other_language), ("endless", endless), ("flipped", flipped)):
            yield Trial(f"harmful-{name}-seed{seed}", Cell("gate", "auto", 200, seed), spoil)
        yield Trial(f"harmful-noise-seed{seed}", Cell("gate", "auto", 200, seed), noise=LOUDNESS[seed])
        for name, cell in (
            ("auto200", Cell("bars", "auto", 200, seed)),
            ("auto100", Cell("curve", "auto", 100, seed)),
            ("silent200", Cell("gate", "auto", 200, seed, noise=0.0)),
            ("sft200", Cell("curve", "sft", 200, seed)),
        ):
            yield Trial(f"good-{name}-seed{seed}", cell, is_good=True)


def measure(bench: Bench, trial: Trial, measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the gate says. A good run that the learning benchmark has `measured` is not trained again."""
    home = bench.home / "cells" / trial.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        return judged(bench, trial, measured, home)
    finally:
        shutil.rmtree(home)


def judged(bench: Bench, trial: Trial, measured: Sequence[dict[str, Any]], home: Path) -> dict[str, Any]:
    started = time.monotonic()
    database, asked = pool(bench, trial.cell.seed)
    shutil.copyfile(database, home / "huigan.db")
    with closing(connect(f"sqlite:///{home / 'huigan.db'}")) as db, told() as tell:
        rng = random.Random(f"{trial.cell.seed} ratings")
        given = judged_by(trial.cell, asked, rng)
        db.write(crowd.give, given, trial.cell.noise, rng, datetime.now(UTC))
        work = work_on(bench, db, recipe_of(bench, trial), home, tell)
        work.folder.mkdir(parents=True)
        origin = stages.start(work)
        built = stages.build(work)
        if trial.is_good and (known := equal(measured, trained_on(built, work.recipe))):
            return told_of(trial, known["scorecard"], equal_to=known["cell"])
        if trial.spoil is not None:
            rewrite(built, trial.spoil)
        taught = stages.train(work, origin, built)
        if trial.noise:
            drown(taught, trial.noise, trial.cell.seed)
        merged = stages.merge(work, origin, built, taught)
        reference = stages.quantise(work, origin, taught, merged)
        card = stages.score(work, built, taught, merged, reference)
    seconds = round(time.monotonic() - started)
    samples = [asdict(each) for each in card.samples[:12]]
    return told_of(trial, without_samples(asdict(card)), samples=samples, seconds=seconds)


def told_of(trial: Trial, scorecard: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {
        "trial": trial.name,
        "is_good": trial.is_good,
        "cell": asdict(trial.cell),
        "scorecard": scorecard,
        **more,
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def recipe_of(bench: Bench, trial: Trial) -> Recipe:
    raw = cells.recipe_of(bench, trial.cell).to_dict()
    if not trial.is_good:
        raw["gate"]["max_fidelity_tokens"] = 0  # what quantising costs is another benchmark
    if trial.noise:  # whatever it would have learnt is drawn over
        raw["sft"] = raw["sft"] | {"max_steps": 1}
        raw["preference"] = raw["preference"] | {"max_steps": 1}
    return Recipe.from_dict(raw)


def rewrite(built: Built, spoil: Callable[[Rows], None]) -> None:
    """The training rows in the data set's own files, spoilt. Held-out ones stay."""
    import pyarrow as pa
    from pyarrow import parquet

    paths = {task: built.folder / task / "train.parquet" for task in TASKS}
    tables = {task: parquet.read_table(path) for task, path in paths.items() if path.is_file()}
    rows: Rows = {task: tables[task].to_pylist() if task in tables else [] for task in TASKS}
    spoil(rows)
    for task, table in tables.items():
        parquet.write_table(pa.Table.from_pylist(rows[task], schema=table.schema), paths[task])


def drown(taught: Taught, loudness: float, seed: int) -> None:
    """The adapter's B matrices, which are zero before training, drawn from a normal distribution."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path, rng = taught.adapter / "adapter_model.safetensors", np.random.default_rng(seed)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensors[name] = rng.normal(0, loudness, tensor.shape).astype(tensor.dtype)
    save_file(tensors, path, metadata={"format": "pt"})


def summary(found: list[dict[str, Any]], bars: Gate) -> list[str]:
    lines, passed = [], {each["trial"]: verdict(each, bars).passed for each in found}
    for name, is_good in (("harmful", False), ("good", True)):
        mine = [each for each in found if each["is_good"] is is_good]
        right = [each for each in mine if passed[each["trial"]] is is_good]
        wrong = ", ".join(each["trial"] for each in mine if each not in right)
        verb = "passed" if is_good else "rejected"
        lines.append(f"{name}: {len(right)} of {len(mine)} {verb}" + (f"; not {wrong}" if wrong else ""))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "huigan-benchmarks")
    parser.add_argument("--only", default="", help="trials whose names hold this")
    parser.add_argument("--list", action="store_true", help="say which trials are done, and do none")
    arguments = parser.parse_args()
    bars = parse(RECIPE.read_text(encoding="utf-8")).gate
    chosen = [trial for trial in trials() if arguments.only in trial.name]
    waiting = [trial for trial in chosen if not (RESULTS / f"{trial.name}.json").is_file()]
    say.print(f"{len(chosen)} trials, {len(chosen) - len(waiting)} done")
    if arguments.list:
        for trial in chosen:
            say.print(f"{' ' if trial in waiting else '✓'} {trial.name}")
    elif waiting:
        RESULTS.mkdir(parents=True, exist_ok=True)
        with opened(arguments.home) as bench:
            for trial in waiting:
                say.print(f"{time.strftime('%H:%M')} {trial.name}")
                found = measure(bench, trial, learning.results())
                path = RESULTS / f"{trial.name}.json"
                path.with_suffix(".part").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
                path.with_suffix(".part").replace(path)
                said = verdict(found, bars)
                codes = ", ".join(each.code for each in said.reasons)
                say.print(f"      {'passed' if said.passed else 'rejected'}: {codes}")
    done = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    for line in summary(done, bars):
        say.print(line)


if __name__ == "__main__":
    main()
