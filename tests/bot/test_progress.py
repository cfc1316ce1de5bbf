"""What admins read of a run: a bar, a sparkline, what was found; and the charts that go with it."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta

import pytest
from PIL import Image

from bot import pictures, scorecards
from bot.progress import SPARKS, bar, losses, sparkline
from huigan.operate.statistics import Day, Liked, Statistics, wilson
from storage.records import RunPoint

AT = datetime(2026, 11, 24, tzinfo=UTC)


def points(method: str, *values: dict[str, float]) -> list[RunPoint]:
    return [RunPoint(step, 1, 1, method, step, value, AT) for step, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("done", "total", "drawn"),
    [(0, 0, ""), (0, 4, "▱" * 12 + " 0%"), (1, 4, "▰▰▰" + "▱" * 9 + " 25%"), (9, 4, "▰" * 12 + " 100%")],
)
def test_a_bar_fills_and_never_overflows(done: int, total: int, drawn: str) -> None:
    assert bar(done, total) == drawn


def test_a_sparkline_keeps_the_shape_whatever_the_length() -> None:
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == SPARKS[0] * 2
    assert sparkline([8.0 - each for each in range(8)]) == SPARKS[::-1]
    long = sparkline([float(each) for each in range(1000)], width=10)
    assert (len(long), long[0], long[-1]) == (10, SPARKS[0], SPARKS[-1])
    assert list(long) == sorted(long)


def test_the_loss_is_that_of_the_method_that_is_trained_now() -> None:
    curve = [
        *points("sft", {"loss": 2.0}, {"loss": 1.0}),
        *points("dpo", {"loss": 0.7, "margin": 0.0}, {"margin": 1.0}),
    ]
    assert losses(curve) == ("dpo", [0.7])
    assert losses([]) == ("", [])


def test_what_an_older_trainer_left_out_is_left_out() -> None:
    assert [*scorecards.measured({}, "en"), *scorecards.reasons({}, "en"), *scorecards.samples({}, "en")] == []
    assert [*scorecards.data({}, "en"), *scorecards.preflight({}, "en")] == []


CARD = {
    "recall": {"live": 0.0, "candidate": 0.9},
    "preferences": {"mean_gain": 3.0, "low": 1.0, "high": 5.0},
    "newest": {"mean_gain": -1.0, "low": -3.0, "high": 1.0},
    "judged": {"candidate": 11, "live": 4},
    "general": [{"language": "zh", "live": 9.0, "candidate": 9.1}, {"language": "en", "live": 12.0, "candidate": 12.0}],
    "suite": [
        {"kind": "facts", "cases": 12, "live_right": 10, "candidate_right": 9, "lost": 2},
        {"kind": "refusals", "cases": 12, "live_right": 11, "candidate_right": 11, "lost": 0},
        {"kind": "format", "cases": 12, "live_right": 0, "candidate_right": 0, "lost": 0},
    ],
}


def test_a_scorecard_is_told_in_few_lines() -> None:
    assert list(scorecards.measured(CARD, "en")) == [
        "Corrections recalled: 0% → 90%",
        "Gain on held-out pairs (nats): +3.00 (+1.00 … +5.00)",
        "Of these, the newest (nats): -1.00 (-3.00 … +1.00)",
        "Answers the judge prefers: 11 / 15",
        "Perplexity of general Chinese text: 9.00 → 9.10",
        "Perplexity of general English text: 12.00 → 12.00",
        "Regression suite: General facts 10 → 9 (−2), Refusing what is dangerous 11 → 11",
    ]


def test_what_has_no_vote_is_told_as_such() -> None:
    reasons = [
        {"code": "nothing_learnt", "params": {}, "hard": True, "good": False},
        {
            "code": "too_few_pairs",
            "params": {"pairs": 3, "conversations": 2},
            "hard": False,
            "good": False,
            "idle": True,
        },
        {"code": "of a newer trainer", "params": {}},
    ]
    assert [each[0] for each in scorecards.reasons({"reasons": reasons}, "en")] == ["⛔", "▫", "➖"]


def test_counts_and_a_preflight_in_words() -> None:
    counts = {"kept": {"train": {"answers": 9, "pairs": 3}}, "dropped": {"no_consent": 2, "too_long": 0}}
    assert [*scorecards.data(counts, "en")] == ["trained on: good answers 9, pairs 3", "Left out: without consent 2"]
    needs = {"vram": {"needed_gib": 18.0, "available_gib": 22.5}}
    advice = [{"code": "change_recipe", "train.batch": 1}]
    assert [
        *scorecards.preflight({"minutes": {"train": 30.2, "score": 9.0}, "needs": needs, "advice": advice}, "en")
    ] == [
        "Training would take about 39 min",
        "VRAM: 18.0 GiB needed, 22.5 GiB there ✓",
        "→ change_recipe: train.batch = 1",
    ]


def test_a_long_answer_in_a_sample_is_cut_and_two_that_differ_come_first() -> None:
    given = [
        {"question": "same", "live": "x", "candidate": "x "},
        {"question": "differs", "live": "长" * 900, "candidate": ""},
    ]
    lost = {"kind": "lost", "question": "gone", "live": "right", "candidate": "wrong"}
    gone, first, second = scorecards.samples({"samples": [*given, lost]}, "en")
    assert "gone" in gone
    assert "differs" in first
    assert len(first) < 300
    assert first.endswith("…")
    assert "same" in second


def colours(png: bytes) -> set[tuple[int, ...]]:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.width + image.height < 10_000, "Telegram takes no larger photo"
    found = image.convert("RGB").getcolors(1 << 20)
    assert found is not None
    return {colour for _, colour in found}  # type: ignore[misc]


BLUE, ORANGE, GREEN = (37, 99, 235), (217, 119, 6), (5, 150, 105)


def test_a_curve_has_a_line_for_each_method_and_a_panel_for_margins() -> None:
    sft = points("sft", *({"loss": 3.0 - each / 10} for each in range(20)))
    dpo = points("dpo", {"loss": 0.7, "margin": 0.0}, {"loss": 0.6, "margin": 0.4})
    one, both = pictures.curves(sft), pictures.curves([*sft, *dpo])
    assert BLUE in colours(one)
    assert ORANGE not in colours(one)
    assert {BLUE, ORANGE} <= colours(both)
    assert Image.open(io.BytesIO(both)).height == 2 * Image.open(io.BytesIO(one)).height


def test_one_point_or_a_flat_curve_is_drawn_too() -> None:
    assert BLUE in colours(pictures.curves(points("sft", {"loss": 1.0})))
    assert BLUE in colours(pictures.curves(points("sft", {"loss": 1.0}, {"loss": 1.0})))


def test_figures_are_bars_by_day_and_dots_by_release() -> None:
    days = tuple(Day(date(2026, 10, 26) + timedelta(days=each), each, each % 3) for each in range(30))
    assert {BLUE, ORANGE, GREEN} <= colours(pictures.statistics(Statistics(days, (Liked(1, 3, 1),), 2)))
    nothing = tuple(Day(each.day, 0, 0) for each in days)
    assert not {BLUE, ORANGE, GREEN} & colours(pictures.statistics(Statistics(nothing, (), 0)))


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    """Values of R's prop.test without continuity correction."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-4)
