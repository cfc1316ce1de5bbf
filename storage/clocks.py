"""Which of the times that were written can be believed: some clock was ahead, and was put right. Knows no noun.

Who lives writes the time every few seconds, and is taken for gone where the last one is too old. A time that lies far
ahead would keep a dead one alive until then, for a year perhaps: it is as good as none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import BindParameter, ColumnElement, func, or_, select

from storage.db import Session

# Wider than the hour by which summer time is got wrong, so that who lives with such a clock is left alone (admins are
# told of it); what a dead one wrote holds nothing up for longer than that.
AHEAD = timedelta(hours=2)


def is_ahead(then: datetime, at: datetime) -> bool:
    """Further than the clocks of machines that work may differ."""
    return then - at > AHEAD


def is_fresh(then: datetime, at: datetime, within: timedelta) -> bool:
    """Written less than `within` before, and by a clock that can be believed; so can that of who looks."""
    return at - then < within and not is_ahead(then, at)


def is_recent(session: Session, then: datetime, at: datetime, within: timedelta) -> bool:
    """As `is_fresh`, whatever the clock of who looks."""
    return at - then < within and (not is_ahead(then, at) or then <= latest(session, at))


def is_right(session: Session, at: datetime) -> bool:
    """Whether the clock of who looks can be believed: its machine may judge what others wrote."""
    return abs(shared(session, at) - at) <= AHEAD


def shared(session: Session, at: datetime) -> datetime:
    """By the one clock that all machines share, the database's; on SQLite there is one machine, whose own `at` is."""
    if session.dialect.name != "postgresql":
        return at
    theirs: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return theirs.astimezone(UTC)


def latest(session: Session, at: datetime) -> datetime:
    """The last time that is believed. Where the clock of who looks is behind, all others' seem ahead: the database's
    tells."""
    return max(at, shared(session, at)) + AHEAD


def silent(
    beat_at: ColumnElement[datetime], beaten_before: datetime | BindParameter[datetime], latest: object
) -> ColumnElement[bool]:
    """Whose last beat is too old, or lies beyond the `latest` that is believed."""
    return or_(beat_at < beaten_before, beat_at > latest)
