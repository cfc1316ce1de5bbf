"""What holds of each setting, whose word it is, and what is no value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from huigan.operate import settable
from huigan.operate.refusals import Refusal
from huigan.operate.settable import Held
from storage import audit, settings
from storage.db import Database

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SAID = {"environment": {"min_ratings": 50, "zone": "Asia/Shanghai"}, "recipe": {"min_raters": 7}}


def held(db: Database, name: str) -> tuple[Any, str, dict[str, Any]]:
    found = db.read(settable.held, name, db.read(settable.told))
    return found.value, found.origin, dict(found.beaten)


def test_an_admin_beats_the_environment_that_the_recipe_and_that_the_default(db: Database) -> None:
    assert held(db, "min_ratings") == (None, "default", {})
    db.write(settable.tell, "schedules", SAID, AT)
    assert held(db, "min_ratings") == (50, "environment", {})
    assert held(db, "min_raters") == (7, "recipe", {})
    result = db.write(settable.choose, "min_ratings", "80", None, AT)
    assert isinstance(result, Held)
    assert (result.value, result.origin, result.set_at) == (80, "admin", AT)
    assert held(db, "min_ratings") == (80, "admin", {"environment": 50})
    db.write(settable.choose, "min_ratings", "off", None, AT)
    assert held(db, "min_ratings") == (None, "admin", {"environment": 50}), "off is a word, too"
    db.write(settable.take_back, "min_ratings", None, AT)
    assert held(db, "min_ratings") == (50, "environment", {})
    assert [each.act for each in db.read(audit.newest)] == ["setting.unset", "setting.set", "setting.set"]


def test_what_a_process_said_is_forgotten_when_it_says_something_else(sqlite_db: Database) -> None:
    sqlite_db.write(settable.tell, "schedules", SAID, AT)
    sqlite_db.write(settable.tell, "schedules", {"environment": {}}, AT + timedelta(minutes=1))
    assert held(sqlite_db, "zone") == (None, "default", {})
    kept = sqlite_db.read(settings.get, "said:schedules")
    sqlite_db.write(settable.tell, "schedules", {"environment": {}}, AT + timedelta(minutes=2))
    assert sqlite_db.read(settings.get, "said:schedules") == kept, "the same again is not written again"


def test_two_processes_speak_each_for_its_own(sqlite_db: Database) -> None:
    sqlite_db.write(settable.tell, "schedules", SAID, AT)
    sqlite_db.write(settable.tell, "trainer", {"environment": {"unload_idle": False}}, AT)
    assert held(sqlite_db, "zone")[:2] == ("Asia/Shanghai", "environment")
    assert held(sqlite_db, "unload_idle")[:2] == (False, "environment")


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("schedule", "0 3 * * 1-5", "0 3 * * 1-5"),
        ("schedule", "off", ""),
        ("min_ratings", "1", 1),
        ("quiet_hours", "8-23", "08:00-23:00"),
        ("quiet_hours", "off", ""),
        ("cool_down_hours", "1.5", 1.5),
        ("cool_down_hours", "off", 0.0),
        ("zone", "America/New_York", "America/New_York"),
        ("recipe", "demo", "demo"),
        ("min_pairs", "30", 30),
        ("while_training", "wait", "wait"),
        ("approval", "canary", "canary"),
        ("unload_idle", "no", False),
        ("card_wait_minutes", "0", 0.0),
    ],
)
def test_a_value_is_read_as_people_write_it(sqlite_db: Database, name: str, written: str, value: object) -> None:
    result = sqlite_db.write(settable.choose, name, written, None, AT)
    assert isinstance(result, Held)
    assert (result.value, held(sqlite_db, name)[0]) == (value, value)


@pytest.mark.parametrize(
    ("name", "written", "fix"),
    [
        ("schedule", "3 o'clock", "0 3 * * *"),
        ("schedule", "0 0 31 2 *", "0 3 * * *"),
        ("min_ratings", "0", "1000000"),
        ("min_ratings", "٣", "1000000"),
        ("min_raters", "off", "1000000"),
        ("quiet_hours", "0-24", "08:00-23:00"),
        ("cool_down_hours", "nan", "8760"),
        ("cool_down_hours", "-1", "8760"),
        ("cool_down_hours", "1e9", "8760"),
        ("zone", "../../etc/passwd", "Asia/Shanghai"),
        ("zone", "Asia", "Asia/Shanghai"),
        ("zone", "", "Asia/Shanghai"),
        ("recipe", "none of ours", "demo"),
        ("approval", "never", "auto"),
        ("while_training", "sleep", "cpu"),
        ("unload_idle", "perhaps", "yes or no"),
    ],
)
def test_what_is_no_value_changes_nothing_and_says_what_would_do(
    sqlite_db: Database, name: str, written: str, fix: str
) -> None:
    before = held(sqlite_db, name)
    result = sqlite_db.write(settable.choose, name, written, None, AT)
    assert isinstance(result, Refusal)
    assert (result.code, result.params["name"]) == ("bad_setting", name)
    assert fix in result.params["problem"]
    assert held(sqlite_db, name) == before
    assert sqlite_db.read(audit.newest) == []


def test_a_name_that_is_none_is_refused_with_those_that_are(sqlite_db: Database) -> None:
    for result in (
        sqlite_db.write(settable.choose, "moon", "full", None, AT),
        sqlite_db.write(settable.take_back, "moon", None, AT),
    ):
        assert isinstance(result, Refusal)
        assert result.code == "unknown_setting"
        assert "quiet_hours" in result.params["names"]
