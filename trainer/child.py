"""The process of one run: walks it through the pipeline, tells how far it is, and makes its last move.

It claims nothing: the run is this attempt's already, or the process ends without a trace. It may be killed at any
instant; whoever started it hands the run on. This module does not know supervisors or stages.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from sqlalchemy.exc import OperationalError

from huigan import logs
from huigan.operate import runs as operate
from huigan.serving.client import Ollama
from huigan.texts import told
from storage import gpu, run_points, runs
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Run, RunState
from trainer import HANDED_BACK, pipeline
from trainer.forecast import Forecast
from trainer.release import AttemptOver
from trainer.stages import Work

log = logging.getLogger(__name__)

DONE, FAILED, NOT_OURS = 0, 1, 3  # exit codes
TELL_SECONDS = 1.0
KEPT_POINTS = 10_000  # of the curves, while the database is away
OF_NOW = (
    "what",
    "done",
    "total",
    "waits",
    gpu.NOTE,
    gpu.LEFT,
)  # of a run's progress: what an earlier attempt said is over

# By name, so that recording a failure needs none of the libraries that raise it.
CODES = {
    "WeightsUnavailable": "weights_unavailable",
    "BadReplay": "bad_replay",
    "BadSuite": "bad_suite",
    "BadRecipe": "bad_recipe",
    "BadGguf": "bad_gguf",
    "QuantisedBase": "bad_gguf",
    "NotFinite": "bad_adapter",
    "BadAdapter": "bad_adapter",
    "BadImportance": "bad_gguf",
    "ConversionFailed": "converter",
    "ConverterMissing": "converter",
    "LlamaError": "scorer_died",
    "ScorerDied": "scorer_died",
    "MemoryError": "out_of_memory",
    "OutOfMemoryError": "out_of_memory",  # torch's
}


class Cancelled(Exception):
    """Somebody asked for the run to end."""


@dataclass
class Teller:
    """Says in the database how far the run is, at most once a second, and hears whether it is to go on."""

    db: Database
    run: Run
    bars: Bars
    stage: str = ""
    told_at: float = field(default=-TELL_SECONDS)
    notes: dict[str, Any] = field(default_factory=dict)
    points: deque[run_points.Point] = field(default_factory=lambda: deque(maxlen=KEPT_POINTS))
    forecast: Forecast = field(default_factory=Forecast)

    def __post_init__(self) -> None:
        """An earlier attempt's notes still hold."""
        self.notes = {name: each for name, each in self.run.progress.items() if name not in OF_NOW}

    def note(self, name: str, told: dict[str, Any]) -> None:
        """To be seen beside the progress from the next word on."""
        self.notes[name] = told
        self.told_at = -TELL_SECONDS

    def point(self, method: str, step: int, measures: Mapping[str, float]) -> None:
        """Of the curves: written with the next word, so that no step waits for the database."""
        self.points.append((method, step, measures))

    def hold(self, held: bool) -> None:
        """Say at once who has the graphics card; that it is taken must be known before it is. Raises what a word does,
        and OperationalError where that cannot be said."""
        self.notes[gpu.NOTE] = held
        if held:
            self.notes[gpu.OWED] = True
        try:
            self._write(self.stage or "train", {"what": "", "done": 0, "total": 0})
        except OperationalError:
            if held:
                raise
            log.warning("run %d: that the card is free will be said with the next word", self.run.id)

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        """Raises AttemptOver or Cancelled."""
        self.bars.show(stage, what, done, total)
        self.forecast.hear(stage, what, done, time.monotonic())
        if stage == self.stage and time.monotonic() < self.told_at + TELL_SECONDS:
            return
        self.stage, self.told_at = stage, time.monotonic()
        try:
            self._write(stage, {"what": what, "done": done, "total": total, gpu.LEFT: self._left(done, total)})
        except OperationalError as error:  # hours of training outlive a database that restarts
            log.warning("run %d: its progress could not be written: %s", self.run.id, type(error.orig).__name__)

    def _left(self, done: int, total: int) -> dict[str, Any]:
        minutes = self.notes.get("preflight", {}).get("minutes", {})
        left = self.forecast.left(done, total, time.monotonic(), minutes, self.notes.get("rows", {}))
        return {**asdict(left), "at": now().isoformat()}

    def _write(self, stage: str, progress: dict[str, Any]) -> None:
        known = self.db.write(_report, self.run, stage, progress | self.notes, list(self.points), now())
        self.points.clear()
        if known is None:
            raise AttemptOver
        if known.cancel_asked_at is not None:
            raise Cancelled


def _report(
    session: Session, run: Run, stage: str, progress: Mapping[str, Any], points: list[run_points.Point], at: datetime
) -> Run | None:
    known = runs.report(session, run.id, run.attempt, stage, progress, at)
    if known is not None:
        run_points.add(session, run.id, run.attempt, points, at)
    return known


@dataclass
class Bars:
    """A bar for each thing that goes on, where a person watches."""

    locale: str | None
    progress: Progress | None
    tasks: dict[tuple[str, str], TaskID] = field(default_factory=dict)

    def show(self, stage: str, what: str, done: int, total: int) -> None:
        if self.progress is None:
            return
        if (stage, what) not in self.tasks:
            name = f"{told(self.locale, 'stage', stage)} {what}".strip()
            self.tasks[stage, what] = self.progress.add_task(name, total=total or None)
        self.progress.update(self.tasks[stage, what], completed=done, total=total or None)


@contextmanager
def bars(console: Console, locale: str | None) -> Iterator[Bars]:
    if not console.is_terminal:
        yield Bars(locale, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bars(locale, progress)


def main(
    db: Database, run_id: int, attempt: int, home: Path, client: Ollama, *, locale: str | None = None, **options: Any
) -> int:
    """The exit code. `options` are those of `Work` that have defaults.

    HANDED_BACK where the database stays away: it cannot be told so, and what was done is kept for the next attempt.
    """
    try:
        run = db.read(runs.get, run_id)
        if (run.attempt, run.state) != (attempt, RunState.RUNNING):
            log.warning("run %d is %s at attempt %d: nothing is to do for %d", run_id, run.state, run.attempt, attempt)
            return NOT_OURS
        with logs.about(run=run_id, attempt=attempt), bars(Console(stderr=True), locale) as shown:
            return walk(db, run, home, client, Teller(db, run, shown), locale=locale, **options)
    except OperationalError as error:
        log.warning("run %d: the database stays away (%s): handed back", run_id, type(error.orig).__name__)
        return HANDED_BACK


def walk(db: Database, run: Run, home: Path, client: Ollama, tell: Teller, **options: Any) -> int:
    """Raises OperationalError, and nothing else."""
    try:
        recipe = Recipe.from_dict(run.recipe)
        released = pipeline.run(
            Work(db, run, recipe, home, client, now, tell, note=tell.note, point=tell.point, hold=tell.hold, **options)
        )
    except AttemptOver:
        log.warning("run %d: attempt %d is over", run.id, run.attempt)
        return NOT_OURS
    except Cancelled:
        db.write(end, run, RunState.CANCELLED)
        return DONE
    except OperationalError:
        raise
    except Exception as error:
        log.exception("run %d: attempt %d failed", run.id, run.attempt)
        db.write(operate.fail, run.id, run.attempt, failure_of(error), now())
        return FAILED
    if released.state is RunState.BUILT:
        db.write(end, run, RunState.BUILT)
    log.info("run %d is %s", run.id, released.state)
    return DONE


def end(session: Session, run: Run, state: RunState) -> None:
    """Does nothing where the attempt is over."""
    at = now()
    moved = runs.move(session, run.id, run.attempt, RunState.RUNNING, state, at, worker=None)
    if moved is not None:
        operate.announce(session, moved, at)


def failure_of(error: Exception) -> dict[str, Any]:
    """{"code": …} with parameters, for `huigan.texts`."""
    if code := getattr(error, "code", None):
        params: Mapping[str, Any] = getattr(error, "params", {})
        return {**json.loads(json.dumps(params, default=str)), "code": code}
    known = next((CODES[each.__name__] for each in type(error).__mro__ if each.__name__ in CODES), None)
    if known is not None:
        return {"code": known, "detail": str(error)}
    if getattr(error, "errno", None) == errno.ENOMEM or "can't allocate memory" in str(error):  # torch's, on a CPU
        return {"code": "out_of_memory", "detail": str(error)}
    return {"code": "internal", "type": type(error).__name__}  # its message may quote what people wrote


def now() -> datetime:
    return datetime.now(UTC)
