"""The graphics card that Ollama serves from, and which run has it to itself. Knows runs and settings, no Ollama.

A run that trains there says so in its progress, and is believed as long as it beats: a process that dies gives the
card back without a word. What answers do meanwhile is the run's recipe's to say, or an admin's setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from storage import clocks, runs, settings
from storage.db import Session
from storage.records import Run, RunState

WhileTraining = Literal["share", "cpu", "wait"]
CHOICES: tuple[str, ...] = get_args(WhileTraining)

SETTING = "while_training"
NOTE = "gpu"  # in a run's progress
OWED = "gpu_owed"  # in a run's progress, over its attempts: what left the card for it has not been called back
LEFT = "left_seconds"  # in a run's progress: until training has ended, and until the run has
BELIEVED = timedelta(seconds=60)  # without a beat; a supervisor beats every few seconds
CPU_ALONE: Mapping[str, Any] = {"num_gpu": 0}  # Ollama's option for: no layer on the card


@dataclass(frozen=True)
class Held:
    """A run has the card; `way` is what answers do until it gives it back."""

    run_id: int
    way: WhileTraining
    seconds_left: float | None  # None: not known yet

    @property
    def minutes_left(self) -> int | None:
        return None if self.seconds_left is None else max(1, round(self.seconds_left / 60))


def held(session: Session, at: datetime) -> Held | None:
    """None where no run has it, or answers share it with the run."""
    running = runs.newest(session, states=frozenset({RunState.RUNNING}))
    setting = settings.get(session, SETTING) if running else None
    found = [each for run in running if (each := _held(session, run, setting.value if setting else None, at))]
    # Of several that have it, the one that keeps it longest.
    return max(found, key=lambda each: float("inf") if each.seconds_left is None else each.seconds_left, default=None)


def way(recipe: Mapping[str, Any], chosen: object) -> WhileTraining:
    """What an admin chose, else what the recipe says; a run of an older version shared."""
    wanted = chosen if chosen in CHOICES else recipe.get("serving", {}).get("while_training", "share")
    return next((each for each in get_args(WhileTraining) if each == wanted), "share")


def _held(session: Session, run: Run, chosen: object, at: datetime) -> Held | None:
    if not run.progress.get(NOTE) or run.beat_at is None or not clocks.is_recent(session, run.beat_at, at, BELIEVED):
        return None
    kept = way(run.recipe, chosen)
    return None if kept == "share" else Held(run.id, kept, seconds_left(run, "train", at))


def seconds_left(run: Run, until: Literal["train", "run"], at: datetime) -> float | None:
    """As the run last told it, less what has passed since; its beats are newer than its words by seconds only."""
    told = run.progress.get(LEFT) or {}
    left = told.get(until)
    if left is None:
        return None
    said_at = datetime.fromisoformat(told["at"])
    return max(0.0, float(left) - (at - said_at).total_seconds())


def left(session: Session, looked_at: int = 20) -> list[Run]:
    """Of the newest runs those that run no more and gave nothing back."""
    ended = (each for each in runs.newest(session, looked_at) if each.state is not RunState.RUNNING)
    return [each for each in ended if each.progress.get(OWED)]


def mark_given_back(session: Session, run: Run) -> None:
    """Where it does not run again meanwhile."""
    runs.tell_later(session, run.id, {**run.progress, NOTE: False, OWED: False})
