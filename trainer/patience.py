"""When a training has learnt what it can: by the loss on held-out rows at each checkpoint. Pure.

The rows are those that the gate measures on later. Choosing one of a few checkpoints by them flatters that measure a
little; training past the best one would harm it more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# A mean over fewer says little about the next rows.
FEWEST_ROWS = 8
# The first, which lie in the order of a hash. More would tell little more, and cost more than the steps between two
# looks: a look at 128 rows is as many passes as three steps of 16.
MOST_ROWS = 128


@dataclass(frozen=True)
class Look:
    """The mean loss over the held-out rows after a step."""

    step: int
    loss: float


def looks(history: Iterable[Mapping[str, Any]]) -> list[Look]:
    """Of a Trainer's log, which lies in each checkpoint: what was decided by it is decided again after a kill."""
    return [Look(int(each["step"]), float(each["eval_loss"])) for each in history if "eval_loss" in each]


def best(seen: Iterable[Look]) -> Look | None:
    """The earliest of equals; a loss that is no number is never the best."""
    return min((each for each in seen if each.loss == each.loss), key=lambda each: (each.loss, each.step), default=None)


def is_over(seen: list[Look], patience: int) -> bool:
    """Whether so many looks in a row were no better than the best before."""
    found = best(seen)
    since = len(seen) if found is None else len([each for each in seen if each.step > found.step])
    return patience > 0 and since >= patience
