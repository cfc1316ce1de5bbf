"""What the feedback says in figures: ratings and answers a day, and how often each release was liked. Reads only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from storage import figures, releases
from storage.db import Session
from storage.records import Thumb

DAYS, RELEASES = 30, 8
Z = 1.96  # 95 %


@dataclass(frozen=True)
class Day:
    """One day, in UTC."""

    day: date
    answers: int
    ratings: int


@dataclass(frozen=True)
class Liked:
    """Of a release's ratings with a thumb: how many are 👍, and the 95 % interval of the share."""

    release: int
    ups: int
    downs: int

    @property
    def ratings(self) -> int:
        return self.ups + self.downs

    @property
    def share(self) -> float:
        return self.ups / self.ratings

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.ups, self.ratings)


@dataclass(frozen=True)
class Statistics:
    """Days and releases in their order; releases that nobody rated are left out."""

    days: tuple[Day, ...]
    liked: tuple[Liked, ...]
    raters: int

    @property
    def answers(self) -> int:
        return sum(each.answers for each in self.days)

    @property
    def ratings(self) -> int:
        return sum(each.ratings for each in self.days)


def gather(session: Session, at: datetime) -> Statistics:
    today = at.astimezone(UTC).date()
    days = [_day(session, today - timedelta(days=back)) for back in reversed(range(DAYS))]
    counted = figures.thumbs(session, sorted(each.id for each in releases.newest(session, RELEASES)))
    liked = (Liked(number, each[Thumb.UP], each[Thumb.DOWN]) for number, each in sorted(counted.items()))
    raters = figures.raters(session, _midnight(days[0].day))
    return Statistics(tuple(days), tuple(each for each in liked if each.ratings), raters)


def wilson(hits: int, of: int, z: float = Z) -> tuple[float, float]:
    """The score interval of a share: honest also where there are few, or all agree. Wilson, JASA 22 (1927)."""
    share, spread = hits / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _day(session: Session, day: date) -> Day:
    since, until = _midnight(day), _midnight(day + timedelta(days=1))
    return Day(day, figures.answers_given(session, since, until), figures.ratings_given(session, since, until))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
