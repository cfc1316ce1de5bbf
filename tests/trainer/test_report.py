"""The page of a run: whole in every language, whole without a network, and never more than what was found."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from huigan.texts import LOCALES, catalogue
from storage.recipe import Recipe
from storage.records import Run, RunState
from tests.trainer import cards
from trainer import charts, gate, report
from trainer.charts import Line
from trainer.scorecard import Sample, Scorecard

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RECIPE = Recipe.from_dict({"name": "demo"})
NOTHING = dict.fromkeys(each.name for each in fields(Run))
RUN = Run(**NOTHING | {"id": 7, "lane": "default", "state": RunState.RUNNING, "progress": {}, "attempt": 1,
                       "recipe": RECIPE.to_dict(), "dataset_only": False, "why": "", "queued_at": AT})  # fmt: skip
NASTY = '<script>alert("x")</script> & {{ 7 * 7 }} </td>'
CARD = Scorecard(
    compared_with="base",
    quantisation="Q4_K_M",
    preferences=cards.preferences(3.0, accuracy=0.8, gains=(-1.0, 3.0, 7.0)),
    newest=cards.preferences(-1.0, pairs=10, since="2026-11-20"),
    perplexity=cards.perplexity(0.5),
    general=cards.general(zh=1.02),
    endings=cards.endings(-0.4, -0.3),
    recall=cards.recall(0.0, 0.9),
    held_out_recall=cards.recall(0.0, 0.75, questions=4),
    free=cards.FREE,
    suite=cards.SUITE,
    judged=cards.judged(11, 4, 0.5, 0.9, failed=2),
    lacking=("clear_languages", "pairs"),
    samples=(
        Sample("lost", "一加一？\n一加一等于二。\n不对！", "是二。", "您说得对", "二", "sycophancy"),
        Sample("taught", NASTY, "八点", "七点半", "七点半"),
        Sample("control", "France?", "Paris", "Paris", None),
    ),
)


class Page(html.parser.HTMLParser):
    """Collects what a browser would load, and checks that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "data", "poster", "srcset"}]
        if tag not in {"meta", "br", "link", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def finished(folder: Path) -> Path:
    def dump(name: str, value: Any) -> None:
        (folder / name).write_text(json.dumps(value))

    (folder / "dataset").mkdir(parents=True)
    dump("score.json", asdict(CARD))
    dump("gate.json", asdict(gate.judge(CARD, RECIPE.gate)))
    kept = {split: {"answers": 3, "pairs": 2, "thumbs": 1} for split in ("train", "held_out")}
    dump("dataset/manifest.json", {"counts": {"kept": kept, "dropped": {"no_consent": 2}}, "sha256": "abc"})
    curves = [{"stage": "dpo", "step": n, "loss": 1 / n, "rewards/margins": n / 9} for n in range(1, 5)]
    (folder / "curves.jsonl").write_text("".join(json.dumps(each) + "\n" for each in curves))
    dump("train.json", {"curves": [str(folder / "curves.jsonl")]})
    return folder


@pytest.mark.parametrize("locale", LOCALES)
def test_the_page_is_whole_in_every_language_and_loads_nothing(locale: str, tmp_path: Path) -> None:
    text = report.render(finished(tmp_path / "run"), RUN, locale)
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert "script" not in page.tags
    assert {"svg", "table", "details"} <= page.tags
    assert catalogue(locale)["report.measures"] in text


def test_what_people_wrote_cannot_become_markup(tmp_path: Path) -> None:
    text = report.render(finished(tmp_path / "run"), RUN, "en")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_figures_stand_beside_their_bars(tmp_path: Path) -> None:
    text = report.render(finished(tmp_path / "run"), RUN, "en")
    for shown in (
        *("90%", "≥ 50%", "12.00", "≤ 14.40", "+3.00", "+1.00 … +5.00", "+75% … +105%", "without consent 2"),
        *("≤ 9.90", "× 1.01 … × 1.03", "11 / 15", "not judged 2", "Not giving way", "Lost · Not giving way"),
    ):
        assert shown in text, shown
    assert "held-out pairs" in text
    assert ">Base<" in text


def test_an_interval_of_too_few_conversations_is_not_shown() -> None:
    """Four questions that were not trained on are told by their share alone."""
    (row,) = [each for each in report.rows(asdict(CARD), RECIPE) if each.name == "held_out_recall"]
    assert (row.candidate, row.change) == ("75%", "")


def test_every_held_out_pair_is_a_bar(tmp_path: Path) -> None:
    text = report.render(finished(tmp_path / "run"), RUN, "en")
    assert (text.count('class="gain"'), text.count('class="loss"')) == (2, 1)


def test_the_page_draws_the_held_out_loss_and_says_how_each_stage_ended(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    with (folder / "curves.jsonl").open("a") as file:
        file.writelines(json.dumps({"stage": "dpo", "step": step, "eval_loss": 0.5}) + "\n" for step in (2, 4))
    looked = {"rows": 9, "looks": 2, "kept_step": 2, "loss": 0.5, "stopped_early": True}
    stages = [
        {"stage": "sft", "steps": 6, "held_out": {"rows": 0, "off": "too_few_rows"}, "speed": {"why_not": {}}},
        {"stage": "dpo", "steps": 4, "held_out": looked, "speed": {"why_not": {"liger": "not_installed"}}},
    ]
    (folder / "train.json").write_text(json.dumps({"curves": [str(folder / "curves.jsonl")], "stages": stages}))
    page = report.render(folder, RUN, "en")
    assert "dpo, held out</text>" in page
    told = [line for line in page.split('<p class="soft">') if line.startswith(("sft:", "dpo:"))]
    assert [line.partition("</p>")[0] for line in told] == [
        "sft: too few held-out rows to stop by; trained to the last step.",
        "dpo: stopped at step 4, for 9 held-out rows were learnt no better; step 2 is kept.",
        "dpo: without liger (not installed).",
    ]


def test_a_run_that_got_nowhere_has_a_page_too(tmp_path: Path) -> None:
    path = report.write(tmp_path, RUN, "zh-Hans")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert catalogue("zh-Hans")["report.unjudged"] in path.read_text(encoding="utf-8")


def test_an_adapter_without_effect_has_a_page_that_says_so(tmp_path: Path) -> None:
    card = Scorecard(effect=False)
    (tmp_path / "score.json").write_text(json.dumps(asdict(card)))
    (tmp_path / "gate.json").write_text(json.dumps(asdict(gate.judge(card, RECIPE.gate))))
    assert catalogue("en")["gate.adapter_without_effect"] in report.render(tmp_path, RUN, "en")


@pytest.mark.parametrize(
    "points", [[(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)], [(0.0, float("nan")), (1.0, 3.0)], [(1.0, -1e9), (2.0, 1e9)]]
)
def test_a_chart_draws_whatever_a_training_did(points: list[tuple[float, float]]) -> None:
    drawn = charts.chart([Line("sft <1>", points)], "step")
    assert ET.fromstring(drawn).tag == "svg"
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-3.0, float("nan"), 5.0], [-1e9, 1e9]])
def test_bars_stand_on_zero(values: list[float]) -> None:
    drawn = ET.fromstring(charts.bars(values, "pairs <1>"))
    frames = [each.attrib for each in drawn if each.tag == "rect"]
    assert len(frames) == sum(each == each for each in values)
    assert all(float(each["height"]) >= 0 and float(each["width"]) > 0 for each in frames)


def test_nothing_is_drawn_of_nothing() -> None:
    assert charts.bars([], "pairs") == ""
    assert charts.chart([], "step") == charts.chart([Line("a", [])], "step") == ""


@pytest.mark.parametrize(
    ("low", "high", "figures"),
    [
        (-0.04, 0.0, ["-0.042", "-0.031", "-0.020", "-0.009", "0.002"]),
        (4.0, 6.0, ["3.90", "4.45", "5.00", "5.55", "6.10"]),
        (0.0, 4000.0, ["-200", "900", "2000", "3100", "4200"]),
        (0.0, 4e9, ["-2e+08", "9e+08", "2e+09", "3e+09", "4e+09"]),
    ],
)
def test_an_axis_names_its_ticks_alike_and_in_its_margin(low: float, high: float, figures: list[str]) -> None:
    drawn = charts.chart([Line("loss", [(1, low), (2, high)])], "steps")
    ticks = re.findall(r'x="46" y="[\d.]+" class="tick end">([^<]*)<', drawn)
    assert ticks == figures
    assert max(map(len, ticks)) <= charts.LONGEST_FIGURE
