"""Runs and their moves. Every move is a compare-and-swap that names the state and attempt it leaves.

A worker that was thought lost and comes back finds that its attempt is over: its moves, beats and stages return
False or None and change nothing. Each move writes its event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Executable, Select, bindparam, select
from sqlalchemy import update as sql_update

from storage import clocks
from storage.db import Session
from storage.records import MAX_ATTEMPTS, RUN_MOVES, Run, RunEvent, RunState
from storage.rows import add, add_once, batches, every, first
from storage.tables import run, run_event

ENDED = frozenset(RunState) - {RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_APPROVAL}
BY_ITSELF = ("schedule", "threshold", "rebuild")  # why a run was queued that nobody asked for


OF_ID = select(run).where(run.c.id == bindparam("id"))
_busy = select(run.c.lane).where(run.c.state == RunState.RUNNING)
FREE = select(run).where(run.c.state == RunState.QUEUED, run.c.lane.not_in(_busy)).order_by(run.c.id).limit(1)
_silent = clocks.silent(run.c.beat_at, bindparam("beaten_before"), bindparam("latest"))
LOST = select(run).where(run.c.state == RunState.RUNNING, _silent).order_by(run.c.id)


def enqueue(
    session: Session,
    lane: str,
    recipe: Mapping[str, Any],
    why: str,
    at: datetime,
    *,
    by_user_id: int | None = None,
    dataset_only: bool = False,
) -> Run | None:
    """None if one waits in that lane already: it will see the newest ratings anyway."""
    added = add_once(
        session,
        Run,
        run,
        lane=lane,
        state=RunState.QUEUED,
        progress={},
        attempt=0,
        recipe=dict(recipe),
        dataset_only=dataset_only,
        why=why,
        by_user_id=by_user_id,
        queued_at=at,
    )
    if added is not None:
        _record(session, added, None, {"why": why}, at)
    return added


def claim(
    session: Session, worker: str, at: datetime, run_id: int | None = None, *, asked_for: bool = False
) -> Run | None:
    """Take the oldest queued run whose lane is free, or that run if it is one. Its attempt goes up by one.

    `asked_for` leaves those that started by themselves where they are.
    """
    free = FREE if run_id is None else FREE.where(run.c.id == run_id)
    waiting = first(session, Run, free.where(run.c.why.not_in(BY_ITSELF)) if asked_for else free)
    if waiting is None:
        return None
    return move(
        session,
        waiting.id,
        waiting.attempt,
        RunState.QUEUED,
        RunState.RUNNING,
        at,
        attempt=waiting.attempt + 1,
        worker=worker,
        beat_at=at,
        started_at=waiting.started_at or at,
        detail={"worker": worker},
    )


def move(
    session: Session,
    run_id: int,
    attempt: int,
    before: RunState,
    after: RunState,
    at: datetime,
    /,
    detail: Mapping[str, Any] | None = None,
    **values: Any,
) -> Run | None:
    """Move a run from `before` to `after`. None if it is not there any more, or this attempt is over.

    Raises ValueError for a move that no run makes.
    """
    if (before, after) not in RUN_MOVES:
        raise ValueError(f"no run moves from {before} to {after}")
    if after in ENDED:
        values["ended_at"] = at
    moved = first(
        session,
        Run,
        sql_update(run)
        .where(run.c.id == run_id, run.c.state == before, run.c.attempt == attempt)
        .values(state=after, **values)
        .returning(run),
    )
    if moved is not None:
        _record(session, moved, before, detail or {}, at)
    return moved


def beat(session: Session, run_id: int, attempt: int, at: datetime) -> Run | None:
    """Say that the worker lives. None if the run is not this attempt's any more: stop at once."""
    return _touch(session, run_id, attempt, beat_at=at)


def report(
    session: Session, run_id: int, attempt: int, stage: str, progress: Mapping[str, Any], at: datetime
) -> Run | None:
    """Where the run is, for people. None as for `beat`."""
    return _touch(session, run_id, attempt, stage=stage, progress=dict(progress), beat_at=at)


def tell_later(session: Session, run_id: int, progress: Mapping[str, Any]) -> None:
    """What is known of a run that nobody works on."""
    idle = sql_update(run).where(run.c.id == run_id, run.c.state != RunState.RUNNING)
    session.execute(idle.values(progress=dict(progress)))


def ask_cancel(session: Session, run_id: int, at: datetime) -> Run | None:
    """A queued run is cancelled at once; a running one is asked to stop. None if it is neither."""
    known = get(session, run_id)
    if known.state is RunState.QUEUED:
        cancelled = move(session, run_id, known.attempt, RunState.QUEUED, RunState.CANCELLED, at)
        if cancelled is not None:
            return cancelled  # else it was claimed just now, which PostgreSQL lets happen between two statements
    return first(
        session,
        Run,
        sql_update(run)
        .where(run.c.id == run_id, run.c.state == RunState.RUNNING)
        .values(cancel_asked_at=at)
        .returning(run),
    )


def reap(session: Session, beaten_before: datetime, at: datetime) -> list[Run]:
    """Put back what lost its worker, fail what lost it too often, cancel what was to be cancelled."""
    lost = every(session, Run, LOST, beaten_before=beaten_before, latest=clocks.latest(session, at))
    moved = (release_worker(session, each, at) for each in lost)
    return [each for each in moved if each is not None]


def release_worker(
    session: Session, lost: Run, at: datetime, *, orderly: bool = False, code: str = "worker_lost"
) -> Run | None:
    """What becomes of a running run whose worker is gone. None if `lost` is not that run's attempt any more.

    A worker that leaves in order costs the run none of its attempts. Where another run of the lane is queued
    meanwhile, that one stands in for it: one queued run a lane. `code` is the error of a run that was lost too often.
    """
    after, error = RunState.QUEUED, None
    if lost.cancel_asked_at is not None:
        after = RunState.CANCELLED
    elif not orderly and (losses := _losses(session, lost.id) + 1) >= MAX_ATTEMPTS:
        after, error = RunState.FAILED, {"code": code, "attempts": losses}
    elif _queued(session, lost.lane) is not None:
        after, error = RunState.CANCELLED, {"code": "replaced_by_queued"}
    return move(
        session,
        lost.id,
        lost.attempt,
        RunState.RUNNING,
        after,
        at,
        worker=None,
        error=error,
        detail={"handed_back" if orderly else "lost": lost.worker},
    )


def go_on_from(session: Session, run_id: int, attempt: int, before: int) -> Run | None:
    """Its adapter is the other run's, with what it adds. None as for `beat`."""
    return _touch(session, run_id, attempt, continues_run_id=before)


def and_on(session: Session, run_ids: Iterable[int]) -> set[int]:
    """These, and whatever went on from them."""
    found: set[int] = set()
    more = set(run_ids)
    while more:
        found |= more
        more = set(session.scalars(select(run.c.id).where(run.c.continues_run_id.in_(sorted(more))))) - found
    return found


def get(session: Session, run_id: int) -> Run:
    """Raises LookupError."""
    found = first(session, Run, OF_ID, id=run_id)
    if found is None:
        raise LookupError(f"run {run_id} is unknown")
    return found


def many(session: Session, run_ids: Iterable[int]) -> list[Run]:
    """Those that there are, newest first."""
    found = (every(session, Run, select(run).where(run.c.id.in_(some))) for some in batches(run_ids))
    return sorted((each for some in found for each in some), key=lambda each: -each.id)


def newest(
    session: Session,
    limit: int = 20,
    *,
    states: frozenset[RunState] | None = None,
    lane: str | None = None,
    dataset_only: bool | None = None,
    queued_by: datetime | None = None,
) -> list[Run]:
    """Newest first. `queued_by` leaves out those of a later time, which a clock that went wrong has left behind."""
    bound = {"limit": limit, "lane": lane, "dataset_only": dataset_only, "queued_by": queued_by}
    given = {name: value for name, value in bound.items() if value is not None}
    return every(session, Run, _newest(states, frozenset(given)), **given)


def newest_states(session: Session, limit: int, *, of: frozenset[RunState]) -> list[RunState]:
    """Of the runs that are in one of these, the newest first."""
    return list(session.scalars(_newest(of, frozenset()).with_only_columns(run.c.state), {"limit": limit}))


@cache
def _newest(states: frozenset[RunState] | None, given: frozenset[str]) -> Select[Any]:
    query: Select[Any] = select(run).order_by(run.c.id.desc()).limit(bindparam("limit"))
    if "queued_by" in given:
        query = query.where(run.c.queued_at <= bindparam("queued_by"))
    if "lane" in given:
        query = query.where(run.c.lane == bindparam("lane"))
    if "dataset_only" in given:
        query = query.where(run.c.dataset_only == bindparam("dataset_only"))
    return query if states is None else query.where(run.c.state.in_(sorted(states)))


def events(session: Session, run_id: int) -> list[RunEvent]:
    return every(session, RunEvent, select(run_event).where(run_event.c.run_id == run_id).order_by(run_event.c.id))


def _losses(session: Session, run_id: int) -> int:
    return sum("lost" in event.detail for event in events(session, run_id))


def _queued(session: Session, lane: str) -> Run | None:
    return first(session, Run, select(run).where(run.c.lane == lane, run.c.state == RunState.QUEUED))


def _touch(session: Session, run_id: int, attempt: int, **values: Any) -> Run | None:
    bound = {f"new_{name}": value for name, value in values.items()}
    return first(session, Run, _touching(frozenset(values)), id_=run_id, attempt_=attempt, **bound)


@cache
def _touching(names: frozenset[str]) -> Executable:
    query = sql_update(run).where(
        run.c.id == bindparam("id_"), run.c.attempt == bindparam("attempt_"), run.c.state == RunState.RUNNING
    )
    return query.values({name: bindparam(f"new_{name}") for name in sorted(names)}).returning(run)


def _record(session: Session, moved: Run, before: RunState | None, detail: Mapping[str, Any], at: datetime) -> None:
    values = {
        "run_id": moved.id,
        "attempt": moved.attempt,
        "before": before,
        "after": moved.state,
        "detail": dict(detail),
        "at": at,
    }
    add(session, RunEvent, run_event, **values)
