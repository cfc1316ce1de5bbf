"""Consecutive nights: what is released answers the next day's questions, is rated, and the next run is trained on all
there is by then. Quality is to rise and never to collapse. Kept after each night, so that it can be gone on with.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import crowd, raters
from benchmarks.bench import Bench, Cell, ask, register_base, told
from benchmarks.cell import recipe_of, work_on
from benchmarks.examination import examine
from storage import artefacts, deployments
from storage.db import connect
from storage.migrations import upgrade
from trainer import pipeline

NIGHTS, RATINGS_A_DAY = 10, 40


def measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    """One more night, on top of what the night before left."""
    started = time.monotonic()
    folder = bench.home / "nights" / str(cell.seed)
    folder.mkdir(parents=True, exist_ok=True)
    before, after = folder / f"{cell.night - 1}.db", folder / f"{cell.night}.db"
    working, home = folder / "huigan.db", folder / "home"
    home.mkdir(exist_ok=True)
    for each in folder.glob("huigan.db*"):
        each.unlink()
    if cell.night > 1:
        shutil.copyfile(before, working)
    with closing(connect(f"sqlite:///{working}")) as db:
        if cell.night == 1:
            upgrade(db)
            register_base(bench, db)
        first = (cell.night - 1) * RATINGS_A_DAY
        asked = asyncio.run(ask(bench, db, questions(cell), first=first))
        day = datetime.now(UTC) + timedelta(days=cell.night)
        db.write(crowd.give, asked, cell.noise, random.Random(f"{cell.seed} {cell.night}"), day)
        with told() as tell:
            work = work_on(bench, db, recipe_of(bench, cell), home, tell)
            released = pipeline.run(work)
        live = db.read(deployments.live)
        assert live is not None
        artefact = db.read(artefacts.of_run, work.run.id)
        assert artefact is not None
        found = {
            "cell": asdict(cell),
            "state": str(released.state),
            "counts": json.loads((work.folder / "dataset.json").read_bytes())["counts"],
            "verdict": artefact.verdict,
            "live": live.release.id,
            **examine(bench, live.release.tag),
        }
    prune(home / "runs", live.artefact.path)
    shutil.move(working, after)
    return {**found, "seconds": round(time.monotonic() - started)}


def prune(runs: Path, live: str | None) -> None:
    """All but the folder of what answers, which the next night's candidate is compared with."""
    for each in runs.iterdir():
        if live is None or not Path(live).is_relative_to(each):
            shutil.rmtree(each)


def questions(cell: Cell) -> list[tuple[raters.Question, raters.Act, str]]:
    everything = raters.asked(raters.world(), NIGHTS * RATINGS_A_DAY, random.Random(f"{cell.seed} nights"))
    today = everything[(cell.night - 1) * RATINGS_A_DAY : cell.night * RATINGS_A_DAY]
    return [
        (question, act, crowd.RATERS[number % len(crowd.RATERS)])
        for number, (question, act) in enumerate(today, start=cell.night)
    ]
