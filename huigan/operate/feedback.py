"""How much feedback there is, as figures: no text of anybody's is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage import comparisons, ratings
from storage.db import Session


@dataclass(frozen=True)
class Feedback:
    ratings: int  # that count, and comparisons
    raters: int  # who rated answers, ever


def count(session: Session, since: datetime | None = None) -> Feedback:
    """All, or what came after `since`. Consent is not looked at: a data set may keep fewer."""
    return Feedback(ratings_since(session, since), ratings.raters(session))


def ratings_since(session: Session, since: datetime | None) -> int:
    """And comparisons."""
    return ratings.count(session, since) + comparisons.count(session, since)


def kinds(session: Session) -> dict[str, int]:
    """What each method would learn from, roughly: a data set may keep fewer, and finds some more of the pairs."""
    liked, corrected = ratings.liked_and_corrected(session)
    picked = comparisons.decided(session)
    return {"answers": liked + corrected, "pairs": corrected + picked, "thumbs": ratings.count(session)}
