"""Everything that can break, broken on purpose: who is struck by what and when, and what came of it.

    python -m benchmarks.faults [--seed N] [--rounds N] [--only KIND] [--home FOLDER] [--list]
    python -m benchmarks.faults --page

A cell is one fault with one seed; what came of it is one JSON file under benchmarks/results/faults, and a cell that has
its file is not played again. `--only` takes a part of a fault's name (`child-killed`, `disk`, `bot`). `--page` writes
docs/faults.md from the files and plays nothing. The faults themselves, and what must hold whatever breaks, are in
tests/faults; `pytest tests/faults` plays the short form. Ends with 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from tests.faults.grounds import Grounds
from tests.faults.matrix import Fault, NotHere
from tests.faults.table import FAULTS

RESULTS = Path(__file__).parent / "results" / "faults"
PAGE = Path(__file__).parent.parent / "docs" / "faults.md"

INTRODUCTION = """# What was broken on purpose, and what came of it

Drawn by `python -m benchmarks.faults --page` from benchmarks/results/faults. `python -m benchmarks.faults` plays the
long form, `pytest tests/faults` the short one. What must hold is `tests/faults/invariants.py`: no message and no rating
lost or doubled, no run stuck, exactly one live release, what is served is the file that was judged, it answers, and a
run ends with the verdict of one that was left alone, or fails, says why, and changes no answer.
"""

Found = dict[str, Any]


def play(fault: Fault, grounds: Grounds, folder: Path, seed: int) -> Found:
    """What came of it, also where the cell itself fell over: that is something that did not hold."""
    began = time.monotonic()
    found: Found = {"who": fault.who, "what": fault.what, "when": fault.when, "seed": seed}
    try:
        came = fault.strike(grounds, folder, seed)
        found |= {"how": came.how, "broken": came.broken, "kills": came.kills, "strikes": came.strikes}
    except NotHere as reason:
        found |= {"how": f"not played here: {reason}", "broken": [], "kills": 0, "strikes": 0}
    except Exception as error:  # noqa: BLE001 - the edge of one cell: the others are played all the same
        told = traceback.format_exc().replace(str(folder), "…")[-4000:]
        found |= {"how": "fell over", "broken": [type(error).__name__], "told": told, "kills": 0, "strikes": 1}
    return found | {"seconds": round(time.monotonic() - began, 1)}


def play_all(wanted: list[tuple[Fault, int]], home: Path) -> list[Found]:
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(grounds_at := home / "grounds", ignore_errors=True)  # an earlier round's
    grounds_at.mkdir(parents=True)
    grounds, found = Grounds(grounds_at), []
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("faults", total=len(wanted))
        for fault, seed in wanted:
            bars.update(bar, description=f"{fault.name} {seed}")
            folder = home / f"{fault.name}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            came = play(fault, grounds, folder, seed)
            (RESULTS / f"{fault.name}-{seed}.json").write_text(
                json.dumps(came, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if came["broken"]:
                bars.console.print(f"{fault.name} {seed}: {came['how']}: {came['broken']}", markup=False)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            found.append(came)
            bars.advance(bar)
    return found


def results() -> list[Found]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def page(found: Iterable[Found]) -> str:
    kinds: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for each in found:
        kinds[each["who"], each["what"], each["when"]].append(each)
    cells = [each for group in kinds.values() for each in group]
    kills, broken = sum(each["kills"] for each in cells), [each for each in cells if each["broken"]]
    lines = [
        INTRODUCTION,
        f"{len(cells)} cells, {sum(each['strikes'] for each in cells)} strikes; SIGKILL ended {kills} processes.",
        f"In {len(broken)} cells something did not hold.",
        "",
        "| who | what | when | cells | kills | what came of it | did not hold |",
        "|---|---|---|---:|---:|---|---|",
    ]
    order = {(each.who, each.what, each.when): number for number, each in enumerate(FAULTS)}
    for kind in sorted(kinds, key=lambda each: (order.get(each, len(order)), each)):
        group = kinds[kind]
        how = "; ".join(f"{text} ×{n}" for text, n in Counter(each["how"] for each in group).most_common())
        bad = "; ".join(sorted({text for each in group for text in each["broken"]})) or "–"
        killed = sum(each["kills"] for each in group)
        lines.append(f"| {' | '.join(kind)} | {len(group)} | {killed or ''} | {how} | {bad} |")
    return "\n".join(lines) + "\n"


def is_chosen(name: str, only: str) -> bool:
    return any(part in name for part in only.split(","))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--rounds", type=int, default=1, help="each with the next seed")
    parser.add_argument("--only", default="", help="a part of a fault's name, or several with commas")
    parser.add_argument("--home", type=Path, help="where the cells are played; what did not hold is left there")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    told = parser.parse_args()
    if told.page:
        PAGE.write_text(page(results()), encoding="utf-8")
        return 0
    seeds = range(told.seed, told.seed + told.rounds)
    chosen = [(fault, seed) for seed in seeds for fault in FAULTS if is_chosen(fault.name, told.only)]
    wanted = [(fault, seed) for fault, seed in chosen if not (RESULTS / f"{fault.name}-{seed}.json").exists()]
    if told.list:
        print(*[f"{fault.name} {seed}" for fault, seed in wanted], sep="\n")
        return 0
    logging.getLogger().setLevel(logging.ERROR)
    home = told.home or Path(tempfile.mkdtemp(prefix="huigan-faults-"))
    return 1 if any(each["broken"] for each in play_all(wanted, home)) else 0


if __name__ == "__main__":
    sys.exit(main())
