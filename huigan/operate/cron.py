"""Five cron fields as a function from a time to the next firing. Knows no jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, tzinfo

from apscheduler.triggers.cron import CronTrigger

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


class BadCron(ValueError):
    """The text is no cron expression."""


def firings(expression: str, zone: tzinfo | None = None) -> Callable[[datetime], datetime | None]:
    """Fields as cron has them: 0 and 7 are Sunday. In the machine's own zone unless told. `@daily` is not known.

    Raises BadCron."""
    fields = expression.split()
    if len(fields) != 5:
        raise BadCron(f"{expression!r} has {len(fields)} fields: write five, like '0 3 * * *' for every night at three")
    try:
        trigger = CronTrigger.from_crontab(" ".join([*fields[:4], _named_days(fields[4])]), timezone=zone)
    except ValueError as error:
        raise BadCron(f"{expression!r} is no cron expression ({error}): an example is '0 3 * * *'") from error

    def next_after(at: datetime) -> datetime | None:
        found: datetime | None = trigger.get_next_fire_time(at, at)
        return found

    return next_after


def _named_days(field: str) -> str:
    """APScheduler 3 counts days from Monday, cron from Sunday: numbers become names, ranges become lists."""
    return ",".join(_named_part(part) for part in field.split(","))


def _named_part(part: str) -> str:
    matched = re.fullmatch(r"(?:(\*)|([0-7])(?:-([0-7]))?)(?:/([1-7]))?", part)
    if matched is None:
        return part
    every, first, last, step = matched.groups()
    if every and not step:
        return part
    low = 0 if every else int(first)
    # Cron's `n/step` means from n to the end of the week.
    high = 6 if every or (step and not last) else int(last or first)
    if low > high:
        raise ValueError(f"the range {part} ends before it begins")
    return ",".join(dict.fromkeys(DAYS[low : high + 1 : int(step or 1)]))
