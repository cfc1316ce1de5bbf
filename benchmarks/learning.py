"""Does it learn? Simulated raters with known hidden preferences and noise teach the small real model, and what the
served, quantised tag then says is judged by those preferences.

    python -m benchmarks.learning [--arm bars] [--home FOLDER] [--list]

Each cell of the grid is one run of the trainer (some minutes on two cores); what was found of it is one JSON file under
benchmarks/results/learning, and a cell that has its file is not measured again. `python -m benchmarks.learning_page`
draws docs/learning.md from these files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import nights
from benchmarks.bench import Cell, opened, say
from benchmarks.cell import measure

RESULTS = Path(__file__).parent / "results" / "learning"
SEEDS = (1, 2, 3)
METHODS = ("auto", "sft", "dpo", "kto", "orpo")


def results() -> list[dict[str, Any]]:
    """Of the cells that were measured."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def bars() -> Iterator[Cell]:
    """What is promised of 200 ratings at 10 % noise, and the attack, with and without the defences."""
    for seed in SEEDS:
        yield Cell("bars", "auto", 200, seed)
        yield Cell("bars", "auto", 200, seed, hostile=0.05, defences=False)
        yield Cell("bars", "auto", 200, seed, hostile=0.05)
        yield Cell("bars", "auto", 200, seed, defences=False)


def curve() -> Iterator[Cell]:
    """Against the number of ratings, for each method."""
    for seed in SEEDS:
        for method in METHODS:
            for ratings in (25, 50, 100, 200):
                if (method, ratings) != ("auto", 200):  # that one is among the bars
                    yield Cell("curve", method, ratings, seed)


def poison() -> Iterator[Cell]:
    """1 and 10 % of the ratings from one hostile rater; 5 % is among the bars."""
    for seed in SEEDS:
        for hostile in (0.01, 0.1):
            for defences in (False, True):
                yield Cell("poison", "auto", 200, seed, hostile=hostile, defences=defences)


def forgetting() -> Iterator[Cell]:
    """Without the general rows that are mixed in; with them it is among the bars."""
    for seed in SEEDS:
        yield Cell("forgetting", "auto", 200, seed, replay=False)


def consecutive() -> Iterator[Cell]:
    """Ten nights, each trained on what its release before was rated for, too."""
    for seed in SEEDS:
        for night in range(1, nights.NIGHTS + 1):
            yield Cell("nights", "auto", night * nights.RATINGS_A_DAY, seed, night=night)


ARMS = {"bars": bars, "poison": poison, "forgetting": forgetting, "nights": consecutive, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, action="append")
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "huigan-benchmarks")
    parser.add_argument("--only", help="cells whose names hold this")
    parser.add_argument("--list", action="store_true", help="say which cells are measured, and measure none")
    arguments = parser.parse_args()
    cells = [cell for arm in arguments.arm or ARMS for cell in ARMS[arm]()]
    cells = [cell for cell in cells if not arguments.only or arguments.only in cell.name]
    waiting = [cell for cell in cells if not (RESULTS / f"{cell.name}.json").is_file()]
    say.print(f"{len(cells)} cells, {len(cells) - len(waiting)} measured")
    if arguments.list:
        for cell in cells:
            say.print(f"{' ' if cell in waiting else '✓'} {cell.name}")
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    with opened(arguments.home) as bench:
        for cell in waiting:
            say.print(f"{time.strftime('%H:%M')} {cell.name}")
            found = nights.measure(bench, cell) if cell.night else measure(bench, cell, results())
            path = RESULTS / f"{cell.name}.json"
            path.with_suffix(".part").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
            path.with_suffix(".part").replace(path)
            say.print(
                f"      win rate {found['win_rate']['share']:.3f} ({found['win_rate']['low']:.3f} to "
                f"{found['win_rate']['high']:.3f}), {found['seconds']} s"
                if "win_rate" in found
                else "      the adapter changes nothing"
            )


if __name__ == "__main__":
    main()
