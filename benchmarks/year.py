"""Nights in simulated time, a year of them: a crowd that grows and is forgotten, admins, failures, kills, lost tags,
canaries, both changes of the clocks, a disk that is full of what may go.

    python -m benchmarks.year [--seed N] [--nights 365]

The scheduler, its policy, the database, the pipeline, notices, clearing and pruning are the product's; the stages that
need weights are stubs, and Ollama is the strict fake. Prints what happened, and every invariant that did not hold (see
tests/year/invariants.py), and of a whole year what did not befall it, and that it took longer than two minutes; ends
with 1 where there is anything. A whole year is kept under benchmarks/results/year, and draws docs/year.md anew.
`pytest tests/flows/test_year.py` is two weeks of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from storage import runs
from storage.db import connect
from storage.migrations import upgrade
from tests.fakes.ollama import FakeOllama
from tests.year import invariants
from tests.year.world import Year

YEAR, MOST_SECONDS = 365, 120
RESULTS = Path(__file__).parent / "results" / "year"
PAGE = Path(__file__).parents[1] / "docs" / "year.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--nights", type=int, default=YEAR)
    told = parser.parse_args()
    console, begun = Console(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, FakeOllama().running() as fake:
        db = connect(f"sqlite:///{folder}/huigan.db")
        upgrade(db)
        year = Year(db, Path(folder) / "home", fake, told.seed)
        troubles: list[str] = []
        with year.begun():
            for night in track(year.live(told.nights), "nights", total=told.nights, console=console):
                troubles += invariants.after_night(year, night)
            troubles += invariants.at_the_end(year)
            if told.nights >= YEAR:
                troubles += invariants.of_a_year(year)
        happened = told_of(year)
        db.close()
    shown = Table("what", "count", title="What happened")
    for name, count in happened.items():
        shown.add_row(name, str(count))
    console.print(shown)
    seconds = {"seconds": round(time.monotonic() - begun), "of a processor": round(time.process_time())}
    if told.nights >= YEAR and seconds["of a processor"] > MOST_SECONDS:
        troubles.append(f"a year took more than {MOST_SECONDS} s of a processor")
    for trouble in troubles:
        console.print(trouble, markup=False, style="red")
    took = f"{seconds['seconds']} s, {seconds['of a processor']} s of a processor"
    console.print(f"{told.nights} nights in {took}, {len(troubles)} troubles")
    if told.nights >= YEAR:
        RESULTS.mkdir(parents=True, exist_ok=True)
        found = {"seed": told.seed, "nights": told.nights, **seconds, "troubles": troubles, "happened": happened}
        (RESULTS / f"seed{told.seed}.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        PAGE.write_text(page([json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]))
    return 1 if troubles else 0


def told_of(year: Year) -> dict[str, int]:
    """What happened how often, and how the database grew."""
    every = year.db.read(runs.newest, invariants.EVERY_RUN)
    ended = Counter(f"{each.state} {(each.error or {}).get('code', '')}".strip().lower() for each in every)
    more = [after.rows - before.rows for before, after in itertools.pairwise(year.sizes)]
    grown = {
        "rows in the database": year.sizes[-1].rows,
        "rows of data sets": year.sizes[-1].examples,
        "rows more in a night, at most": max(more, default=0),
        "bytes of the database": year.sizes[-1].bytes,
        "bytes of runs and bases": year.disk_bytes(),
    }
    things = [
        ("runs", len(every)),
        *sorted(ended.items()),
        *sorted((+year.counts).items()),
        *sorted(year.acts().items()),
    ]
    return {**year.crowd.counts, **dict(things), **grown}


INTRODUCTION = """\
# A year of nights

Drawn by `python -m benchmarks.year` (see there) from what each seed's year came to. After every night it is looked at:
one release answers and its tag is there, nothing needed was pruned, no rating is lost or doubled, no run is stuck, no
more than one run began by itself, no word of whoever left lies in a data set, the database grows by what there is to
learn from; at the end every run has an end that somebody was told of, in words.

"""


def page(years: list[dict[str, Any]]) -> str:
    columns = ["what", *(f"seed {each['seed']}" for each in years)]
    rows: list[list[object]] = [["nights", *(each["nights"] for each in years)]]
    rows.append(["**broken invariants**", *(len(each["troubles"]) for each in years)])
    rows.append(["seconds on one core of the machine that measured", *(each["of a processor"] for each in years)])
    names = dict.fromkeys(name for each in years for name in each["happened"])
    rows += [[name, *(each["happened"].get(name, 0) for each in years)] for name in names]
    lines = [columns, ["---"] * len(columns), *rows]
    return INTRODUCTION + "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
