"""What is told of what is wrong, and how often: over any course of things, and in the words of three languages."""

from __future__ import annotations

import itertools
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huigan.health.conditions import AGAIN, CALM, PATIENCE, Condition, Disk, Facts, Machine, judge, step
from huigan.texts import LOCALES, catalogue, text
from storage.alerts import Alert

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
WELL = Facts(
    AT,
    Machine("1", "lab"),
    disk=Disk("1", "lab", 50_000_000_000, 100_000_000_000),
    is_ollama_well=True,
    trainer=("gpu:1", AT),
    is_trainer_alive=True,
    schedules_looked_at=AT,
    backups_kept=7,
    backup_made_at=AT - timedelta(hours=30),
)
LONG_AGO = AT - timedelta(days=3)
WRONG: dict[str, dict[str, Any]] = {
    "ollama_away": {"is_ollama_well": False},
    "trainer_lost": {"is_trainer_alive": False, "trainer": ("gpu:1", LONG_AGO)},
    "schedules_lost": {"schedules_looked_at": LONG_AGO},
    "disk_low": {"disk": Disk("1", "lab", 4_000_000_000, 100_000_000_000)},
    "runs_failing": {"failed_runs": 2},
    "answers_late": {"waiting": 3, "oldest_waiting_at": LONG_AGO},
    "notices_late": {"unsent": 3, "oldest_unsent_at": LONG_AGO},
    "clock_off": {"clock_off_seconds": -90.0},
    "backup_failed": {"backup_failed_at": LONG_AGO},
}


def codes(facts: Facts) -> set[str]:
    return {each.code for each in judge(facts).values() if each is not None}


def test_nothing_is_wrong_where_all_is_well_or_nothing_was_ever_started() -> None:
    assert codes(WELL) == set()
    assert codes(Facts(AT)) == set()


@pytest.mark.parametrize("code", WRONG)
def test_each_thing_that_is_wrong_is_seen_alone_and_has_words(code: str) -> None:
    found = [each for each in judge(replace(WELL, **WRONG[code])).values() if each is not None]
    assert [each.code for each in found] == [code]
    for locale in LOCALES:
        words, name = text(locale, f"condition.{code}", **found[0].params), f"condition.{code}_name"
        assert words
        assert text(locale, name, **found[0].params)
        placed = {field for _, field, _, _ in string.Formatter().parse(catalogue(locale)[f"condition.{code}"]) if field}
        assert placed <= set(found[0].params)


@pytest.mark.parametrize(
    "well",
    [
        {"is_card_held": True, "oldest_waiting_at": LONG_AGO, "waiting": 9},  # they wait for a run to end, and know it
        {"trainer": None, "is_trainer_alive": False},  # it left in order
        {"failed_runs": 1},  # told when it ended
        {"backups_kept": 0, "backup_failed_at": LONG_AGO, "backup_made_at": LONG_AGO},
        {"clock_off_seconds": 20.0},
        {"schedules_looked_at": AT + timedelta(hours=1)},
    ],
)
def test_what_is_as_it_should_be_is_not_told(well: dict[str, Any]) -> None:
    assert codes(replace(WELL, **well)) == set()


def test_a_backup_that_is_two_nights_old_is_missed() -> None:
    assert codes(replace(WELL, backup_made_at=AT - timedelta(hours=50))) == {"backup_failed"}


def test_what_a_clock_that_was_ahead_has_dated_hides_nothing() -> None:
    ahead = AT + timedelta(days=365)
    assert codes(replace(WELL, backup_made_at=ahead)) == {"backup_failed"}
    assert codes(replace(WELL, schedules_looked_at=ahead)) == {"schedules_lost"}
    untold, minute = Alert("ollama_away", "ollama_away", ahead), timedelta(minutes=1)
    dated, telling = step(untold, AWAY, AT)
    assert telling is None
    assert step(dated, AWAY, AT + 2 * minute)[1] == "alert_raised"
    lasting, _ = step(replace(untold, told_at=ahead), AWAY, AT)
    assert step(lasting, AWAY, AT + AGAIN)[1] == "alert_still"
    going, _ = step(replace(untold, told_at=ahead, gone_at=ahead), None, AT)
    assert step(going, None, AT + CALM) == (None, "alert_mended")


def test_disks_of_two_machines_are_two_things() -> None:
    ours = set(judge(replace(WELL, disk=Disk("1", "a", 1, 2))))
    theirs = set(judge(replace(WELL, disk=Disk("2", "b", 1, 2))))
    assert ours ^ theirs == {"disk_low:1", "disk_low:2"}


def test_what_two_machines_see_differently_has_a_key_of_each() -> None:
    ours = judge(replace(WELL, clock_off_seconds=90.0, is_ollama_well=False))
    theirs = judge(replace(WELL, machine=Machine("2", "gpu")))
    assert {key for key, each in ours.items() if each is not None} == {"clock_off:1", "ollama_away:1"}
    assert set(ours) - set(theirs) == {"clock_off:1", "ollama_away:1"}


def test_whose_clock_is_far_off_judges_its_own_machine_alone() -> None:
    wrong = judge(replace(WELL, is_clock_right=False, clock_off_seconds=-90_000.0, failed_runs=9))
    assert {key for key, each in wrong.items() if each is not None} == {"clock_off:1"}
    assert all(key.endswith(":1") for key in wrong)


AWAY = Condition("ollama_away:1", "ollama_away", {"host": "lab"})


def told(course: list[tuple[float, bool]], condition: Condition = AWAY) -> list[tuple[float, str]]:
    """(minute, whether it is wrong then) → (minute, what admins are told)."""
    alert: Alert | None = None
    said = []
    for minute, is_wrong in course:
        alert, telling = step(alert, condition if is_wrong else None, AT + timedelta(minutes=minute))
        if telling:
            said.append((minute, telling))
    return said


def test_a_restart_is_no_news_and_what_lasts_is_told_once_and_once_a_day() -> None:
    assert told([(0, True), (1, True), (1.5, False), (30, False)]) == []
    days = [(minute, True) for minute in range(0, 3 * 1440, 5)]
    assert told(days) == [(5, "alert_raised"), (1445, "alert_still"), (2885, "alert_still")]


def test_a_full_disk_is_told_at_once() -> None:
    assert told([(0, True)], Condition("disk_low:1", "disk_low")) == [(0, "alert_raised")]


def test_what_was_told_is_told_as_mended_once_it_stays_so() -> None:
    assert told([(0, True), (2, True), (3, False), (7, False), (8, False), (9, False)]) == [
        (2, "alert_raised"),
        (8, "alert_mended"),
    ]


def test_what_comes_and_goes_every_minute_is_told_once_a_day() -> None:
    course = [(minute, minute % 10 != 3) for minute in range(2 * 1440 - 5)]
    assert [each[1] for each in told([(0, True), (2, True), *course[3:]])] == ["alert_raised", "alert_still"]


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=200))
def test_whatever_happens_notices_keep_their_order_and_their_distance(course: list[tuple[int, bool]]) -> None:
    minute, walk = 0, []
    for pause, is_wrong in course:
        minute += pause
        walk.append((float(minute), is_wrong))
    said = told(walk)
    words = [each[1] for each in said]
    assert words.count("alert_raised") - words.count("alert_mended") in {0, 1}
    assert all(before != after or before == "alert_still" for before, after in itertools.pairwise(words))
    for (before_at, _), (at, word) in itertools.pairwise(said):
        least = {"alert_still": AGAIN, "alert_mended": CALM, "alert_raised": PATIENCE["ollama_away"]}[word]
        assert timedelta(minutes=at - before_at) >= least
