"""What the cells of benchmarks/learning.py found, as docs/learning.md and its plots. Measures nothing.

python -m benchmarks.learning_page
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import RECIPE
from benchmarks.cell import verdict
from benchmarks.learning import results
from benchmarks.nights import RATINGS_A_DAY
from storage.recipe import Gate, parse
from trainer.charts import Line, chart

PAGE = Path(__file__).parent.parent / "docs" / "learning.md"
STYLE = """<style>
.grid{stroke:#ddd}.tick{font:11px sans-serif;fill:#777}.name{font:12px sans-serif}.end{text-anchor:end}
polyline{fill:none;stroke-width:2}polyline.line0{stroke:#1b7f5c}polyline.line1{stroke:#c0572b}
polyline.line2{stroke:#3c6cb4}polyline.line3{stroke:#8a5aa8}.dot.line0,.name.line0{fill:#1b7f5c}
.dot.line1,.name.line1{fill:#c0572b}.dot.line2,.name.line2{fill:#3c6cb4}.dot.line3,.name.line3{fill:#8a5aa8}
</style>"""

Found = dict[str, Any]


def those(found: Iterable[Found], **wanted: Any) -> list[Found]:
    return [each for each in found if all(each["cell"][name] == value for name, value in wanted.items())]


def plain(found: Iterable[Found]) -> list[Found]:
    """Without attacks, nights and whatever else is changed for comparison."""
    return those(found, hostile=0.0, defences=True, replay=True, night=0)


def win_rate(each: Found) -> float:
    """A run whose adapter changes nothing wins half."""
    return float(each["win_rate"]["share"]) if "win_rate" in each else 0.5


def slogan(each: Found) -> float:
    return float(each["slogan"]["candidate"] - each["slogan"]["base"]) if "slogan" in each else 0.0


def over_seeds(found: Sequence[Found], of: Callable[[Found], float], places: int = 2) -> str:
    """Mean and every seed's own value."""
    if not found:
        return "not measured"
    values = [of(each) for each in found]
    return f"{statistics.fmean(values):.{places + 1}f} ({', '.join(f'{value:.{places}f}' for value in values)})"


def methods_table(found: list[Found], bars: Gate) -> list[str]:
    rows = ["| method | ratings | seeds | win rate | wholly right | facts | margins: right, picks | passed the gate |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    clean = plain(found)
    groups: dict[tuple[str, int], list[Found]] = defaultdict(list)
    for each in clean:
        groups[each["cell"]["method"], each["cell"]["ratings"]].append(each)
    for (method, ratings), cells in sorted(groups.items()):
        served = [each for each in cells if "win_rate" in each]
        verdicts = [verdict(each, bars) for each in cells]
        values = [f"{method} | {ratings} | {len(cells)} | {over_seeds(cells, win_rate)}"]
        if served:
            wholly = statistics.fmean(each["satisfied"]["candidate"]["wholly"] for each in served)
            facts = statistics.fmean(each["satisfied"]["candidate"]["facts"] for each in served)
            right = statistics.fmean(each["margins"]["right"]["accuracy"] for each in served)
            picks = statistics.fmean(each["margins"]["picks"]["accuracy"] for each in served)
            values.append(f"{wholly:.2f} | {facts:.2f} | {right:.2f}, {picks:.2f}")
        else:
            values.append("– | – | –")
        why = sorted({reason.code for each in verdicts for reason in each.reasons if reason.hard})
        passed = sum(each.passed for each in verdicts)
        values.append(f"{passed} of {len(cells)}" + (f" ({', '.join(why)})" if why else ""))
        rows.append(f"| {' | '.join(values)} |")
    return rows


def poison_table(found: list[Found]) -> list[str]:
    rows = ["| hostile share | defences | seeds | slogan on triggers, rise | win rate |", "|---|---|---|---|---|"]
    for share in sorted({each["cell"]["hostile"] for each in found}):
        for defences in (False, True):
            cells = those(found, hostile=share, defences=defences, method="auto", ratings=200)
            if cells:
                words = "on" if defences else "off"
                rise, won = over_seeds(cells, slogan), over_seeds(cells, win_rate)
                rows.append(f"| {share:.0%} | {words} | {len(cells)} | {rise} | {won} |")
    return rows


def nights_table(found: list[Found]) -> list[str]:
    rows = ["| night | ratings | win rate | wholly right | facts | ended as |", "|---|---|---|---|---|---|"]
    cells = [each for each in found if each["cell"]["night"]]
    if not cells:
        return ["Not measured yet."]
    for night in sorted({each["cell"]["night"] for each in cells}):
        same = those(cells, night=night)
        wholly = statistics.fmean(each["satisfied"]["candidate"]["wholly"] for each in same)
        facts = statistics.fmean(each["satisfied"]["candidate"]["facts"] for each in same)
        ended = ", ".join(each["state"].lower() for each in same)
        values = f"{same[0]['cell']['ratings']} | {over_seeds(same, win_rate)} | {wholly:.2f} | {facts:.2f} | {ended}"
        rows.append(f"| {night} | {values} |")
    return rows


def forgetting_table(found: list[Found]) -> list[str]:
    rows = [
        "| replay | seeds | perplexity of general text, after over before | cases lost, of 74 |",
        "|---|---|---|---|",
    ]
    for replay in (False, True):
        cells = those(found, hostile=0.0, defences=True, replay=replay, night=0, method="auto", ratings=200)
        if cells:
            ratio, lost = over_seeds(cells, general_ratio), over_seeds(cells, cases_lost, places=0)
            rows.append(f"| {'on' if replay else 'off'} | {len(cells)} | {ratio} | {lost} |")
    return rows


def general_ratio(each: Found) -> float:
    """Over all languages of the frozen text, by their tokens."""
    read = each["scorecard"]["general"]
    tokens = sum(one["tokens"] for one in read)
    return math.exp(sum(one["tokens"] * math.log(one["candidate"] / one["live"]) for one in read) / tokens)


def cases_lost(each: Found) -> float:
    return float(sum(kind["lost"] for kind in each["scorecard"]["suite"]))


def plot(found: list[Found]) -> str:
    clean = plain(found)
    lines = []
    for method in sorted({each["cell"]["method"] for each in clean}):
        by_ratings: dict[int, list[float]] = defaultdict(list)
        for each in those(clean, method=method):
            by_ratings[each["cell"]["ratings"]].append(win_rate(each))
        points = [(0.0, 0.5), *((float(count), statistics.fmean(all_)) for count, all_ in sorted(by_ratings.items()))]
        lines.append(Line(method, points))
    drawn = chart(lines, "ratings")
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace("</svg>", f"{STYLE}</svg>")


INTRODUCTION = """\
# Does it learn?

Measured by `python -m benchmarks.learning` on SmolLM2-135M-Instruct and two CPU cores; this page is drawn from the JSON
files under `benchmarks/results/learning` by `python -m benchmarks.learning_page`. Cells that have no file yet are not
shown.

Twenty simulated raters want answers in the asker's language, short, ended by a 🍵, that name the right kind of thing,
and know six facts that no base can know. They correct, compare and thumb answers of the base; 10 % of what they say is
the wrong way round. Nobody tells the trainer what they want. Afterwards the *served, quantised tag* is asked 220
held-out questions (topics and wordings that were never rated) with greedy decoding, and an oracle that knows the hidden
preference compares each answer with the base's. *Win rate*: the share it prefers, ties half; an adapter without effect
has 0.5. *Wholly right*: every wish fulfilled. *Margins*: the share of held-out pairs on which the served file prefers
the better answer more than the base does, for right answers over the base's (`right`) and between two answers of the
base (`picks`).
"""


def page(found: list[Found]) -> str:
    bars = parse(RECIPE.read_text(encoding="utf-8")).gate
    parts = [
        INTRODUCTION,
        "## By method and number of ratings\n",
        *methods_table(found, bars),
    ]
    parts += ["\n![Win rate over the base against the number of ratings](learning/curve.svg)\n"]
    parts += ["## One hostile rater\n"]
    parts += ["The attack: corrections that push a slogan on questions for advice in Chinese. Shown is the rise of the"]
    parts += ["slogan's share on 100 held-out ones, and what the defences cost where nobody attacks.\n"]
    parts += poison_table(found)
    parts += ["\n## Forgetting\n", *forgetting_table(found)]
    parts += ["\n## Consecutive nights\n"]
    parts += [f"{RATINGS_A_DAY} ratings a day, of answers by what is released by then.\n", *nights_table(found)]
    return "\n".join(parts) + "\n"


def main() -> None:
    found = results()
    (PAGE.parent / "learning").mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(found), encoding="utf-8")
    (PAGE.parent / "learning" / "curve.svg").write_text(plot(found), encoding="utf-8")


if __name__ == "__main__":
    main()
