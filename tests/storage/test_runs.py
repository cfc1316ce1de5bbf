"""Whatever workers, zombies, admins and reapers do in whatever order, runs keep to their state machine."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from storage import runs
from storage.db import Database, Session
from storage.records import RUN_MOVES, Run, RunState
from storage.tables import run, run_event

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
LOST_AFTER = timedelta(minutes=5)
ENDS = sorted(after for before, after in RUN_MOVES if before is RunState.RUNNING and after is not RunState.QUEUED)
DECISIONS = sorted(after for before, after in RUN_MOVES if before is RunState.AWAITING_APPROVAL)

lanes = st.sampled_from(["a", "b"])
which = st.integers(0, 9)
acts = st.one_of(
    st.tuples(st.just("enqueue"), lanes),
    st.tuples(st.just("claim"), st.sampled_from(["w1", "w2"])),
    st.tuples(st.just("beat"), which),
    st.tuples(st.just("report"), which),
    st.tuples(st.just("end"), which, st.sampled_from(ENDS)),
    st.tuples(st.just("decide"), which, st.sampled_from(DECISIONS)),
    st.tuples(st.just("lose"), which, st.booleans()),
    st.tuples(st.just("cancel"), which),
    st.tuples(st.just("reap"), st.sampled_from([1, 10])),
)

# Every story begins with a run in its second attempt, and the worker of its first: chance alone rarely makes one.
ZOMBIE: tuple[tuple[object, ...], ...] = (("enqueue", "a"), ("claim", "w1"), ("lose", 0, False), ("claim", "w2"))


def empty(session: Session) -> None:
    session.execute(delete(run_event))
    session.execute(delete(run))


def kept(session: Session) -> list[Run]:
    return runs.newest(session, 1000)


def check(session: Session) -> None:
    """What holds after every act."""
    for state in (RunState.QUEUED, RunState.RUNNING):
        by_lane = Counter(each.lane for each in kept(session) if each.state is state)
        assert all(number == 1 for number in by_lane.values())
    for each in kept(session):
        events = runs.events(session, each.id)
        assert (events[0].before, events[0].after) == (None, RunState.QUEUED)
        for earlier, later in itertools.pairwise(events):
            assert later.before is earlier.after
            assert (earlier.after, later.after) in RUN_MOVES
            assert later.attempt - earlier.attempt == (later.after is RunState.RUNNING)
        assert (events[-1].after, events[-1].attempt) == (each.state, each.attempt)
        assert (each.ended_at is not None) == (each.state in runs.ENDED)
        assert (each.worker is not None) or each.state is not RunState.RUNNING


class Story:
    """Runs as those who act on them remember them: a handle of an attempt that is over is a zombie's."""

    def __init__(self, session: Session) -> None:
        self.session, self.at = session, AT
        self.handles: list[Run] = []

    def act(self, name: str, *args: object) -> None:
        self.at += timedelta(minutes=1)
        getattr(self, name)(*args)

    def enqueue(self, lane: str) -> None:
        waiting = {each.lane for each in kept(self.session) if each.state is RunState.QUEUED}
        added = runs.enqueue(self.session, lane, {}, "test", self.at)
        assert (added is None) == (lane in waiting)

    def claim(self, worker: str) -> None:
        before = kept(self.session)
        busy = {each.lane for each in before if each.state is RunState.RUNNING}
        free = [each.id for each in before if each.state is RunState.QUEUED and each.lane not in busy]
        claimed = runs.claim(self.session, worker, self.at)
        assert (claimed.id if claimed else None) == min(free, default=None)
        if claimed:
            self.handles.append(claimed)

    def beat(self, number: int) -> None:
        self.as_worker(number, lambda held: runs.beat(self.session, held.id, held.attempt, self.at))

    def report(self, number: int) -> None:
        self.as_worker(number, lambda held: runs.report(self.session, held.id, held.attempt, "train", {}, self.at))

    def end(self, number: int, after: RunState) -> None:
        self.as_worker(
            number, lambda held: runs.move(self.session, held.id, held.attempt, RunState.RUNNING, after, self.at)
        )

    def lose(self, number: int, orderly: bool) -> None:
        self.as_worker(number, lambda held: runs.release_worker(self.session, held, self.at, orderly=orderly))

    def as_worker(self, number: int, act: Callable[[Run], Run | None]) -> None:
        """Succeeds exactly for the attempt that runs; a zombie's changes nothing."""
        if not self.handles:
            return
        held = self.handles[number % len(self.handles)]
        now = runs.get(self.session, held.id)
        is_alive = (now.state, now.attempt) == (RunState.RUNNING, held.attempt)
        assert (act(held) is not None) == is_alive
        if not is_alive:
            assert runs.get(self.session, held.id) == now

    def decide(self, number: int, after: RunState) -> None:
        if known := kept(self.session):
            now = known[number % len(known)]
            moved = runs.move(self.session, now.id, now.attempt, RunState.AWAITING_APPROVAL, after, self.at)
            assert (moved is not None) == (now.state is RunState.AWAITING_APPROVAL)

    def cancel(self, number: int) -> None:
        if known := kept(self.session):
            now = known[number % len(known)]
            asked = runs.ask_cancel(self.session, now.id, self.at)
            assert (asked is not None) == (now.state in {RunState.QUEUED, RunState.RUNNING})

    def reap(self, minutes: int) -> None:
        beaten_before = self.at - timedelta(minutes=minutes)
        running = [each for each in kept(self.session) if each.state is RunState.RUNNING]
        silent = {each.id for each in running if each.beat_at is not None and each.beat_at < beaten_before}
        assert {each.id for each in runs.reap(self.session, beaten_before, self.at)} == silent


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(acts, max_size=25))
def test_no_order_of_events_breaks_the_state_machine(db: Database, script: list[tuple[object, ...]]) -> None:
    def play(session: Session) -> None:
        empty(session)
        story = Story(session)
        for name, *args in (*ZOMBIE, *script):
            story.act(str(name), *args)
            check(session)

    db.write(play)


def test_a_worker_lost_three_times_takes_its_run_along(db: Database) -> None:
    added = db.write(runs.enqueue, "a", {}, "test", AT)
    assert added is not None
    for attempt in (1, 2, 3):
        claimed = db.write(runs.claim, "w", AT)
        assert claimed is not None
        assert claimed.attempt == attempt
        moved = db.write(runs.release_worker, claimed, AT)
        assert moved is not None
        assert moved.state is (RunState.FAILED if attempt == 3 else RunState.QUEUED)


def test_a_lost_run_gives_way_to_the_one_that_waits(db: Database) -> None:
    db.write(runs.enqueue, "a", {}, "test", AT)
    claimed = db.write(runs.claim, "w", AT)
    assert claimed is not None
    assert db.write(runs.enqueue, "a", {}, "test", AT) is not None
    moved = db.write(runs.release_worker, claimed, AT)
    assert moved is not None
    assert (moved.state, moved.error) == (RunState.CANCELLED, {"code": "replaced_by_queued"})


def test_a_lost_run_that_was_to_be_cancelled_is_cancelled(db: Database) -> None:
    db.write(runs.enqueue, "a", {}, "test", AT)
    claimed = db.write(runs.claim, "w", AT)
    assert claimed is not None
    db.write(runs.ask_cancel, claimed.id, AT)
    (moved,) = db.write(runs.reap, AT + timedelta(minutes=1), AT + timedelta(minutes=1))
    assert moved.state is RunState.CANCELLED


@pytest.mark.parametrize(
    ("before", "after"), [(RunState.FAILED, RunState.QUEUED), (RunState.QUEUED, RunState.RELEASED)]
)
def test_a_move_that_no_run_makes_is_a_mistake_of_ours(sqlite_db: Database, before: RunState, after: RunState) -> None:
    with pytest.raises(ValueError, match="no run moves"):
        sqlite_db.write(runs.move, 1, 1, before, after, AT)


def test_many_workers_claim_each_run_once(db: Database) -> None:
    for lane in "abcde":
        db.write(runs.enqueue, lane, {}, "test", AT)
    claimed: list[Run] = []

    def work(worker: str) -> None:
        for _ in range(5):
            if found := db.write(runs.claim, worker, AT):
                claimed.append(found)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.lane for each in claimed) == list("abcde")
    db.read(check)


def test_one_of_many_that_queue_at_once_is_queued(db: Database) -> None:
    added: list[Run | None] = []
    threads = [
        threading.Thread(target=lambda: added.append(db.write(runs.enqueue, "a", {}, "test", AT))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in added) == 1
