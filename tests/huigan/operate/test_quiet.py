"""Quiet hours by the wall's clock, also where the clock jumps."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huigan.operate.quiet import BadHours, ends_at, is_quiet, parse, written

FIRST, LAST = (datetime.fromisoformat(f"{year}-01-01") for year in (2005, 2035))
NEW_YORK = ZoneInfo("America/New_York")


def at(hour: int, minute: int = 0, zone: ZoneInfo = NEW_YORK, month: int = 6, day: int = 1, fold: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("hours", "same"),
    [
        ("08:00-23:00", "08:00-23:00"),
        ("8-23", "08:00-23:00"),
        ("22:30-6", "22:30-06:00"),
        ("9-12, 14:00-24", "09:00-12:00,14:00-00:00"),
        ("", ""),
    ],
)
def test_hours_are_read_as_people_write_them(hours: str, same: str) -> None:
    assert written(parse(hours)) == same


@pytest.mark.parametrize(
    "hours", ["8", "25-3", "8:60-9", "8-8", "0-24", "0-12,12-24", "x-y", "8:00-9:00-10:00", "-", "٨-٩", "24:30-3"]
)
def test_hours_that_are_none_or_leave_none_are_refused_with_an_example(hours: str) -> None:
    with pytest.raises(BadHours, match="08:00-23:00"):
        parse(hours)


def test_the_end_is_the_first_minute_that_is_free() -> None:
    day = parse("08:00-23:00")
    assert ends_at(day, NEW_YORK, at(8)) == at(23)
    assert ends_at(day, NEW_YORK, at(22, 59)) == at(23)
    assert ends_at(day, NEW_YORK, at(23)) is None
    assert ends_at(day, NEW_YORK, at(7, 59)) is None
    night = parse("22:00-06:00")
    assert ends_at(night, NEW_YORK, at(23)) == at(6, day=2)
    assert ends_at(night, NEW_YORK, at(3)) == at(6)


def test_spans_that_touch_are_one() -> None:
    assert ends_at(parse("08:00-12:00,12:00-13:00"), NEW_YORK, at(9)) == at(13)


def test_an_end_that_the_clock_jumps_over_comes_with_the_jump() -> None:
    """On 8 March 2026 two o'clock is followed by three."""
    assert ends_at(parse("22:00-02:30"), NEW_YORK, at(1, month=3, day=8)) == at(3, month=3, day=8)


def test_an_hour_that_comes_twice_is_quiet_twice() -> None:
    """On 1 November 2026 the hour from one o'clock comes twice."""
    spans = parse("01:00-01:30")
    assert is_quiet(spans, NEW_YORK, at(1, 15, month=11, day=1))
    assert not is_quiet(spans, NEW_YORK, at(1, 45, month=11, day=1))
    assert is_quiet(spans, NEW_YORK, at(1, 15, month=11, day=1, fold=1))
    assert ends_at(parse("22:00-02:00"), NEW_YORK, at(1, month=11, day=1)) == at(2, month=11, day=1)


@given(
    st.datetimes(FIRST, LAST, timezones=st.just(UTC)),
    st.sampled_from(("Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia")),
    st.sampled_from(("08:00-23:00", "22:30-06:15", "00:00-23:59", "01:00-02:00,02:30-03:00", "02:01-02:00")),
)
def test_all_of_the_time_until_the_end_is_quiet_and_the_end_is_not(clock: datetime, name: str, hours: str) -> None:
    spans, zone, then = parse(hours), ZoneInfo(name), clock
    end = ends_at(spans, zone, then)
    if end is None:
        assert not is_quiet(spans, zone, then)
        return
    assert not is_quiet(spans, zone, end)
    assert is_quiet(spans, zone, end - timedelta(microseconds=1))
    quarters = math.ceil((end - then) / timedelta(minutes=15))
    assert all(is_quiet(spans, zone, then + timedelta(minutes=15 * each)) for each in range(quarters))
