"""One cell of the learning benchmark: a copy of the pool is judged, a run is trained on it, and the very file that
would be served is asked what it has learnt.

It goes through the trainer's own stages, so that what is measured is the product; only the last of them, which needs a
verdict that passes, is left to `served`.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks import crowd
from benchmarks.bench import Bench, Cell, judged_by, pool, told
from benchmarks.examination import examine, margins
from huigan.serving import library
from storage import runs
from storage.db import Database, connect
from storage.recipe import Gate, Recipe
from storage.records import Run
from trainer import gate, release, stages
from trainer.dataset import Built
from trainer.examples import digest
from trainer.scorecard import Scorecard
from trainer.stages import Merged, Origin, Taught, Work


def recipe_of(bench: Bench, cell: Cell) -> Recipe:
    raw = bench.recipe.to_dict()
    data: dict[str, Any] = {} if cell.defences else {"defences": False, "rater_cap_share": 1.0}
    data |= {} if cell.replay else {"replay_share": 0.0}
    return Recipe.from_dict(raw | {"method": cell.method, "seed": cell.seed, "data": raw["data"] | data})


def measure(bench: Bench, cell: Cell, measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is to be known of the cell, as JSON has it. Equal recipes on equal data give equal runs: what one
    of the `measured` cells came to is not trained again."""
    started = time.monotonic()
    database, asked = pool(bench, cell.seed)
    folder = bench.home / "cells" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(database, folder / "huigan.db")
    with closing(connect(f"sqlite:///{folder / 'huigan.db'}")) as db:
        rng = random.Random(f"{cell.seed} ratings")
        now = datetime.now(UTC)
        db.write(crowd.give, judged_by(cell, asked, rng), cell.noise, rng, now)
        recipe = recipe_of(bench, cell)
        look = partial(examine, bench)
        found = trained(bench, db, recipe, folder, look, measured, is_judged=cell.is_judged)
    shutil.rmtree(folder)
    return {
        **found,
        "cell": asdict(cell),
        "seconds": round(time.monotonic() - started),
        "versions": {name: version(name) for name in ("torch", "trl", "peft", "transformers", "xllamacpp")},
    }


def trained(
    bench: Bench,
    db: Database,
    recipe: Recipe,
    home: Path,
    look: Callable[[str], dict[str, Any]],
    measured: Sequence[dict[str, Any]] = (),
    *,
    is_judged: bool = True,
) -> dict[str, Any]:
    """One run from its feedback to what the served tag says, and to the gate's verdict where that is asked for; the
    tag and the run's files are deleted afterwards."""
    with told() as tell:
        work = work_on(bench, db, recipe, home, tell)
        work.folder.mkdir(parents=True)
        origin = stages.start(work)
        built = stages.build(work)
        key = trained_on(built, recipe)
        if known := equal(measured, key, is_judged=is_judged):
            return known | {"counts": built.counts, "equal_to": known["cell"]}
        taught = stages.train(work, origin, built)
        merged = stages.merge(work, origin, built, taught)
        found: dict[str, Any] = {
            "trained_on": key,
            "counts": built.counts,
            "stages": list(taught.stages),
        }
        if is_judged:
            reference = stages.quantise(work, origin, taught, merged)
            card = stages.score(work, built, taught, merged, reference)
            found["scorecard"] = without_samples(asdict(card))
            if merged.path is not None:
                found["margins"] = margins(bench, work, taught, merged, reference)
    if merged.path is not None:
        with served(work, origin, taught, merged) as tag:
            found |= look(tag)
    shutil.rmtree(work.folder)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def trained_on(built: Built, recipe: Recipe) -> dict[str, str]:
    """What a run comes to, and what is read of it, follows from these; not from the gate's bars, which are shares."""
    looked_at = {name: value for name, value in asdict(recipe.gate).items() if not isinstance(value, float | dict)}
    return {"dataset": built.sha256, "recipe": digest(recipe.to_dict() | {"data": None, "gate": looked_at})}


def equal(measured: Sequence[dict[str, Any]], key: dict[str, str], *, is_judged: bool = True) -> dict[str, Any] | None:
    """What was found of the same run."""
    same = (each for each in measured if each.get("trained_on") == key and (not is_judged or "scorecard" in each))
    return next(same, None)


def verdict(found: dict[str, Any], bars: Gate) -> gate.Verdict:
    """What the gate says of what was read: no run is needed anew where a bar is moved."""
    return gate.judge(TypeAdapter(Scorecard).validate_python(found["scorecard"]), bars)


def work_on(bench: Bench, db: Database, recipe: Recipe, home: Path, tell: Callable[[str, str, int, int], None]) -> Work:
    def queued(session: Any) -> Run:
        at = datetime.now(UTC)
        runs.enqueue(session, recipe.lane, recipe.to_dict(), "benchmark", at)
        claimed = runs.claim(session, "benchmark", at)
        assert claimed is not None
        return claimed

    run = db.write(queued)
    # Bases and converters are shared by all cells; the run's folder is the cell's own.
    for name in ("weights", "bases", "tools"):
        (bench.home / name).mkdir(exist_ok=True)
        if not (home / name).exists():
            (home / name).symlink_to(bench.home / name)
    return Work(db, run, recipe, home, bench.client, lambda: datetime.now(UTC), tell)


@contextmanager
def served(work: Work, origin: Origin, taught: Taught, merged: Merged) -> Iterator[str]:
    """The candidate as the tag that people would be answered by, whatever the gate says of it."""
    described = release.described(work, origin, taught, merged, Scorecard(), gate.Verdict(True, ()))
    tag = f"bench-{merged.sha256[:16]}:latest"
    release.serve(work, tag, described)
    try:
        yield tag
    finally:
        library.delete(work.client, tag)


def without_samples(card: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in card.items() if name != "samples"}
