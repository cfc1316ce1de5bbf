"""Five cron fields as a function from a time to the next firing. Knows no jobs.

Fields and clock changes are Debian cron's, as the cronsim library has them: a time that the clock jumps over fires as
soon as it has jumped, and one that comes twice fires once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tzlocal
from cronsim import CronSim, CronSimError

EXAMPLE = "0 3 * * *"


class BadCron(ValueError):
    """The text is no cron expression, or one that never fires."""


class BadZone(ValueError):
    """The text names no time zone."""


def firings(expression: str, zone: tzinfo | None = None) -> Callable[[datetime], datetime | None]:
    """0 and 7 are Sunday. In the machine's own zone unless told. `@daily` is not known.

    Raises BadCron."""
    fields = expression.split()
    if len(fields) != 5:
        raise BadCron(f"{expression!r} has {len(fields)} fields: write five, like {EXAMPLE!r} for every night at three")
    at_home = zone or zone_here()
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=at_home))
    except CronSimError as error:
        raise BadCron(f"{expression!r} is no cron expression ({error}): an example is {EXAMPLE!r}") from error

    def next_after(at: datetime) -> datetime | None:
        found = (each.astimezone(UTC) for each in CronSim(expression, at.astimezone(at_home)))
        # From within an hour that comes twice, cronsim begins with its first coming.
        return next((each for each in found if each > at), None)

    return next_after


def zone_here() -> tzinfo:
    """The machine's own."""
    return tzlocal.get_localzone()


def zone_of(name: str) -> tzinfo:
    """Raises BadZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder's name, like Asia
        raise BadZone(f"{name!r} is no time zone: write one like Asia/Shanghai or UTC") from None
