"""Claims runs and starts a child process for each, one at a time; beats for it, stops it, tells how it died.

It never imports torch: a child that runs out of memory, is killed or hangs takes nothing with it but itself. It knows
nothing of what a child does; the child reports its stages and makes the run's last move itself. Several supervisors
may share a database: a claim is one compare-and-swap, and one lane runs one run. Their clocks must agree to well
within `lost_after_seconds`, for that is how the silent are told from the slow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import OperationalError

from huigan.health.outage import Outage
from huigan.operate import runs as operate
from huigan.operate import timetable, workers
from storage import runs
from storage.db import Database, Session
from storage.records import Run, RunState
from trainer import CHILD_ENVIRONMENT, HANDED_BACK, leash

log = logging.getLogger(__name__)

Command = Callable[[Run], Sequence[str]]
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Pace:
    tick_seconds: float = 2.0
    lost_after_seconds: float = 60.0  # without a beat a worker is taken for dead
    grace_seconds: float = 30.0  # from being told to stop to being killed: a checkpoint may be on its way to disk


@dataclass
class Child:
    run: Run
    process: subprocess.Popen[bytes]
    stderr: Path
    kill_at: float | None = None  # monotonic; set once it has been told to stop, or should be about to

    def signal(self, number: signal.Signals) -> None:
        """To it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, grace_seconds: float) -> None:
        """Ask once, kill when the time is up; call it again and again."""
        if self.kill_at is None:
            self.signal(signal.SIGTERM)
        self.expect_end(grace_seconds)

    def expect_end(self, grace_seconds: float) -> None:
        """It should end by itself now: kill it when the time is up."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + grace_seconds
        elif time.monotonic() > self.kill_at:
            self.signal(signal.SIGKILL)


class Supervisor:
    """`command` says what to start for a run; what it writes to stderr is kept under `folder`."""

    def __init__(
        self,
        db: Database,
        command: Command,
        folder: Path,
        *,
        worker: str | None = None,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self.worker = worker or worker_name()
        self._db, self._command, self._folder, self._now = db, command, folder, now
        self._pace = pace or Pace()
        self._child: Child | None = None
        self._beat = beat
        self._outage = Outage("the supervisor's round", log)

    def serve(self, stop: threading.Event) -> None:
        """Until `stop` is set; then the child is stopped in order and its run handed back."""
        log.info("trainer %s waits for runs", self.worker)
        while not stop.is_set():
            self._beat()
            self._guarded(self.tick)
            stop.wait(self._pace.tick_seconds)
        self._guarded(self.leave)

    def tick(self) -> None:
        if self._child is not None and self._child.process.poll() is not None:
            self._bury(self._child)
        still_ours = self._db.write(self._speak, self._now())
        if self._child is not None:
            self._watch(self._child, still_ours)
        elif claimed := self._db.write(self._claim, self._now()):
            self._child = self._start(claimed)

    def leave(self) -> None:
        if self._child is not None:
            if not self._is_cleaning_up(self._child):
                self._child.stop(self._pace.grace_seconds)
            try:
                self._child.process.wait(self._pace.grace_seconds)
            except subprocess.TimeoutExpired:
                self._child.signal(signal.SIGKILL)
                self._child.process.wait()
            self._bury(self._child, orderly=True)
        self._db.write(workers.mark_gone, self.worker, self._now())
        log.info("trainer %s has left", self.worker)

    def _guarded(self, step: Callable[[], None]) -> None:
        with self._outage:  # the edge: a database that is away for a while must not end the child's run
            step()

    def _speak(self, session: Session, at: datetime) -> Run | None:
        """None if there is no run, or it is ours no more. Beats first: after a suspension it would be reaped too."""
        workers.mark_seen(session, self.worker, at)
        child = self._child
        still_ours = runs.beat(session, child.run.id, child.run.attempt, at) if child else None
        for lost in operate.reap(session, at - timedelta(seconds=self._pace.lost_after_seconds), at):
            log.warning("run %d lost its worker and is %s", lost.id, lost.state)
        return still_ours

    def _claim(self, session: Session, at: datetime) -> Run | None:
        """In quiet hours only what somebody asked for: also of what was queued, or was lost, before they began."""
        return runs.claim(session, self.worker, at, asked_for=timetable.quiet_until(session, at) is not None)

    def _start(self, run: Run) -> Child | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        stderr = self._folder / f"run-{run.id}-{run.attempt}.stderr"
        leashed = [sys.executable, "-I", leash.__file__, str(os.getpid()), *self._command(run)]
        log.info("run %d, attempt %d: starting", run.id, run.attempt)
        with stderr.open("wb") as kept:
            # A session of its own: Ctrl-C in our terminal is for us, and what the child starts can be stopped with it.
            process = subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stderr=kept,
                env={**os.environ, **CHILD_ENVIRONMENT},
                start_new_session=True,
            )
        return Child(run, process, stderr)

    def _watch(self, child: Child, still_ours: Run | None) -> None:
        if still_ours is not None:
            if still_ours.cancel_asked_at is not None:
                child.stop(self._pace.grace_seconds)
            return
        if self._made_last_move(child):
            child.expect_end(self._pace.grace_seconds)
        else:
            log.warning("run %d went on without us: killing attempt %d", child.run.id, child.run.attempt)
            child.signal(signal.SIGKILL)

    def _made_last_move(self, child: Child) -> bool:
        """It is cleaning up: nothing will take that up where it is stopped now."""
        known = self._db.read(runs.get, child.run.id)
        return known.attempt == child.run.attempt and known.state not in {RunState.QUEUED, RunState.RUNNING}

    def _is_cleaning_up(self, child: Child) -> bool:
        try:
            return self._made_last_move(child)
        except OperationalError:  # it is asked to stop in any case
            return False

    def _bury(self, child: Child, *, orderly: bool = False) -> None:
        """The child has ended. Tell of its end, if it did not do so itself."""
        child.signal(signal.SIGKILL)  # what it started must not go on in its folder
        moved = self._db.write(self._settle, child, orderly, self._now())
        self._child = None
        log.info(
            "run %d, attempt %d: ended with %d%s",
            child.run.id,
            child.run.attempt,
            child.process.returncode,
            f", now {moved.state}" if moved else "",
        )

    def _settle(self, session: Session, child: Child, orderly: bool, at: datetime) -> Run | None:
        known, code = runs.get(session, child.run.id), child.process.returncode
        if (known.attempt, known.state) != (child.run.attempt, RunState.RUNNING):
            return None
        if orderly or code < 0 or code == HANDED_BACK or known.cancel_asked_at is not None:
            return operate.lose(session, known, at, orderly=orderly, code=lost_by(code))
        last = last_exception(child.stderr)
        error = {"code": ended_by(last), "exit": code, "last": last, "log": child.stderr.name}
        return operate.fail(session, known.id, known.attempt, error, at)


def worker_name() -> str:
    """Unique among the living, and short enough for its column."""
    return f"{socket.gethostname()[:48]}:{os.getpid()}"


def lost_by(exit_code: int) -> str:
    """Nobody kills a child that is still wanted but the kernel, when memory runs out; a person could, too."""
    return "child_killed" if exit_code == -signal.SIGKILL else "worker_lost"


def ended_by(last: str) -> str:
    """A child that had too little memory to go on may have too little to say so."""
    return "out_of_memory" if last.endswith("MemoryError") else "child_ended"


def last_exception(stderr: Path) -> str:
    """The exception's name in the last line of a traceback. Its message is left out: it may quote what people wrote."""
    with stderr.open("rb") as opened:
        opened.seek(max(0, stderr.stat().st_size - TAIL_BYTES))
        lines = opened.read().decode(errors="replace").strip().splitlines()
    named = re.match(r"([A-Za-z_][\w.]*)(?::|$)", lines[-1]) if lines else None
    return named[1] if named else ""


def main(
    db: Database,
    command: Command,
    folder: Path,
    *,
    worker: str | None = None,
    pace: Pace | None = None,
    beat: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; `beat` hears of each round."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Supervisor(db, command, folder, worker=worker, pace=pace, beat=beat).serve(stop)
