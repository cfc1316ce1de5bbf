"""The two tables of a recipe that say what becomes of a release once it passed the gate. Knows nothing of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from storage.bounds import between

Approval = Literal["approve", "auto", "canary"]  # an admin's, at once, on trial first
APPROVALS: tuple[str, ...] = get_args(Approval)


@dataclass(frozen=True)
class Canary:
    """How a release is tried on people where `approval` is "canary"; the mathematics: docs/canary.md.

    `by` conversations: that `share` of them is answered by it. `by` comparisons: the live release answers all, and to
    that share of messages it answers as well, for people to choose. It is promoted on proof that it is better by more
    than minus `margin`, and withdrawn on proof that it is worse by more than `tolerance`, each at an error rate of
    `alpha`; what is neither after `max_days` is left to an admin.
    """

    by: Literal["conversations", "comparisons"] = "conversations"
    share: float = between(0.01, 0.9, 0.2)
    alpha: float = between(1e-6, 0.5, 0.05)
    margin: float = between(0, 0.5, 0.0)
    tolerance: float = between(0, 0.5, 0.0)
    min_ratings: int = between(1, 10**6, 30)
    min_raters: int = between(1, 10**6, 5)
    max_of_rater: int = between(1, 10**6, 20)
    max_days: float = between(0.001, 365, 14.0)


@dataclass(frozen=True)
class Rollback:
    """When a live release gives way to the one before it without a hand, and a canary is withdrawn but for its thumbs.

    It is watched for `watch_days`. `alpha` and `margin` are of the proof that its 👍 share is worse than the one
    before's; the others are bars, looked at from `min_answers` on. For `warm_hours` the one before stays loaded.
    """

    automatic: bool = True
    watch_days: float = between(0, 3650, 7.0)
    alpha: float = between(1e-6, 0.5, 0.01)
    margin: float = between(0, 0.5, 0.05)
    min_ratings: int = between(1, 10**6, 30)
    min_raters: int = between(1, 10**6, 5)
    max_of_rater: int = between(1, 10**6, 20)
    min_answers: int = between(1, 10**6, 30)
    max_error_excess: float = between(0, 1, 0.1)
    max_latency_ratio: float = between(1, 1000, 2.0)
    warm_hours: float = between(0, 24 * 365, 1.0)
