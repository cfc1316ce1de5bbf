"""A run trained by hand, without a supervisor: it beats while it works, whatever becomes of the database meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from storage import runs
from storage.db import Database
from storage.records import Run, RunState
from tests.trainer.test_supervisor import until
from tests.trainer.world import Away
from trainer import HANDED_BACK, alone

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.fixture
def queued(sqlite_db: Database) -> Run:
    added = sqlite_db.write(runs.enqueue, "default", {}, "test", AT)
    assert added is not None
    return added


def beaten_at(db: Database, run: int) -> datetime | None:
    return db.read(runs.get, run).beat_at


def test_beating_goes_on_after_a_database_that_was_away(sqlite_db: Database, queued: Run) -> None:
    def walk(db: Database, run: int, attempt: int) -> int:
        away = Away(db, times=2)
        until(lambda: away.times == 0)
        before = beaten_at(db, run)
        until(lambda: beaten_at(db, run) != before)
        return 0

    assert alone.run(sqlite_db, queued.id, walk, beat_seconds=0.01) == 0


def test_a_run_that_is_handed_back_waits_for_its_next_attempt(sqlite_db: Database, queued: Run) -> None:
    assert alone.run(sqlite_db, queued.id, lambda *_: HANDED_BACK) == HANDED_BACK
    assert sqlite_db.read(runs.get, queued.id).state is RunState.QUEUED


def test_ctrl_c_hands_a_run_back_at_no_cost(sqlite_db: Database, queued: Run) -> None:
    def walk(db: Database, run: int, attempt: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone.run(sqlite_db, queued.id, walk)
    assert sqlite_db.read(runs.get, queued.id).state is RunState.QUEUED


def test_a_run_that_does_not_wait_is_left_alone(sqlite_db: Database) -> None:
    assert alone.run(sqlite_db, 7, lambda *_: pytest.fail("walked")) == alone.NOT_OURS
