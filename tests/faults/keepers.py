"""Faults that strike those who start runs and those who have them done: a scheduler or a supervisor is killed at any
instant, its clock jumps, there are two of it. Each night is one run, each attempt one child, and no run waits for ever.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from schedules import loop
from storage import runs
from storage.db import Database, connect
from storage.recipe import Data, Recipe
from storage.records import Run, RunState
from tests.faults import invariants
from tests.faults.forks import Fork, soon
from tests.faults.matrix import Came, Cell
from tests.schedules import rival
from tests.schedules.ratings import add_base, rate
from tests.trainer import stub_supervisor
from tests.trainer.processes import is_gone
from trainer.supervisor import Pace, Supervisor

TESTS = Path(__file__).resolve().parent.parent
CHILD = TESTS / "trainer" / "stub_child.py"
RECIPE = Recipe(name="test", data=Data(min_ratings=4, min_raters=2, min_answers=4))
PACE = Pace(tick_seconds=0.05, lost_after_seconds=2.0, grace_seconds=5.0)
OVER_SECONDS = 60.0
GONE_SECONDS = 10.0  # for the kernel to end what was on a leash


@contextmanager
def database(cell: Cell) -> Iterator[tuple[Database, str]]:
    cell.folder.mkdir(exist_ok=True)
    url = f"sqlite:///{shutil.copy(cell.grounds.migrated, cell.folder / 'huigan.db')}"
    db = connect(url)
    try:
        yield db, url
    finally:
        db.close()


@contextmanager
def ended(*started: Fork) -> Iterator[None]:
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def is_killed(process: Fork) -> bool:
    process.kill()
    return process.wait() == -9


# The scheduler


def scheduler(url: str, folder: Path, name: str) -> Fork:
    return Fork(folder / "scheduler.log", rival.main, url, folder, name)


def scheduler_killed(cell: Cell, rounds: int) -> Came:
    """As what makes a run due has come, and again; there is one run for each time, and none is missing."""
    with database(cell) as (db, url):
        at, kills, broken = datetime.now(UTC), 0, []
        db.write(add_base, at)
        for night in range(1, rounds + 1):
            process = scheduler(url, cell.folder, "one")
            with ended(process):
                soon(lambda p=process: p.poll() is not None or _looks(cell.folder) > 0)
                db.write(rate, 4, datetime.now(UTC))
                time.sleep(cell.rng.choice((0.0, cell.rng.uniform(0, 0.05), cell.rng.uniform(0, 0.3))))
                kills += is_killed(process)
            (cell.folder / "one").unlink(missing_ok=True)
            with ended(process := scheduler(url, cell.folder, "one")):
                soon(lambda n=night: len(db.read(runs.newest, 100)) >= n, OVER_SECONDS)
                time.sleep(cell.rng.uniform(0, 0.2))
                kills += is_killed(process)
            (cell.folder / "one").unlink(missing_ok=True)
            broken += done(db, night)
        return Came("one run a time", broken + invariants.runs_move_as_runs_do(db), kills, rounds)


def _looks(folder: Path) -> int:
    trace = folder / "one"
    return int(trace.read_text() or 0) if trace.exists() else 0


def done(db: Database, night: int) -> list[str]:
    """The run of that night is done, as a trainer would."""
    known = db.read(runs.newest, 100)
    broken = [] if len(known) == night else [f"after {night} times there are {len(known)} runs"]
    at = datetime.now(UTC)
    if claimed := db.write(runs.claim, "test", at):
        db.write(runs.move, claimed.id, claimed.attempt, RunState.RUNNING, RunState.BUILT, at)
    return broken + invariants.runs_come_to_an_end(db)


def two_schedulers(cell: Cell, rounds: int) -> Came:
    with database(cell) as (db, url):
        db.write(add_base, datetime.now(UTC))
        broken: list[str] = []
        with ended(*(pair := [scheduler(url, cell.folder, name) for name in ("one", "two")])):
            soon(lambda: all((cell.folder / name).exists() for name in ("one", "two")))
            for night in range(1, rounds + 1):
                db.write(rate, 4, datetime.now(UTC))
                soon(lambda n=night: len(db.read(runs.newest, 100)) >= n, OVER_SECONDS)
                time.sleep(cell.rng.uniform(0, 0.3))
                broken += done(db, night)
            kills = sum(map(is_killed, pair))
        return Came("one run a time", broken + invariants.runs_move_as_runs_do(db), kills, rounds)


def scheduler_clock_jumps(cell: Cell, rounds: int) -> Came:
    """Days ahead and back, further than two machines' clocks may differ, with people rating all the while by clocks
    that are right. Once its own is right again, and the dates it invented are past, what is due is queued within one
    look; never is more than one run open.
    """

    def wrong(at: datetime) -> datetime:
        return at + cell.rng.choice((-1, 1)) * timedelta(hours=cell.rng.uniform(25, 72))

    with database(cell) as (db, _):
        at, broken = datetime(2026, 11, 24, 12, tzinfo=UTC), []
        db.write(add_base, at)
        plan = loop.Plan(lambda: RECIPE, cron="0 3 * * *", min_new_ratings=4, zone=UTC)
        for _ in range(rounds):
            at += timedelta(hours=cell.rng.uniform(73, 100))
            loop.consider(db, plan, wrong(at))
            db.write(rate, 4, at)
            loop.consider(db, plan, wrong(at))
            due = loop.consider(db, plan, at + timedelta(minutes=5))
            open_runs = [run for run in db.read(runs.newest, 100) if run.state is RunState.QUEUED]
            if len(open_runs) != 1:
                broken.append(f"at {at} {len(open_runs)} runs are open; {[each.code for each in due.reasons]}")
            finish(db, at + timedelta(minutes=6))
        return Came("one run a time", broken + invariants.runs_move_as_runs_do(db), 0, rounds)


def finish(db: Database, at: datetime) -> None:
    if claimed := db.write(runs.claim, "test", at):
        db.write(runs.move, claimed.id, claimed.attempt, RunState.RUNNING, RunState.BUILT, at)


# The supervisor


def queued(db: Database) -> Run:
    run = db.write(runs.enqueue, "default", RECIPE.to_dict(), "test", datetime.now(UTC))
    assert run is not None
    return run


def supervisor(url: str, folder: Path) -> Fork:
    return Fork(folder / "supervisor.log", stub_supervisor.main, "slow", url, str(folder))


def supervisor_killed(cell: Cell, rounds: int) -> Came:
    """At any instant, at most twice a run: a third loss is not outlived, by design. Its children are stubs that take a
    second; with it they are gone."""
    with database(cell) as (db, url):
        kills, broken = 0, []
        for _ in range(rounds):
            run = queued(db)
            for _ in range(2):
                with ended(process := supervisor(url, cell.folder)):
                    time.sleep(cell.rng.uniform(0.3, 4.0))
                    kills += is_killed(process)
            with ended(supervisor(url, cell.folder)):
                soon(
                    lambda r=run: db.read(runs.get, r.id).state not in (RunState.QUEUED, RunState.RUNNING), OVER_SECONDS
                )
            broken += built(db, run)
        return Came("built", broken + children_are_gone(cell.folder), kills, rounds)


def built(db: Database, run: Run) -> list[str]:
    known = db.read(runs.get, run.id)
    broken = [] if known.state is RunState.BUILT else [f"run {run.id} is {known.state} with {known.error}"]
    return broken + invariants.runs_come_to_an_end(db) + invariants.runs_move_as_runs_do(db)


def children_are_gone(folder: Path) -> list[str]:
    traces = [path for path in folder.glob("*-*") if path.is_file() and path.suffix == ""]
    alive: list[str] = []

    def all_gone() -> bool:
        alive[:] = [path.name for path in traces if not is_gone(int(path.read_text() or 0))]
        return not alive

    soon(all_gone, GONE_SECONDS)
    return [f"the child of {name} is still at work" for name in alive]


def two_supervisors(cell: Cell, rounds: int) -> Came:
    with database(cell) as (db, url):
        broken: list[str] = []
        with ended(*(pair := [supervisor(url, cell.folder) for _ in range(2)])):
            for _ in range(rounds):
                run = queued(db)
                soon(lambda r=run: db.read(runs.get, r.id).state is RunState.BUILT, OVER_SECONDS)
                known = db.read(runs.get, run.id)
                broken += built(db, run) + (
                    [] if known.attempt == 1 else [f"run {run.id} took {known.attempt} attempts"]
                )
            kills = sum(map(is_killed, pair))
        return Came("built", broken, kills, rounds)


def supervisor_database_away(cell: Cell) -> Came:
    with database(cell) as (db, url):
        run = queued(db)
        with ended(process := supervisor(url, cell.folder)):
            time.sleep(cell.rng.uniform(0.3, 2.5))
            rename(db, "run", "gone")
            time.sleep(cell.rng.uniform(0.2, 1.5))
            rename(db, "gone", "run")
            soon(lambda: db.read(runs.get, run.id).state not in (RunState.QUEUED, RunState.RUNNING), OVER_SECONDS)
            broken = built(db, run) + ([] if process.poll() is None else ["the supervisor ended"])
        return Came("built", broken)


def rename(db: Database, before: str, after: str) -> None:
    db.write(lambda session: session.exec_driver_sql(f'ALTER TABLE "{before}" RENAME TO "{after}"'))


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def supervisor_clock_jumps(cell: Cell, hours: float) -> Came:
    """While its child works. It beats by the clock it reads, so its own run is never lost to it."""
    with database(cell) as (db, url):
        clock, run, stop = Clock(), queued(db), threading.Event()

        def command(claimed: Run) -> list[str]:
            told = ["slow", url, str(claimed.id), str(claimed.attempt), str(cell.folder)]
            return [sys.executable, str(CHILD), *told]

        keeper = Supervisor(db, command, cell.folder / "logs", pace=PACE, now=clock.now)
        thread = threading.Thread(target=keeper.serve, args=(stop,))
        thread.start()
        try:
            soon(lambda: db.read(runs.get, run.id).state is RunState.RUNNING)
            time.sleep(cell.rng.uniform(0, 0.5))
            clock.ahead = timedelta(hours=hours)
            soon(lambda: db.read(runs.get, run.id).state not in (RunState.QUEUED, RunState.RUNNING), OVER_SECONDS)
        finally:
            stop.set()
            thread.join()
        known = db.read(runs.get, run.id)
        return Came("built", built(db, run) + ([] if known.attempt == 1 else ["its own run was lost to it"]))
