"""From an artefact to what answers: proposed, put on trial, published, promoted, rejected; for what is gone back to see
huigan.operate.rollbacks.

A swap is one INSERT, in one transaction with the run's move, the audit row and the notice. Whatever is promoted is
loaded first: if that fails, ServingError is raised and the live release stays. The tag exists and was tried out before
anything here is called; how it came to be is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from huigan.operate import tags, withdrawals
from huigan.operate.refusals import Refusal
from huigan.operate.runs import announce
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import artefacts, audit, deployments, gpu, holdings, outbox, releases, runs
from storage.db import Database, Session
from storage.recipe import build
from storage.records import Artefact, Deployment, Release, Run, RunState
from storage.release_policy import Canary

ROLLBACK = "rollback"
HISTORY = 10_000


@dataclass(frozen=True)
class PassedOver:
    """A release that was nearer to go back to, and why it does not answer: a code of the section `passed_over`."""

    release: int
    code: str


@dataclass(frozen=True)
class Promoted:
    """It answers from now on, from `before` on its way out."""

    release: Release
    deployment: Deployment
    before: Release | None
    passed_over: tuple[PassedOver, ...] = ()  # by a rollback


@dataclass(frozen=True)
class Rejected:
    release: Release
    run: Run


# --- what a run does at its end, each one transaction


def propose(
    session: Session, run_id: int, attempt: int, artefact: Mapping[str, Any], tag: str, at: datetime
) -> Release | None:
    """Let an admin decide: the release is there, and does not answer. None if this attempt is over, or was to end.

    `artefact` holds the fields of `Artefact` but id, run_id and created_at. Older proposals of the lane are superseded.
    """
    made = _release(session, run_id, attempt, artefact, tag, at)
    if made is None:
        return None
    _supersede(session, run_id, at)
    _end(session, run_id, attempt, RunState.AWAITING_APPROVAL, made, at)
    return made


def put_on_trial(
    session: Session, run_id: int, attempt: int, artefact: Mapping[str, Any], tag: str, at: datetime
) -> Release | None:
    """Let it answer a share, as the run's recipe says, until it has proven better or worse or an admin decides. None
    if this attempt is over, or was to end."""
    made = _release(session, run_id, attempt, artefact, tag, at)
    if made is None:
        return None
    _supersede(session, run_id, at)
    rules = build(Canary, runs.get(session, run_id).recipe.get("canary", {}))
    deployments.deploy(session, made.id, f"run {run_id}", rules.by, at, share=rules.share)
    audit.record(session, None, "canary.begin", at, release=made.id, run=run_id, by=rules.by, share=rules.share)
    _end(session, run_id, attempt, RunState.AWAITING_APPROVAL, made, at)
    return made


def publish(
    session: Session, run_id: int, attempt: int, artefact: Mapping[str, Any], tag: str, at: datetime
) -> Promoted | None:
    """Let it answer at once. None if this attempt is over, or was to end."""
    made = _release(session, run_id, attempt, artefact, tag, at)
    if made is None:
        return None
    live = deployments.live(session)
    _supersede(session, run_id, at)
    deployed = deployments.deploy(session, made.id, f"run {run_id}", "gate passed", at)
    audit.record(session, None, "release.publish", at, release=made.id, run=run_id)
    _end(session, run_id, attempt, RunState.RELEASED, made, at)
    return Promoted(made, deployed, live.release if live else None)


def turn_down(
    session: Session, run_id: int, attempt: int, artefact: Mapping[str, Any], at: datetime
) -> Artefact | None:
    """Keep what the gate refused, for people to look at: no release. None if this attempt is over."""
    if runs.beat(session, run_id, attempt, at) is None:
        return None
    kept = artefacts.add(session, **artefact, run_id=run_id, created_at=at)
    ended = runs.move(
        session, run_id, attempt, RunState.RUNNING, RunState.REJECTED, at, artefact_id=kept.id, worker=None
    )
    assert ended is not None
    announce(session, ended, at)
    return kept


def _release(
    session: Session, run_id: int, attempt: int, artefact: Mapping[str, Any], tag: str, at: datetime
) -> Release | None:
    """None, too, where the run was asked to end or holds what somebody took back since: it ends as cancelled here, for
    what it made may follow one that holds nothing."""
    # The beat locks the row: from here to the commit, nobody else can end this attempt or ask it to end.
    known = runs.beat(session, run_id, attempt, at)
    if known is None:
        return None
    if known.cancel_asked_at is not None or holdings.of_run(session, run_id) is not None:
        ended = runs.move(session, run_id, attempt, RunState.RUNNING, RunState.CANCELLED, at, worker=None)
        assert ended is not None
        announce(session, ended, at)
        return None
    deployments.hold(session)
    kept = artefacts.add(session, **artefact, run_id=run_id, created_at=at)
    return releases.add(session, tag, kept.id, at)


def _end(session: Session, run_id: int, attempt: int, after: RunState, made: Release, at: datetime) -> None:
    detail = {"release": made.id, "tag": made.tag}
    ended = runs.move(
        session, run_id, attempt, RunState.RUNNING, after, at, detail, artefact_id=made.artefact_id, worker=None
    )
    assert ended is not None
    announce(session, ended, at)


def _supersede(session: Session, run_id: int, at: datetime) -> None:
    lane = runs.get(session, run_id).lane
    for older in runs.newest(session, HISTORY, states=frozenset({RunState.AWAITING_APPROVAL}), lane=lane):
        left, after = RunState.AWAITING_APPROVAL, RunState.SUPERSEDED
        if runs.move(session, older.id, older.attempt, left, after, at, detail={"by_run": run_id}) is not None:
            _end_canary_of(session, older, f"run {run_id}", "superseded", at)


def _end_canary_of(session: Session, run: Run, by: str, why: str, at: datetime) -> None:
    tried = deployments.canary(session)
    if tried is not None and tried.artefact.run_id == run.id:
        deployments.deploy(session, tried.release.id, by, why, at, share=0.0)


# --- what an admin does


def promote(
    db: Database,
    client: Ollama,
    number: int,
    *,
    by_user_id: int | None,
    at: datetime,
    alias: str | None = tags.ALIAS,
) -> Promoted | Refusal:
    """Let that release answer. Raises ServingError if Ollama cannot load it: then the live one stays.

    Refused: `unknown_release`, `already_live`, `release_not_open` (its run was rejected or superseded),
    `data_withdrawn` (it holds what somebody took back).
    """
    return swap(db, client, number, "promote", by_user_id, at, alias)


def reject(db: Database, number: int, *, by_user_id: int | None, why: str, at: datetime) -> Rejected | Refusal:
    """Turn a proposal down. Refused: `unknown_release`, `release_not_open` (nothing awaits a decision there)."""
    return db.write(_reject, number, by_user_id, why, at)


def swap(
    db: Database,
    client: Ollama,
    number: int,
    act: str,
    by_user_id: int | None,
    at: datetime,
    alias: str | None,
    passed_over: Sequence[PassedOver] = (),
) -> Promoted | Refusal:
    """`promote` and what else lets a release answer; `act` says which. Raises ServingError."""
    found = db.read(open_release, number)
    if isinstance(found, Refusal):
        db.write(audit.record, by_user_id, f"release.{act}", at, release=number, refused=found.code)
        return found
    try:
        # While a run has the graphics card, it is tried on the CPU: nothing may be loaded beside the training.
        tags.ready(client, *found, options=gpu.CPU_ALONE if db.read(gpu.held, at) else None)
    except ServingError as error:
        db.write(audit.record, by_user_id, f"release.{act}", at, release=number, failed=error.code)
        raise
    result = db.write(_deploy, number, act, by_user_id, at, passed_over)
    if alias is not None and isinstance(result, Promoted):
        tags.point(client, alias, result.release.tag)
    return result


def open_release(session: Session, number: int) -> tuple[Release, Artefact] | Refusal:
    try:
        wanted = releases.get(session, number)
    except LookupError:
        return Refusal("unknown_release", {"release": number})
    live = deployments.live(session)
    if live is not None and live.release.id == number:
        return Refusal("already_live", {"release": number})
    if withdrawals.is_barred(session, number):
        return Refusal("data_withdrawn", {"release": number})
    artefact = artefacts.get(session, wanted.artefact_id)
    if artefact.run_id is not None:
        state = runs.get(session, artefact.run_id).state
        if state not in {RunState.AWAITING_APPROVAL, RunState.RELEASED}:
            return Refusal("release_not_open", {"release": number, "run": artefact.run_id, "state": state})
    return wanted, artefact


def _deploy(
    session: Session, number: int, act: str, by_user_id: int | None, at: datetime, passed_over: Sequence[PassedOver]
) -> Promoted | Refusal:
    """Look again: loading took its time, and another admin, or a canary's proof, may have decided meanwhile."""
    deployments.hold(session)
    found = open_release(session, number)
    if not isinstance(found, Refusal) and found[1].run_id is not None:
        found = _approve(session, number, found, found[1].run_id, by_user_id, at)
    if isinstance(found, Refusal):
        audit.record(session, by_user_id, f"release.{act}", at, release=number, refused=found.code)
        return found
    live = deployments.live(session)
    before = live.release if live else None
    deployed = deployments.deploy(session, number, by_whom(by_user_id), act, at)
    audit.record(session, by_user_id, f"release.{act}", at, release=number, before=before.id if before else None)
    news = {"release": number, "tag": found[0].tag, "by_user": by_user_id, "before": before.id if before else None}
    news |= {"passed_over": [asdict(each) for each in passed_over]}
    outbox.put(session, f"release_{act}", news, at, key=f"deployment:{deployed.id}")
    return Promoted(found[0], deployed, before, tuple(passed_over))


def _approve(
    session: Session, number: int, found: tuple[Release, Artefact], run_id: int, by_user_id: int | None, at: datetime
) -> tuple[Release, Artefact] | Refusal:
    known = runs.get(session, run_id)
    if known.state is RunState.RELEASED:
        return found
    detail = {"by": by_whom(by_user_id)}
    moved = runs.move(session, run_id, known.attempt, RunState.AWAITING_APPROVAL, RunState.RELEASED, at, detail)
    return found if moved else Refusal("release_not_open", {"release": number, "run": run_id, "state": known.state})


def _reject(session: Session, number: int, by_user_id: int | None, why: str, at: datetime) -> Rejected | Refusal:
    result = _turn_away(session, number, by_user_id, why, at)
    told = {"refused": result.code} if isinstance(result, Refusal) else {}
    audit.record(session, by_user_id, "release.reject", at, release=number, why=why, **told)
    return result


def _turn_away(session: Session, number: int, by_user_id: int | None, why: str, at: datetime) -> Rejected | Refusal:
    deployments.hold(session)
    try:
        wanted = releases.get(session, number)
    except LookupError:
        return Refusal("unknown_release", {"release": number})
    run_id = artefacts.get(session, wanted.artefact_id).run_id
    if run_id is None:
        return Refusal("release_not_open", {"release": number, "run": None, "state": None})
    known = runs.get(session, run_id)
    detail = {"why": why, "by": by_whom(by_user_id)}
    moved = runs.move(session, run_id, known.attempt, RunState.AWAITING_APPROVAL, RunState.REJECTED, at, detail=detail)
    if moved is None:
        return Refusal("release_not_open", {"release": number, "run": run_id, "state": known.state})
    _end_canary_of(session, moved, by_whom(by_user_id), "reject", at)
    news = {"release": number, "run": run_id, "why": why, "by_user": by_user_id}
    outbox.put(session, "release_reject", news, at, key=f"rejected:{number}")
    return Rejected(wanted, moved)


def by_whom(user_id: int | None) -> str:
    return "terminal" if user_id is None else f"user {user_id}"
