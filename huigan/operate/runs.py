"""Runs, as an operator sees them: started, cancelled, and told of when they end. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from huigan.operate import settable, workers
from huigan.operate.refusals import Refusal
from storage import audit, deployments, gpu, outbox, releases, runs, settings
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Run, RunState
from storage.release_policy import APPROVALS

# What is said of a canary that begins, by what it is judged by.
ON_TRIAL = {deployments.CONVERSATIONS: "canary_of_conversations", deployments.COMPARISONS: "canary_by_comparisons"}


@dataclass(frozen=True)
class Enqueued:
    run: Run
    trainer_lives: bool  # False: say that the run waits until someone starts `huigan trainer`


@dataclass(frozen=True)
class Cancelled:
    """A queued run is cancelled; one that was running has been asked to stop, which takes seconds."""

    run: Run


def enqueue(
    db: Database, recipe: Recipe, *, why: str, by_user_id: int | None, at: datetime, dataset_only: bool = False
) -> Enqueued | Refusal:
    """Refused where it could only fail (`no_base`, `no_weights`), or one waits already (`already_queued`)."""
    return db.write(enqueue_within, recipe, why, by_user_id, at, dataset_only)


def enqueue_within(
    session: Session, recipe: Recipe, why: str, by_user_id: int | None, at: datetime, dataset_only: bool = False
) -> Enqueued | Refusal:
    """As `enqueue`, in the transaction of whoever decided on it."""
    result = _queue(session, recipe, why, by_user_id, at, dataset_only)
    told = {"refused": result.code} if isinstance(result, Refusal) else {"run": result.run.id}
    audit.record(session, by_user_id, "run.enqueue", at, recipe=recipe.name, lane=recipe.lane, why=why, **told)
    return result


def _queue(
    session: Session, recipe: Recipe, why: str, by_user_id: int | None, at: datetime, dataset_only: bool
) -> Enqueued | Refusal:
    if not dataset_only and (lacking := lacks(session)):
        return lacking
    wanted = _as_admins_want(session, recipe)
    added = runs.enqueue(
        session, wanted.lane, wanted.to_dict(), why, at, by_user_id=by_user_id, dataset_only=dataset_only
    )
    if added is None:
        waiting = runs.newest(session, 1, states=frozenset({RunState.QUEUED}), lane=recipe.lane)
        return Refusal("already_queued", {"run": waiting[0].id if waiting else None, "lane": recipe.lane})
    return Enqueued(added, workers.is_alive(session, at))


def _as_admins_want(session: Session, recipe: Recipe) -> Recipe:
    """With an admin's word on what becomes of a release, which beats the recipe's."""
    kept = settings.get(session, settable.APPROVAL)
    return recipe if kept is None or kept.value not in APPROVALS else replace(recipe, approval=kept.value)


def lacks(session: Session) -> Refusal | None:
    """What keeps every run from succeeding, if anything does."""
    live = deployments.live(session)
    if live is None:
        return Refusal("no_base")
    return None if live.artefact.weights else Refusal("no_weights", {"tag": live.release.tag})


def cancel(db: Database, run_id: int, *, by_user_id: int | None, at: datetime) -> Cancelled | Refusal:
    """Refused if there is no such run (`unknown_run`), or it neither waits nor runs (`run_not_active`)."""
    return db.write(_cancel, run_id, by_user_id, at)


def _cancel(session: Session, run_id: int, by_user_id: int | None, at: datetime) -> Cancelled | Refusal:
    result = _ask(session, run_id, at)
    told = {"refused": result.code} if isinstance(result, Refusal) else {}
    audit.record(session, by_user_id, "run.cancel", at, run=run_id, **told)
    return result


def _ask(session: Session, run_id: int, at: datetime) -> Cancelled | Refusal:
    try:
        known = runs.get(session, run_id)
    except LookupError:
        return Refusal("unknown_run", {"run": run_id})
    asked = runs.ask_cancel(session, run_id, at)
    if asked is None:
        return Refusal("run_not_active", {"run": run_id, "state": known.state})
    announce(session, asked, at)
    return Cancelled(asked)


def answer_while_training(db: Database, way: gpu.WhileTraining | None, *, by_user_id: int | None, at: datetime) -> None:
    """What answers do while a run has the graphics card. None: as each run's recipe says."""
    db.write(_choose_way, way, by_user_id, at)


def _choose_way(session: Session, way: str | None, by_user_id: int | None, at: datetime) -> None:
    settings.put(session, gpu.SETTING, way, by_user_id, at)
    audit.record(session, by_user_id, "setting.while_training", at, way=way)


def fail(session: Session, run_id: int, attempt: int, error: Mapping[str, Any], at: datetime) -> Run | None:
    """End a running run as failed; `error` is {"code": …} with parameters. None if this attempt is over."""
    failed = runs.move(
        session, run_id, attempt, RunState.RUNNING, RunState.FAILED, at, detail=error, error=dict(error), worker=None
    )
    return announce(session, failed, at) if failed else None


def turn_away(session: Session, run_id: int, attempt: int, release: int, at: datetime) -> Run | None:
    """End a running run that would make this release once more, which was turned away. None if this attempt is over."""
    error = {"code": "turned_away_before", "release": release}
    ended = runs.move(
        session, run_id, attempt, RunState.RUNNING, RunState.REJECTED, at, detail=error, error=error, worker=None
    )
    return announce(session, ended, at) if ended else None


def lose(session: Session, lost: Run, at: datetime, *, orderly: bool = False, code: str = "worker_lost") -> Run | None:
    """What becomes of a running run whose worker is gone, or in order lets go of it. None if this attempt is over."""
    moved = runs.release_worker(session, lost, at, orderly=orderly, code=code)
    return announce(session, moved, at) if moved else None


def reap(session: Session, beaten_before: datetime, at: datetime) -> list[Run]:
    """Put back, fail or cancel what lost its worker."""
    return [announce(session, moved, at) for moved in runs.reap(session, beaten_before, at)]


def announce(session: Session, ended: Run, at: datetime) -> Run:
    """Put news of a run that has ended into the outbox, once: for whoever asked for it, else for every admin.

    Call it in the transaction of the move. A run that goes on is no news.
    """
    if ended.state in {RunState.QUEUED, RunState.RUNNING}:
        return ended
    params: dict[str, Any] = {"run": ended.id, "lane": ended.lane, "why": ended.why, "error": ended.error}
    code = f"run_{ended.state.lower()}"
    if ended.state is RunState.REJECTED and ended.error is not None:
        code = "run_turned_away"
    if ended.state is RunState.AWAITING_APPROVAL and ended.artefact_id is not None:
        proposed = releases.of_artefact(session, ended.artefact_id)
        params["release"] = proposed.id if proposed else None
        tried = deployments.canary(session)
        if tried is not None and tried.artefact.run_id == ended.id:
            params["share"] = tried.deployment.share
            code = ON_TRIAL[tried.deployment.why]
    # A proposal needs an admin, whoever asked for the run.
    user_id = None if ended.state is RunState.AWAITING_APPROVAL else ended.by_user_id
    outbox.put(session, code, params, at, user_id=user_id, key=f"run:{ended.id}:{ended.state}")
    return ended
