"""A release is made anew by the night after somebody took back what it learnt: once, and only of enough feedback."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from huigan.operate import cron
from schedules import policy, rebuild
from schedules.policy import Decision, Facts, Reason

NIGHTLY = cron.firings(rebuild.NIGHTLY, UTC)
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
USUAL = Decision(False, None, (Reason("nothing_new"), Reason("no_schedule")), None)


def facts(at: datetime, last_queued_at: datetime | None = None) -> Facts:
    unset = dict.fromkeys(Facts.__dataclass_fields__)
    return Facts(**{**unset, "at": at, "last_queued_at": last_queued_at, "trainer_lives": True})


def decided(usual: Decision, at: datetime, last_queued_at: datetime | None = None) -> Decision:
    return rebuild.decide(usual, facts(at, last_queued_at), NOON, NIGHTLY)


def test_it_waits_for_the_night_and_says_so_and_is_queued_then() -> None:
    waiting = decided(USUAL, NIGHT - timedelta(seconds=1))
    assert (waiting.enqueue, waiting.reasons[0]) == (False, Reason("rebuild_wanted"))
    queued = decided(USUAL, NIGHT)
    assert (queued.enqueue, queued.why, queued.reasons) == (True, "rebuild", ())


def test_whoever_asks_is_told_when_it_starts() -> None:
    assert decided(USUAL, NOON).starts_at == NIGHT
    assert [each.code for each in decided(USUAL, NOON).reasons] == ["rebuild_wanted", "nothing_new"]
    quiet, until = replace(USUAL, reasons=(Reason("quiet_hours"), *USUAL.reasons)), NIGHT + timedelta(hours=3)
    waiting = rebuild.decide(quiet, facts(NIGHT), NOON, NIGHTLY, can_start=lambda at: max(at, until))
    assert (waiting.enqueue, waiting.starts_at) == (False, until)
    few = replace(USUAL, reasons=(Reason("too_few_ratings"), *USUAL.reasons))
    assert decided(few, NIGHT).starts_at is None, "nobody knows"


def test_one_that_was_missed_is_made_up_for() -> None:
    assert decided(USUAL, NIGHT + timedelta(days=3, hours=7)).enqueue


def test_an_hour_that_an_admin_wrote_after_it_had_struck_was_not_missed() -> None:
    written = replace(facts(NIGHT + timedelta(hours=9)), cron_set_at=NIGHT + timedelta(hours=8))
    assert not rebuild.decide(USUAL, written, NOON, NIGHTLY).enqueue
    assert rebuild.decide(USUAL, replace(written, at=NIGHT + timedelta(days=1)), NOON, NIGHTLY).enqueue


def test_one_that_failed_is_tried_the_night_after_and_not_before() -> None:
    assert not decided(USUAL, NIGHT + timedelta(hours=20), last_queued_at=NIGHT).enqueue
    assert decided(USUAL, NIGHT + timedelta(days=1), last_queued_at=NIGHT).enqueue


def test_too_little_feedback_hinders_it_and_nothing_new_does_not() -> None:
    few = Reason("too_few_ratings", {"have": 1, "need": 4})
    hindered = decided(replace(USUAL, reasons=(few, *USUAL.reasons)), NIGHT)
    assert not hindered.enqueue
    assert {each.code for each in hindered.reasons} >= {"rebuild_wanted", "too_few_ratings"}


def test_it_waits_for_no_trial() -> None:
    trial = Reason("on_trial", {"release": 7})
    assert decided(replace(USUAL, reasons=(trial, *USUAL.reasons)), NIGHT).enqueue


def test_a_run_that_is_due_anyway_serves_and_none_is_wanted_where_nothing_was_taken_back() -> None:
    due = Decision(True, "schedule", (), NIGHT)
    assert decided(due, NIGHT) is due
    assert rebuild.decide(USUAL, facts(NIGHT), None, NIGHTLY) is USUAL


def test_whatever_the_usual_decision_says_against_a_run_is_known_to_be_a_hindrance_or_none() -> None:
    """A reason that policy comes to say is a hindrance, unless it is named here."""
    assert {"nothing_new", "not_yet", "too_few_new", "no_schedule", "on_trial"} == rebuild.NO_HINDRANCES
    usual = policy.decide(
        replace(facts(NIGHT), has_base=True, has_weights=True, ratings=4, raters=2, new_ratings=0, kinds={}),
        policy.Bars(None, 4, 2),
        None,
    )
    assert decided(usual, NIGHT).enqueue
