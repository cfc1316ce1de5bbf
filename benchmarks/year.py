"""Nights in simulated time, a year of them: a crowd that grows and is forgotten, admins, failures, kills, lost tags,
canaries, both changes of the clocks, a disk that is full of what may go.

    python -m benchmarks.year [--seed N] [--nights 365]

The scheduler, its policy, the database, the pipeline, notices, clearing and pruning are the product's; the stages that
need weights are stubs, and Ollama is the strict fake. Prints what happened, and every invariant that did not hold (see
tests/year/invariants.py), and of a whole year what did not befall it; ends with 1 where there is one. `pytest
tests/flows/test_year.py` is two weeks of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from storage import runs
from storage.db import connect
from storage.migrations import upgrade
from tests.fakes.ollama import FakeOllama
from tests.year import invariants
from tests.year.world import Year

YEAR = 365


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
        console.print(table(year))
        db.close()
    for trouble in troubles:
        console.print(trouble, markup=False, style="red")
    took = f"{time.monotonic() - begun:.0f} s, {time.process_time():.0f} s of a processor"
    console.print(f"{told.nights} nights in {took}, {len(troubles)} troubles")
    return 1 if troubles else 0


def table(year: Year) -> Table:
    """What happened, and how the database grew."""
    shown = Table("what", "count", title="What happened")
    for name, count in year.crowd.counts.items():
        shown.add_row(name, str(count))
    shown.add_section()
    every = year.db.read(runs.newest, invariants.EVERY_RUN)
    ended = Counter(f"{each.state} {(each.error or {}).get('code', '')}".strip().lower() for each in every)
    for name, count in [("runs", len(every)), *sorted(ended.items()), *sorted((+year.counts).items())]:
        shown.add_row(name, str(count))
    shown.add_section()
    for name, count in sorted(year.acts().items()):
        shown.add_row(name, str(count))
    shown.add_section()
    first, last = year.sizes[0], year.sizes[-1]
    more = [after.rows - before.rows for before, after in zip(year.sizes, year.sizes[1:], strict=False)]
    shown.add_row("rows in the database", f"{last.rows}, of data sets {last.examples}")
    shown.add_row("rows a night", f"{(last.rows - first.rows) / max(1, len(more)):.0f}, at most {max(more, default=0)}")
    shown.add_row("database and backups", f"{last.bytes / 1e6:.1f} MB")
    shown.add_row("runs and bases on the disk", f"{year.disk_bytes() / 1e6:.2f} MB")
    return shown


if __name__ == "__main__":
    sys.exit(main())
