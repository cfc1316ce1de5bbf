"""A clock that was a year ahead and was put right holds nothing up; one that is a minute ahead harms nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from huigan.operate import workers
from storage import clocks, gpu, leases, runs, showings, turns, updates
from storage.db import Database, Session
from storage.records import Run, RunState
from tests.storage.noun_world import conversation, message

AT = datetime(2100, 1, 1, tzinfo=UTC)  # past any database's own clock
LOST = timedelta(seconds=60)
# By how far the clock was ahead that wrote, and whether what it wrote is believed.
CLOCKS = [
    (timedelta(minutes=2), True),
    (timedelta(hours=1), True),
    (clocks.AHEAD + timedelta(seconds=1), False),
    (timedelta(days=365), False),
]


def training(session: Session, at: datetime) -> Run:
    runs.enqueue(session, "default", {"serving": {"while_training": "cpu"}}, "test", at)
    claimed = runs.claim(session, "w", at)
    assert claimed is not None
    runs.report(session, claimed.id, claimed.attempt, "train", {"gpu": True}, at)
    return claimed


@pytest.mark.parametrize(("ahead", "is_believed"), CLOCKS)
def test_a_run_and_its_card_are_let_go(db: Database, ahead: timedelta, is_believed: bool) -> None:
    run = db.write(training, AT + ahead)
    assert (db.read(gpu.held, AT) is not None) == is_believed
    assert len(db.write(runs.reap, AT - LOST, AT)) == (not is_believed)
    assert db.read(runs.get, run.id).state is (RunState.RUNNING if is_believed else RunState.QUEUED)


@pytest.mark.parametrize(("ahead", "is_believed"), CLOCKS)
def test_a_trainer_is_not_believed_to_live(db: Database, ahead: timedelta, is_believed: bool) -> None:
    db.write(workers.mark_seen, "gpu", AT + ahead)
    assert db.read(workers.is_alive, AT) == is_believed


@pytest.mark.parametrize(("ahead", "is_believed"), CLOCKS)
def test_a_lease_may_be_taken(db: Database, ahead: timedelta, is_believed: bool) -> None:
    assert db.write(leases.take, "notices", "gone", LOST, AT + ahead)
    assert db.write(leases.take, "notices", "here", LOST, AT) == (not is_believed)
    db.write(leases.alive, "bots", "gone", LOST, AT + ahead)
    assert db.write(leases.alive, "bots", "here", LOST, AT) == 1 + is_believed


@pytest.mark.parametrize(("ahead", "is_believed"), CLOCKS)
def test_what_a_dead_bot_left_is_taken_over(db: Database, ahead: timedelta, is_believed: bool) -> None:
    def left(session: Session) -> int:
        talk = conversation(session)
        waiting = turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT)
        turns.open_next(session, waiting.id, "gone", AT + ahead)
        showings.begin(session, waiting.id, "telegram", AT + ahead)
        showings.claim(session, waiting.id, "gone", None, AT + ahead)
        updates.store(session, 1, {}, AT + ahead, worker="gone")
        updates.store(session, 2, {}, AT + ahead)
        return waiting.id

    turn = db.write(left)
    lost = [] if is_believed else [turn]
    assert [each.id for each in db.read(turns.abandoned, AT - LOST, AT)] == lost
    assert [each.turn_id for each in db.read(showings.unfinished, "telegram", "here", AT - LOST, AT)] == lost
    assert db.write(showings.claim, turn, "here", AT - LOST, AT) == (not is_believed)
    assert [each.update_id for each in db.write(updates.adopt, "here", AT - LOST, AT)] == [1, 2] * (not is_believed)


@pytest.mark.parametrize("db", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_who_looks_with_a_clock_that_is_behind_takes_nobody_for_dead(db: Database) -> None:
    now = datetime.now(UTC)
    behind = now - timedelta(days=365)
    db.write(training, now)
    db.write(leases.take, "notices", "there", LOST, now)
    assert db.write(runs.reap, behind - LOST, behind) == []
    assert not db.write(leases.take, "notices", "here", LOST, behind)
    db.write(workers.mark_seen, "gpu", now)
    assert db.read(workers.is_alive, behind)
    assert db.read(gpu.held, behind) is not None
    assert not db.read(clocks.is_right, behind)
    assert db.read(clocks.is_right, now)
