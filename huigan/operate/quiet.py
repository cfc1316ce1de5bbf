"""Quiet hours: when, by the wall's clock, no run starts by itself. Pure: the clock and its zone are told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

Span = tuple[time, time]  # from the first up to, and without, the second; over midnight where it is the later one

EXAMPLE = "08:00-23:00"
MINUTE = timedelta(minutes=1)
# Hours that leave a minute of the day free leave it free within two days, also where a clock change swallows it once.
FARTHEST_MINUTES = 3 * 24 * 60


class BadHours(ValueError):
    """The text names no hours, or leaves no minute of the day free."""


def parse(written: str) -> tuple[Span, ...]:
    """`08:00-23:00`, or several with commas between them; nothing for none. Raises BadHours."""
    spans = tuple(_span(part) for part in written.replace(" ", "").split(",") if part)
    if spans and all(_covers(spans, time(*divmod(minute, 60))) for minute in range(24 * 60)):
        raise BadHours(f"{written!r} leaves no time to train: write hours like {EXAMPLE}")
    return spans


def written(spans: tuple[Span, ...]) -> str:
    """The inverse of `parse`."""
    return ",".join(f"{first:%H:%M}-{last:%H:%M}" for first, last in spans)


def is_quiet(spans: tuple[Span, ...], zone: tzinfo, at: datetime) -> bool:
    return _covers(spans, at.astimezone(zone).time())


def ends_at(spans: tuple[Span, ...], zone: tzinfo, at: datetime) -> datetime | None:
    """The first whole minute that is quiet no more; None if it is not quiet at `at`. Minutes are counted, for the
    wall's clock may jump over any of them or show it twice."""
    if not is_quiet(spans, zone, at):
        return None
    minute = at.astimezone(UTC).replace(second=0, microsecond=0)
    later = (minute + MINUTE * count for count in range(1, FARTHEST_MINUTES))
    return next(each for each in later if not is_quiet(spans, zone, each))


def _span(part: str) -> Span:
    found = re.fullmatch(r"(\d{1,2})(?::(\d\d))?-(\d{1,2})(?::(\d\d))?", part, re.ASCII)
    try:
        if found is None:
            raise ValueError
        first, last = _time(found[1], found[2]), _time(found[3], found[4])
    except ValueError:
        raise BadHours(f"{part!r} is no time of the day: write hours like {EXAMPLE}") from None
    if first == last:
        raise BadHours(f"{part!r} ends when it begins: write hours like {EXAMPLE}")
    return first, last


def _time(hour: str, minute: str | None) -> time:
    whole = int(hour)
    return time(0 if whole == 24 and not int(minute or 0) else whole, int(minute or 0))


def _covers(spans: tuple[Span, ...], clock: time) -> bool:
    return any(first <= clock < last if first < last else clock >= first or clock < last for first, last in spans)
