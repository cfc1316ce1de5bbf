"""How long a run has yet to go: by what was measured of it, else by its preflight's estimate. Pure: clocks are told.

Rough, and the better the longer a stage lasts. What nobody knows is None, and no number is made up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What a row costs beside one of SFT. Measured, seconds a step of four: 4.3, 7.7, 8.4 and 12.7.
COST = {"sft": 1.0, "orpo": 1.8, "kto": 2.0, "dpo": 3.0}
# The stages that take their time, in their order, and the preflight's names for them.
LONG = {"train": "train", "merge": "convert", "score": "score"}
ORDER = ("start", "dataset", "train", "merge", "quantise", "score", "gate", "release")


@dataclass(frozen=True)
class Left:
    """Seconds until training has ended, and until the run has."""

    train: float | None
    run: float | None


@dataclass
class Forecast:
    """Told of everything that is counted, as it is counted; `at_seconds` is a clock that only goes forward."""

    _of: tuple[str, str] = ("", "")
    _began_at: float = 0.0
    _first: int = 0
    _stage_at: float = 0.0

    def hear(self, stage: str, what: str, done: int, at_seconds: float) -> None:
        if stage != self._of[0]:
            self._stage_at = at_seconds
        if (stage, what) != self._of:
            self._of, self._began_at, self._first = (stage, what), at_seconds, done

    def left(
        self, done: int, total: int, at_seconds: float, minutes: Mapping[str, float], rows: Mapping[str, float]
    ) -> Left:
        """`minutes` are the preflight's, `rows` those that each method is to train on, in their order."""
        stage = self._of[0]
        estimates = {each: 60 * minutes[name] for each, name in LONG.items() if name in minutes}
        pace = self._seconds_each(done, at_seconds)
        now = self._stage_left(done, total, at_seconds, estimates.get(stage), pace, rows)
        later = [estimates.get(each) for each in ORDER[ORDER.index(stage) + 1 :] if each in LONG] if stage else [None]
        known = [each for each in (now, *later) if each is not None]
        train = now if stage == "train" else estimates.get("train") if "train" in _after(stage) else 0.0
        return Left(train, sum(known) if len(known) == len(later) + 1 else None)

    def _stage_left(
        self,
        done: int,
        total: int,
        at_seconds: float,
        estimate: float | None,
        pace: float | None,
        rows: Mapping[str, float],
    ) -> float | None:
        stage, what = self._of
        if stage == "train" and pace is not None and what in rows:
            unit = pace * total / (rows[what] * COST[what])  # seconds for a row of SFT
            names = list(rows)
            later = sum(rows[name] * COST[name] for name in names[names.index(what) + 1 :])
            return (total - done) * pace + unit * later
        if estimate is not None:
            return max(0.0, estimate - (at_seconds - self._stage_at))
        if stage not in LONG:
            return 0.0
        return None if pace is None else (total - done) * pace

    def _seconds_each(self, done: int, at_seconds: float) -> float | None:
        return (at_seconds - self._began_at) / (done - self._first) if done > self._first else None


def _after(stage: str) -> tuple[str, ...]:
    return ORDER[ORDER.index(stage) + 1 :] if stage else ORDER
