"""Children that succeed, crash, hang and die, and supervisors that do: no run is lost, none runs twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from huigan.operate import runs as operate
from huigan.operate import settable, workers
from huigan.texts import text
from storage import outbox, runs
from storage.db import Database
from storage.records import Run, RunState
from tests.trainer.processes import is_gone, until
from trainer.supervisor import Pace, Supervisor, last_exception

TESTS = Path(__file__).parent
PACE = Pace(tick_seconds=0.02, lost_after_seconds=60, grace_seconds=5)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def url(sqlite_db: Database, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'huigan.db'}"


@contextmanager
def supervised(db: Database, url: str, folder: Path, act: str, pace: Pace = PACE) -> Iterator[Supervisor]:
    """A supervisor in a thread, whose children do `act`."""

    def command(run: Run) -> list[str]:
        return [sys.executable, str(TESTS / "stub_child.py"), act, url, str(run.id), str(run.attempt), str(folder)]

    supervisor, stop = Supervisor(db, command, folder / "logs", pace=pace), threading.Event()
    thread = threading.Thread(target=supervisor.serve, args=(stop,))
    thread.start()
    try:
        yield supervisor
    finally:
        stop.set()
        thread.join()


@contextmanager
def process(url: str, folder: Path, act: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, str(TESTS / "stub_supervisor.py"), act, url, str(folder)])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def queue(db: Database, lane: str = "default") -> Run:
    added = db.write(runs.enqueue, lane, {}, "test", now())
    assert added is not None
    return added


def state(db: Database, run: Run) -> RunState:
    return db.read(runs.get, run.id).state


def pid_of(trace: Path) -> int:
    until(lambda: trace.exists() and trace.read_text())
    return int(trace.read_text())


def test_a_run_whose_child_succeeds_is_left_as_the_child_left_it(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "succeed"):
        until(lambda: state(sqlite_db, run) is RunState.BUILT)
        assert sqlite_db.read(workers.is_alive, now())
        second = queue(sqlite_db)
        until(lambda: state(sqlite_db, second) is RunState.BUILT)
    assert not sqlite_db.read(workers.is_alive, now())


def test_a_crash_fails_the_run_and_keeps_what_people_wrote_out_of_the_reason(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "crash"):
        until(lambda: state(sqlite_db, run) is RunState.FAILED)
    error = sqlite_db.read(runs.get, run.id).error
    assert error == {"code": "child_ended", "exit": 1, "last": "ValueError", "log": f"run-{run.id}-1.stderr"}
    assert [each.code for each in sqlite_db.read(outbox.unsent)] == ["run_failed"]


def test_a_child_without_the_memory_to_say_so_is_believed_by_its_last_line(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "starve"):
        until(lambda: state(sqlite_db, run) is RunState.FAILED)
    error = sqlite_db.read(runs.get, run.id).error
    assert error is not None
    assert (error["code"], error["last"]) == ("out_of_memory", "MemoryError")


def test_a_child_that_ends_without_a_word_fails_its_run(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "nothing"):
        until(lambda: state(sqlite_db, run) is RunState.FAILED)
    error = sqlite_db.read(runs.get, run.id).error
    assert error is not None
    assert (error["exit"], error["last"]) == (0, "")
    assert f"run-{run.id}-1.stderr" in text("en", "error.child_ended", **error)


def test_a_run_whose_children_are_killed_is_tried_three_times_and_memory_is_suspected(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    """The kernel does so when memory runs out: nobody else kills a child whose supervisor lives."""
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "die"):
        until(lambda: state(sqlite_db, run) is RunState.FAILED)
    assert sqlite_db.read(runs.get, run.id).error == {"code": "child_killed", "attempts": 3}
    assert "memory" in text("en", "error.child_killed", attempts=3)
    assert [each.code for each in sqlite_db.read(outbox.unsent)] == ["run_failed"]
    assert sorted(each.name for each in tmp_path.glob(f"{run.id}-?")) == [f"{run.id}-{n}" for n in (1, 2, 3)]


def test_a_run_that_its_child_hands_back_is_tried_again(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "hand_back"):
        until(lambda: sqlite_db.read(runs.get, run.id).attempt == 2)
    assert [each.after for each in sqlite_db.read(runs.events, run.id)][:4] == [
        "QUEUED",
        "RUNNING",
        "QUEUED",
        "RUNNING",
    ]


def test_a_command_that_is_not_there_fails_the_run_and_not_the_supervisor(sqlite_db: Database, tmp_path: Path) -> None:
    run = queue(sqlite_db)
    supervisor = Supervisor(sqlite_db, lambda _: ["/no/such/program"], tmp_path / "logs", pace=PACE)
    until(lambda: supervisor.tick() or state(sqlite_db, run) is RunState.FAILED)
    error = sqlite_db.read(runs.get, run.id).error
    assert error is not None
    assert error["last"] == "FileNotFoundError"


@pytest.mark.parametrize("act", ["sleep", "parent", "stubborn"])
def test_a_cancelled_run_stops_with_all_that_it_started(
    sqlite_db: Database, url: str, tmp_path: Path, act: str
) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, act, Pace(0.02, 60, grace_seconds=0.3)):
        pids = [pid_of(tmp_path / f"{run.id}-1")]
        if act == "parent":
            pids.append(pid_of(tmp_path / f"{run.id}-1.grandchild"))
        if act == "stubborn":
            until((tmp_path / f"{run.id}-1.ready").exists)
        operate.cancel(sqlite_db, run.id, by_user_id=None, at=now())
        until(lambda: state(sqlite_db, run) is RunState.CANCELLED)
        until(lambda: all(map(is_gone, pids)))
    assert [each.code for each in sqlite_db.read(outbox.unsent)] == ["run_cancelled"]


def test_a_child_whose_run_went_on_without_it_is_killed(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "stubborn", Pace(0.02, 60, grace_seconds=0.3)):
        pid = pid_of(tmp_path / f"{run.id}-1")
        sqlite_db.write(runs.reap, now() + timedelta(hours=1), now())  # somebody took us for dead
        until(lambda: is_gone(pid))
        pid_of(tmp_path / f"{run.id}-2")
    assert not (tmp_path / f"{run.id}-3").exists()


def test_told_to_stop_it_hands_its_run_back_and_the_next_one_resumes(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    for attempt in (1, 2, 3, 4):
        with process(url, tmp_path, "sleep") as supervisor:
            pid = pid_of(tmp_path / f"{run.id}-{attempt}")
            supervisor.send_signal(signal.SIGTERM if attempt % 2 else signal.SIGINT)
            assert supervisor.wait(20) == 0
        assert is_gone(pid)
        assert state(sqlite_db, run) is RunState.QUEUED
    assert {event.detail.get("lost") for event in sqlite_db.read(runs.events, run.id)} == {None}


def test_told_to_stop_it_lets_a_child_clean_up_that_has_ended_its_run(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    with supervised(sqlite_db, url, tmp_path, "clean_up"):
        until(lambda: state(sqlite_db, run) is RunState.BUILT)
    assert (tmp_path / f"{run.id}-1.clean").exists()


def test_killed_it_takes_its_child_along_and_the_next_one_reaps_and_resumes(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    with process(url, tmp_path, "sleep") as supervisor:
        pid = pid_of(tmp_path / f"{run.id}-1")
        supervisor.kill()
        until(lambda: is_gone(pid))
    assert state(sqlite_db, run) is RunState.RUNNING
    with process(url, tmp_path, "succeed"):
        until(lambda: state(sqlite_db, run) is RunState.BUILT)
    assert [event.after for event in sqlite_db.read(runs.events, run.id)] == [
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.QUEUED,
        RunState.RUNNING,
        RunState.BUILT,
    ]


def test_two_supervisors_never_run_one_run_twice(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    queued = [queue(sqlite_db, f"lane{number}") for number in range(6)]
    with (
        supervised(sqlite_db, url, tmp_path, "succeed"),
        supervised(sqlite_db, url, tmp_path, "succeed"),
    ):
        until(lambda: all(state(sqlite_db, each) is RunState.BUILT for each in queued), 60)
    assert sorted(each.name for each in tmp_path.glob("?-?")) == [f"{each.id}-1" for each in queued]


def test_a_database_that_is_away_for_a_while_ends_neither_child_nor_supervisor(
    sqlite_db: Database, url: str, tmp_path: Path
) -> None:
    run = queue(sqlite_db)
    database = tmp_path / "huigan.db"
    with supervised(sqlite_db, url, tmp_path, "sleep"):
        pid = pid_of(tmp_path / f"{run.id}-1")
        sqlite_db.write(lambda session: session.exec_driver_sql("ALTER TABLE run RENAME TO gone"))
        time.sleep(0.2)
        assert not is_gone(pid)
        sqlite_db.write(lambda session: session.exec_driver_sql("ALTER TABLE gone RENAME TO run"))
        before = sqlite_db.read(runs.get, run.id).beat_at
        until(lambda: sqlite_db.read(runs.get, run.id).beat_at != before)
    assert database.exists()
    assert state(sqlite_db, run) is RunState.QUEUED


def test_a_child_is_told_what_its_libraries_must_know_before_they_load(sqlite_db: Database, tmp_path: Path) -> None:
    queue(sqlite_db)
    told = tmp_path / "told"
    script = f"import os; open({str(told)!r}, 'w').write(os.environ['OMP_WAIT_POLICY'])"
    supervisor = Supervisor(sqlite_db, lambda _: [sys.executable, "-c", script], tmp_path / "logs", pace=PACE)
    until(lambda: supervisor.tick() or (told.exists() and told.read_text()))
    assert told.read_text() == "PASSIVE"
    supervisor.leave()


@pytest.mark.parametrize(
    ("stderr", "name"),
    [
        ("", ""),
        ("\n\n", ""),
        ("Traceback …\ntorch.OutOfMemoryError: CUDA out of memory", "torch.OutOfMemoryError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("the user said: my secret", ""),
        ("\xff\x00 rubbish", ""),
        ("x" * 10_000 + "\nMemoryError:", "MemoryError"),
    ],
)
def test_only_the_name_of_an_exception_is_told(tmp_path: Path, stderr: str, name: str) -> None:
    file = tmp_path / "stderr"
    file.write_bytes(stderr.encode("latin-1", "replace"))
    assert last_exception(file) == name


def test_in_quiet_hours_it_claims_only_what_somebody_asked_for(sqlite_db: Database, url: str, tmp_path: Path) -> None:
    clock = [datetime(2026, 11, 24, 14, 59, tzinfo=UTC)]  # a minute to eleven at night in Shanghai
    said = {"environment": {"quiet_hours": "08:00-23:00", "zone": "Asia/Shanghai"}}
    sqlite_db.write(settable.tell, "schedules", said, clock[0])
    by_itself = sqlite_db.write(runs.enqueue, "default", {}, "schedule", clock[0])
    assert by_itself is not None
    asleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor = Supervisor(sqlite_db, lambda run: asleep, tmp_path / "logs", pace=PACE, now=lambda: clock[0])
    supervisor.tick()
    assert state(sqlite_db, by_itself) is RunState.QUEUED
    clock[0] = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
    supervisor.tick()
    assert state(sqlite_db, by_itself) is RunState.RUNNING
    supervisor.leave()
