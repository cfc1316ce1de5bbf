"""What is left of a run: measured where it is counted, estimated where it is not, and unknown where neither is."""

from __future__ import annotations

import pytest

from trainer.forecast import Forecast

MINUTES = {"train": 10.0, "convert": 2.0, "score": 3.0}


def test_before_anything_is_counted_the_preflight_says() -> None:
    told = Forecast()
    told.hear("dataset", "", 0, 100.0)
    assert told.left(0, 0, 100.0, MINUTES, {}).run == 15 * 60
    told.hear("train", "sft", 1, 110.0)
    left = told.left(1, 11, 130.0, MINUTES, {"sft": 40})
    assert (left.train, left.run) == (580.0, 580.0 + 300.0)


def test_steps_are_timed_and_a_method_to_come_costs_what_it_is_known_to() -> None:
    told = Forecast()
    told.hear("train", "sft", 1, 0.0)
    told.hear("train", "sft", 5, 8.0)
    alone = told.left(5, 10, 8.0, {}, {"sft": 40.0})
    assert (alone.train, alone.run) == (10.0, None), "how long scoring takes, nobody said"
    both = told.left(5, 10, 8.0, MINUTES, {"sft": 40.0, "dpo": 20.0})
    assert both.train == pytest.approx(10.0 + 0.5 * 20 * 3.0)
    told.hear("train", "dpo", 1, 20.0)
    told.hear("train", "dpo", 2, 26.0)
    assert told.left(2, 5, 26.0, MINUTES, {"sft": 40.0, "dpo": 20.0}).train == pytest.approx(18.0)


def test_an_estimate_that_was_too_short_ends_at_nothing_and_training_is_over_after_it() -> None:
    told = Forecast()
    told.hear("score", "live: answers", 0, 0.0)
    left = told.left(0, 9, 1000.0, MINUTES, {})
    assert (left.train, left.run) == (0.0, 0.0)
    told.hear("release", "create", 0, 1001.0)
    assert told.left(0, 3, 1001.0, MINUTES, {}).run == 0.0
