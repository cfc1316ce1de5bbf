"""Whoever goes on from a run and whoever marks it do not miss each other, whichever of them is first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from storage import holdings, runs
from storage.db import Database, Session
from storage.records import Run, RunState

T = TypeVar("T")

AT = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


def one_that_ended_and_one_that_runs(db: Database) -> tuple[Run, Run]:
    found = []
    for after in (RunState.REJECTED, None):
        db.write(runs.enqueue, "default", {}, "test", AT)
        claimed = db.write(runs.claim, "test", AT)
        assert claimed is not None
        if after is not None:
            db.write(runs.move, claimed.id, claimed.attempt, RunState.RUNNING, after, AT)
        found.append(claimed)
    return found[0], found[1]


def go_on(session: Session, before: Run, going: Run) -> bool:
    if holdings.of_origin(session, before.id) is not None:
        return False
    return runs.go_on_from(session, going.id, going.attempt, before.id) is not None


def mark(session: Session, before: Run) -> list[int]:
    return [each.run_id for each in holdings.mark(session, [before.id], AT)]


def beside(db: Database, first: Callable[[Session], object], second: Callable[[Session], T]) -> T:
    """What the second gives that begins before the first is committed, and is to wait for that."""
    with ThreadPoolExecutor(1) as thread:
        with db.engine.connect() as session:
            first(session)
            later = thread.submit(db.write, second)
            wait([later], timeout=0.3)
            assert not later.done()
            session.commit()
        return later.result()


def test_who_goes_on_while_the_other_is_marked_finds_the_mark(db: Database) -> None:
    before, going = one_that_ended_and_one_that_runs(db)
    assert beside(db, lambda session: mark(session, before), lambda session: go_on(session, before, going)) is False
    assert db.read(runs.get, going.id).continues_run_id is None


def test_who_marks_while_another_goes_on_finds_it(db: Database) -> None:
    before, going = one_that_ended_and_one_that_runs(db)
    marked = beside(db, lambda session: go_on(session, before, going), lambda session: mark(session, before))
    assert marked == [before.id, going.id]


@pytest.mark.parametrize("db", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_who_writes_to_a_run_does_not_wait_for_one_that_marks_it(db: Database) -> None:
    """A worker's beats go on, and who moves several runs meets no deadlock."""
    before, going = one_that_ended_and_one_that_runs(db)
    with db.engine.connect() as session:
        holdings.mark(session, [going.id], AT)
        assert db.write(runs.beat, going.id, going.attempt, AT) is not None
        assert db.write(runs.beat, before.id, before.attempt, AT) is None
