"""One run as one HTML page: verdict with reasons, scorecard, curves, answers side by side, data. Works offline.

Made from what the stages left in the run's folder, so it can be made again in another language, or of a run that has
not ended. It holds what people wrote: it is for admins. This module does not know how anything in it was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huigan.texts import DEFAULT_LOCALE, LOCALES, text, told
from storage.recipe import Gate, Recipe
from storage.records import Run
from trainer.charts import Line, bars, chart
from trainer.gate import max_loss
from trainer.scorecard import MIN_CONVERSATIONS, Kept

if TYPE_CHECKING:
    from jinja2 import Environment

NAME = "report.html"
# fmt: off
WORDS = (
    "title", "passed", "rejected", "unjudged", "hard", "against", "good", "idle", "reasons", "measures", "measure",
    "live", "base", "candidate", "bar", "change", "lacking", "compared_live", "compared_base", "curves", "loss",
    "margin", "gains", "pairs", "step", "samples", "question", "wanted", "taught", "held_out", "control", "lost",
    "gained", "data", "dropped", "recipe", "manifest", "recall", "held_out_recall", "perplexity", "general_zh",
    "general_en", "ending_probability", "preference_gain", "newest", "preference_accuracy", "judged", "judge_counts",
    "stop_share", "repetition", "language_match", "length_drift", "suite", "kind", "cases", "controls", "facts",
    "format", "refusals", "sycophancy", "language", "endings", "task_answers", "task_pairs", "task_thumbs",
    "split_train", "split_held_out", "lack_pairs", "lack_answers", "lack_corrections", "lack_cases",
    "lack_clear_languages", "lack_comparable_lengths", "lack_judge", "fidelity",
)
# fmt: on


@dataclass(frozen=True)
class Row:
    """One line of the scorecard, as it is shown."""

    name: str
    live: str
    candidate: str
    bar: str
    change: str = ""


@dataclass(frozen=True)
class Page:
    """A template in the folder `pages` of a package, and what it shows beside the run."""

    package: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


def write(folder: Path, run: Run, locale: str | None = None) -> Path:
    path = folder / NAME
    path.write_text(render(folder, run, locale), encoding="utf-8")
    return path


def render(folder: Path, run: Run, locale: str | None = None, page: Page | None = None) -> str:
    """What is not there yet is left out. Another `page` may extend this one's template, and brings its own values."""
    spoken = locale if locale in LOCALES else DEFAULT_LOCALE
    recipe = Recipe.from_dict(run.recipe)
    card, verdict = loaded(folder / "score.json"), loaded(folder / "gate.json")
    page = page or Page("trainer", "report.html.jinja")
    return (
        pages_of(page.package)
        .get_template(page.template)
        .render(
            **page.values,
            words={name: Word(spoken, name) for name in WORDS},
            language=spoken,
            run=run,
            recipe=recipe,
            recipe_json=json.dumps(recipe.to_dict(), ensure_ascii=False, indent=1),
            card=card,
            verdict=verdict,
            reasons=[
                (kind_of(each), told(spoken, "gate", each["code"], each["params"]))
                for each in verdict.get("reasons", ())
            ],
            rows=list(rows(card, recipe)),
            suite=list(suite_rows(card, recipe.gate)),
            margins=bars((card.get("preferences") or {}).get("gains", ()), text(spoken, "report.pairs")),
            charts=list(charts(folder, spoken)),
            how_trained=list(how_trained(folder, spoken)),
            manifest=(manifest := loaded(folder / "dataset" / "manifest.json")),
            about_data=[*told_of(manifest.get("counts", {}), spoken)],
        )
    )


@cache
def pages_of(package: str) -> Environment:
    """Kept, for it keeps what it compiled: a trainer that clears what people took back writes reports anew."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(package, "pages"), PackageLoader("trainer", "pages")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


@dataclass(frozen=True)
class Word:
    """A word of the page; called with parameters where it has any."""

    locale: str
    name: str

    def __str__(self) -> str:
        return text(self.locale, f"report.{self.name}")

    def __call__(self, **params: object) -> str:
        return text(self.locale, f"report.{self.name}", **params)


def told_of(counts: Mapping[str, Any], locale: str) -> Iterator[str]:
    """What was left out of the data and why, what was replaced, and whether longer answers win."""
    if dropped := counts.get("dropped"):
        listed = ", ".join(f"{told(locale, 'dropped', name)} {number}" for name, number in dropped.items())
        yield f"{text(locale, 'report.dropped')}: {listed}"
    if rows := counts.get("personal", {}).get("rows"):
        yield text(locale, "report.personal", rows=rows)
    if bias := counts.get("length_bias"):
        yield text(locale, "report.length_bias", share=f"{bias['chosen_longer_share']:.0%}", pairs=bias["pairs"])


def loaded(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def kind_of(reason: Mapping[str, Any]) -> str:
    return next((kind for kind in ("hard", "good", "idle") if reason.get(kind)), "against")


def rows(card: Mapping[str, Any], recipe: Recipe) -> Iterator[Row]:
    """Only what was measured, and an interval only where enough conversations are behind it."""
    bars = recipe.gate
    for name, least in (("recall", f"≥ {percent(bars.min_recall)}"), ("held_out_recall", "")):
        if read := card.get(name):
            change = interval(read, "{:+.0%}")
            yield Row(name, percent(read["live"]), percent(read["candidate"]), least, change)
    yield from preference_rows(card, bars)
    if read := card.get("perplexity"):
        most = f"≤ {read['live'] * bars.max_perplexity_ratio:.2f}"
        yield Row("perplexity", f"{read['live']:.2f}", f"{read['candidate']:.2f}", most, interval(read, "× {:.2f}"))
    for read in card.get("general", ()):
        most = f"≤ {read['live'] * bars.max_general_perplexity_ratio:.2f}"
        figures = f"{read['live']:.2f}", f"{read['candidate']:.2f}"
        yield Row(f"general_{read['language']}", *figures, most, interval(read, "× {:.2f}"))
    if read := card.get("judged"):
        share = "–" if not (of := read["candidate"] + read["live"]) else f"{read['candidate']} / {of}"
        yield Row("judged", "", share, f"≥ {percent(bars.min_judge_share)}", interval(read, "{:.0%}"))
    if read := card.get("endings"):
        yield Row("ending_probability", percent(math.exp(read["live"])), percent(math.exp(read["candidate"])), "")
    if read := card.get("free"):
        yield from free_rows(read, bars)
    if read := card.get("fidelity"):
        yield Row("fidelity", "", f"{percent(read['same_top'])} (KL {read['mean_divergence']:.3f})", "")


def preference_rows(card: Mapping[str, Any], bars: Gate) -> Iterator[Row]:
    for name in ("preferences", "newest"):
        if read := card.get(name):
            shown = "preference_gain" if name == "preferences" else name
            least = f"≥ {bars.min_preference_gain:+.2f}"
            yield Row(shown, "", f"{read['mean_gain']:+.2f}", least, interval(read, "{:+.2f}"))
    if read := card.get("preferences"):
        whole = read | {"low": read["accuracy_low"], "high": read["accuracy_high"]}
        least = f"≥ {percent(bars.min_preference_accuracy)}"
        yield Row("preference_accuracy", "", percent(read["accuracy"]), least, interval(whole, "{:.0%}"))


def interval(read: Mapping[str, Any], written: str) -> str:
    """Of how many conversations something is drawn is not known of texts that are none."""
    if read.get("conversations", MIN_CONVERSATIONS) < MIN_CONVERSATIONS:
        return ""
    return f"{written.format(read['low'])} … {written.format(read['high'])}"


@dataclass(frozen=True)
class SuiteRow:
    kind: str
    cases: int
    live_right: int
    candidate_right: int
    lost: int
    gained: int
    bar: str


def suite_rows(card: Mapping[str, Any], bars: Gate) -> Iterator[SuiteRow]:
    for read in card.get("suite", ()):
        kept = Kept(**read)
        most = f"≤ {percent(max_loss(kept, bars))}"
        yield SuiteRow(kept.kind, kept.cases, kept.live_right, kept.candidate_right, kept.lost, kept.gained, most)


def free_rows(free: Mapping[str, Any], bars: Gate) -> Iterator[Row]:
    least_stops, most_loops = f"≥ {percent(bars.min_stop_share)}", f"≤ {percent(bars.max_repetition)}"
    yield Row("stop_share", percent(free["live_stop_share"]), percent(free["stop_share"]), least_stops)
    yield Row("repetition", percent(free["live_repetition"]), percent(free["repetition"]), most_loops)
    if free["language_match"] is not None:
        live = free.get("live_language_match")
        shown = "" if live is None else percent(live)
        yield Row("language_match", shown, percent(free["language_match"]), f"≥ {percent(bars.min_language_match)}")
    if free["length_drift"] is not None:
        yield Row("length_drift", "", f"× {free['length_drift']:.2f}", f"≤ × {bars.max_length_drift:.2f}")


def percent(share: float) -> str:
    return f"{share:.0%}"


def charts(folder: Path, locale: str) -> Iterator[tuple[str, str]]:
    """(title, SVG) of the loss and, where a stage has one, of the preference margin."""
    curves = list(points(folder))
    for name, key in (("loss", "loss"), ("margin", "rewards/margins")):
        lines = [
            Line(stage, [(point["step"], point[key]) for point in curve if point.get(key) is not None])
            for stage, curve in curves
        ]
        if key == "loss":
            held_out = text(locale, "report.held_out")
            lines += [Line(f"{stage}, {held_out}", looks_in(curve)) for stage, curve in curves if looks_in(curve)]
        if drawn := chart(lines, text(locale, "report.step")):
            yield name, drawn


def looks_in(curve: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(step, loss on held-out rows)."""
    return [(point["step"], point["eval_loss"]) for point in curve if point.get("eval_loss") is not None]


def how_trained(folder: Path, locale: str) -> Iterator[str]:
    """By what each stage ended, and which ways to train faster it did without, and why."""
    for stage in loaded(folder / "train.json").get("stages", ()):
        name, looked = stage["stage"], stage.get("held_out", {})
        if off := looked.get("off"):
            yield text(locale, "report.not_looked" if off == "too_few_rows" else "report.patience_off", stage=name)
        elif looked.get("looks"):
            key = "report.stopped_early" if looked["stopped_early"] else "report.kept_step"
            known = {"step": looked["kept_step"], "looks": looked["looks"], "rows": looked["rows"]}
            yield text(locale, key, stage=name, steps=stage["steps"], **known)
        why_not = stage.get("speed", {}).get("why_not", {})
        if why_not and "no_card" not in why_not.values():  # without a card nothing of it is to be had
            what = ", ".join(f"{each} ({text(locale, f'report.{why}')})" for each, why in why_not.items())
            yield text(locale, "report.slower", stage=name, what=what)


def points(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(stage, curve), in the order of training."""
    for path in loaded(folder / "train.json").get("curves", ()):
        curve = [json.loads(line) for line in Path(path).read_text().splitlines()]
        if curve:
            yield str(curve[0]["stage"]), curve
