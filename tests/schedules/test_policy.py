"""When a run is due, and every reason why it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huigan.operate.cron import BadCron, firings
from schedules.policy import Bars, Facts, Reason, decide

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday
BARS = Bars(min_new_ratings=50, min_ratings=200, min_raters=5)
PLENTY = Facts(
    at=NOON,
    lane="default",
    has_base=True,
    has_weights=True,
    queued_run=None,
    running_run=None,
    last_queued_at=NOON - timedelta(days=3),
    since_at=NOON - timedelta(days=30),
    ratings=1000,
    raters=50,
    new_ratings=100,
    trainer_lives=True,
)
NIGHTLY = firings("0 3 * * *", UTC)


def codes(facts: Facts, bars: Bars = BARS, cron: str | None = None) -> list[str]:
    decision = decide(facts, bars, firings(cron, UTC) if cron else None)
    assert not decision.enqueue
    return [reason.code for reason in decision.reasons]


def test_enough_new_ratings_make_a_run_due() -> None:
    decision = decide(PLENTY, BARS, None)
    assert (decision.enqueue, decision.why, decision.reasons, decision.next_at) == (True, "threshold", (), None)


def test_a_firing_since_the_last_run_makes_one_due_however_long_ago() -> None:
    decision = decide(replace(PLENTY, new_ratings=1), BARS, NIGHTLY)
    assert (decision.enqueue, decision.why) == (True, "schedule")
    assert decision.next_at == datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def test_a_run_since_the_last_firing_is_not_repeated() -> None:
    facts = replace(PLENTY, new_ratings=10, last_queued_at=NOON - timedelta(hours=1))
    assert codes(facts, cron="0 3 * * *") == ["not_yet", "too_few_new"]


def test_before_the_first_run_a_cron_counts_from_the_first_release() -> None:
    first = replace(PLENTY, last_queued_at=None, new_ratings=1)
    assert decide(replace(first, since_at=NOON - timedelta(days=1)), BARS, NIGHTLY).why == "schedule"
    assert decide(replace(first, since_at=NOON - timedelta(hours=1)), BARS, NIGHTLY).why is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"has_base": False, "has_weights": False}, "no_base"),
        ({"has_weights": False}, "no_weights"),
        ({"queued_run": 7}, "already_queued"),
        ({"running_run": 7}, "already_running"),
        ({"ratings": 199}, "too_few_ratings"),
        ({"raters": 4}, "too_few_raters"),
    ],
)
def test_a_due_run_is_held_back_for_a_reason(change: dict[str, object], code: str) -> None:
    assert codes(replace(PLENTY, **change)) == [code]  # type: ignore[arg-type]


def test_a_due_run_waits_until_there_is_something_new() -> None:
    assert codes(replace(PLENTY, new_ratings=0), cron="0 3 * * *") == ["nothing_new"]


def test_every_reason_is_told_at_once_with_its_figures() -> None:
    decision = decide(replace(PLENTY, ratings=3, raters=1, new_ratings=3), BARS, None)
    assert decision.reasons == (
        Reason("too_few_ratings", {"have": 3, "need": 200}),
        Reason("too_few_raters", {"have": 1, "need": 5}),
        Reason("too_few_new", {"have": 3, "need": 50}),
    )


def test_without_cron_and_threshold_it_says_so() -> None:
    assert codes(PLENTY, Bars(None, 1, 1)) == ["no_schedule"]


def test_a_run_is_queued_for_a_trainer_that_is_not_there_yet() -> None:
    decision = decide(replace(PLENTY, trainer_lives=False), BARS, None)
    assert (decision.enqueue, decision.reasons) == (True, (Reason("no_trainer"),))


@given(
    has_base=st.booleans(),
    queued=st.none() | st.integers(1, 9),
    running=st.none() | st.integers(1, 9),
    ratings=st.integers(0, 400),
    raters=st.integers(0, 10),
    new=st.integers(0, 100),
    hours=st.none() | st.integers(0, 99),
    min_new=st.none() | st.integers(1, 100),
    has_cron=st.booleans(),
)
def test_whoever_is_not_queued_is_told_why(
    has_base: bool, queued: int | None, running: int | None, ratings: int, raters: int, new: int, hours: int | None,
    min_new: int | None, has_cron: bool,
) -> None:  # fmt: skip
    last = None if hours is None else NOON - timedelta(hours=hours)
    facts = Facts(
        NOON, "default", has_base, has_base, queued, running,
        last, NOON if has_base else None, ratings, raters, new, True,
    )  # fmt: skip
    decision = decide(facts, Bars(min_new, 200, 5), NIGHTLY if has_cron else None)
    assert decision.enqueue == (not decision.reasons)
    if decision.enqueue:
        assert has_base
        assert queued is None
        assert running is None
        assert ratings >= 200
        assert raters >= 5
        assert new > 0
        assert decision.why == "schedule" or (min_new is not None and new >= min_new)


@pytest.mark.parametrize(
    ("expression", "weekdays"),
    [
        ("0 3 * * 0", {6}),
        ("0 3 * * 7", {6}),
        ("0 3 * * 1", {0}),
        ("0 3 * * 1-5", {0, 1, 2, 3, 4}),
        ("0 3 * * 0-2", {6, 0, 1}),
        ("0 3 * * 5-7", {4, 5, 6}),
        ("0 3 * * 0,3", {6, 2}),
        ("0 3 * * */2", {6, 1, 3, 5}),
        ("0 3 * * 1-5/2", {0, 2, 4}),
        ("0 3 * * 4/1", {3, 4, 5}),
        ("0 3 * * mon-wed", {0, 1, 2}),
        ("0 3 * * *", {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_days_of_the_week_are_those_of_cron(expression: str, weekdays: set[int]) -> None:
    next_firing, at, fired = firings(expression, UTC), NOON, set()
    for _ in range(14):
        found = next_firing(at)
        assert found is not None
        at = found
        fired.add(at.weekday())
    assert fired == weekdays


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "0 3 * * * *", "61 3 * * *", "0 3 * * 8", "0 3 * * 5-1", "@daily", "a b c d e"],
)
def test_what_is_no_cron_is_refused_with_an_example(expression: str) -> None:
    with pytest.raises(BadCron, match=r"0 3 \* \* \*"):
        firings(expression, UTC)


def test_a_firing_is_in_the_zone_it_was_written_for_and_strictly_later() -> None:
    shanghai = firings("0 3 * * *", ZoneInfo("Asia/Shanghai"))
    first = shanghai(NOON)
    assert first == datetime(2026, 11, 24, 19, 0, tzinfo=UTC)
    assert shanghai(first) == first + timedelta(days=1)


def test_a_cron_that_never_fires_makes_nothing_due() -> None:
    decision = decide(replace(PLENTY, new_ratings=1), BARS, firings("0 0 31 2 *", UTC))
    assert (decision.enqueue, decision.next_at) == (False, None)
