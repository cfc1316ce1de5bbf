"""Canaries and live releases as what was seen of them moves them: promoted, withdrawn, ended, rolled back; and what an
admin does to a canary.

Each is one INSERT, in one transaction with the run's move, the audit row and the notice; it looks again under a lock
whether what was judged is still there. So it may be killed anywhere, and several may do it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from huigan.operate import judgement, observed, rollbacks, tags
from huigan.operate.judgement import Act, Judgement, Reason
from huigan.operate.observed import Tried
from huigan.operate.refusals import Refusal
from huigan.operate.releases import HISTORY, ROLLBACK, PassedOver, by_whom, open_release
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError, UnknownTag
from storage import audit, deployments, gpu, outbox, releases, runs, settings
from storage.db import Database, Session
from storage.records import Artefact, Deployment, Live, Release, RunState

log = logging.getLogger(__name__)

BY_CANARY, BY_WATCH = "canary", "watch"  # who decided, where nobody did
MIN_SHARE, MAX_SHARE = 0.01, 0.9
CROWDED = "warm_crowded"  # the deployment whose predecessor does not fit into memory beside it


@dataclass(frozen=True)
class Standing:
    """The canary that there is, what was seen, and what follows from it."""

    tried: Tried
    judgement: Judgement


def standing(session: Session, at: datetime) -> Standing | None:
    tried = observed.canary(session, at)
    if tried is None:
        return None
    return Standing(tried, judgement.of_canary(tried.trial, tried.rules, tried.bars, at))


# --- what the figures do


def settle(db: Database, client: Ollama, at: datetime, *, alias: str | None = tags.ALIAS) -> Judgement | None:
    """Promote or withdraw the canary that has proven itself, end one whose time is over. None if there was none, or
    somebody decided meanwhile. Raises ServingError where what is to be promoted cannot be loaded."""
    found = db.read(standing, at)
    if found is None:
        return None
    candidate = found.tried.candidate
    if found.judgement.act is Act.PROMOTE:
        _loaded(db, client, candidate.release, candidate.artefact, at)
    if found.judgement.act is not Act.WAIT:
        if not db.write(_settle, found, at):
            return None
        log.info("canary of release %d: %s", candidate.release.id, found.judgement.act)
        if found.judgement.act is Act.PROMOTE and alias is not None:
            tags.point(client, alias, candidate.release.tag)
    return found.judgement


def _settle(session: Session, found: Standing, at: datetime) -> bool:
    deployments.hold(session)
    now, candidate, run = deployments.canary(session), found.tried.candidate, found.tried.run
    if now is None or now.deployment.id != candidate.deployment.id:
        return False
    act, reasons = found.judgement.act, _kept(found.judgement.reasons)
    if act is Act.PROMOTE and isinstance(open_release(session, candidate.release.id), Refusal):
        return False  # it holds what somebody took back meanwhile
    ends = {Act.PROMOTE: (RunState.RELEASED, 1.0), Act.WITHDRAW: (RunState.REJECTED, 0.0), Act.END: (None, 0.0)}
    after, share = ends[act]
    if after is not None:
        detail = {"by": BY_CANARY, "reasons": reasons}
        if runs.move(session, run.id, run.attempt, RunState.AWAITING_APPROVAL, after, at, detail) is None:
            return False
    made = deployments.deploy(session, candidate.release.id, BY_CANARY, str(act), at, share=share)
    number = candidate.release.id
    audit.record(session, None, AUDITED[act], at, release=number, run=run.id, reasons=reasons)
    news = {"release": number, "live": found.tried.live.release.id, "run": run.id, "reasons": reasons}
    outbox.put(session, NEWS[act], news, at, key=f"deployment:{made.id}")
    return True


AUDITED = {Act.PROMOTE: "canary.promote", Act.WITHDRAW: "canary.withdraw", Act.END: "canary.end"}
NEWS = {Act.PROMOTE: "canary_promoted", Act.WITHDRAW: "canary_withdrawn", Act.END: "canary_over"}


def watch(db: Database, client: Ollama, at: datetime, *, alias: str | None = tags.ALIAS) -> Judgement | None:
    """Go back to the release before, where the live one is worse; or to the nearest before it that can answer. None and
    raises as `settle`."""
    found = db.read(observed.answering, at)
    if found is None:
        return None
    judged = judgement.of_live(found.reign, found.bars, at)
    if judged.act is Act.ROLL_BACK:
        way = _way_back(db, client, found.live, at)
        if way is None or not db.write(_go_back, found.live, way, judged, at):
            return None
        log.warning("release %d gives way to release %d", found.live.release.id, way.to.id)
        if alias is not None:
            tags.point(client, alias, way.to.tag)
    return judged


@dataclass(frozen=True)
class Way:
    to: Release
    passed_over: tuple[PassedOver, ...]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.passed_over]


def _way_back(db: Database, client: Ollama, live: Live, at: datetime) -> Way | None:
    """Loaded. Where there is none, admins hear of it once. Raises ServingError."""
    passed_over: list[PassedOver] = []
    for number in rollbacks.ways_back(db.read(deployments.reigns, HISTORY)):
        before = db.read(open_release, number)
        if isinstance(before, Refusal):
            passed_over.append(PassedOver(number, before.code))
            continue
        try:
            _loaded(db, client, *before, at, untold=UnknownTag)
        except UnknownTag:
            passed_over.append(PassedOver(number, rollbacks.FILES_GONE))
        else:
            return Way(before[0], tuple(passed_over))
    news = {"release": live.release.id, "passed_over": [asdict(each) for each in passed_over]}
    db.write(outbox.put, "no_way_back", news, at, key=f"no_way_back:{live.deployment.id}")
    return None


def _go_back(session: Session, was: Live, way: Way, judged: Judgement, at: datetime) -> bool:
    deployments.hold(session)
    live, reasons = deployments.live(session), _kept(judged.reasons)
    if live is None or live.deployment.id != was.deployment.id:
        return False
    if isinstance(open_release(session, way.to.id), Refusal):
        return False  # it holds what somebody took back meanwhile
    made = deployments.deploy(session, way.to.id, BY_WATCH, ROLLBACK, at)
    numbers = {"release": way.to.id, "before": live.release.id}
    audit.record(session, None, "release.rollback", at, **numbers, reasons=reasons)
    news = {**numbers, "reasons": reasons, "passed_over": way.told}
    outbox.put(session, "rolled_back_by_itself", news, at, key=f"deployment:{made.id}")
    return True


def _loaded(
    db: Database,
    client: Ollama,
    release: Release,
    artefact: Artefact,
    at: datetime,
    untold: type[ServingError] | tuple[()] = (),
) -> None:
    """Raises ServingError, of which admins hear once; not of those that are `untold`."""
    try:
        tags.ready(client, release, artefact, options=gpu.CPU_ALONE if db.read(gpu.held, at) else None)
    except ServingError as error:
        if isinstance(error, untold):
            raise
        newest = db.read(deployments.history, 1)[0].id
        news = {"release": release.id, "error": {"code": error.code, **error.params}}
        db.write(outbox.put, "not_loaded", news, at, key=f"not_loaded:{newest}:{release.id}:{error.code}")
        raise


def _kept(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    return [asdict(each) for each in reasons]


def keep_warm(db: Database, client: Ollama, at: datetime) -> str | None:
    """The tag of the release before, kept loaded for as long as the recipe says, so that going back waits for nothing;
    None where that is over, a run has the graphics card, or memory holds but one. Raises ServingError."""
    due = db.read(_due_warm, at)
    if due is None:
        return None
    deployment, live, before, seconds = due
    is_live_there = live.tag in library.loaded(client)
    try:
        library.warm(client, before.tag, keep_alive=seconds)
    except UnknownTag:
        return None  # somebody has removed it, and it would take a rollback to make it again
    if is_live_there and live.tag not in library.loaded(client):
        db.write(settings.put, CROWDED, deployment.id, None, at)
        library.unload(client, before.tag)
        library.warm(client, live.tag)
        log.warning("release %d and release %d do not fit into memory together", live.id, before.id)
        return None
    return before.tag


def _due_warm(session: Session, at: datetime) -> tuple[Deployment, Release, Release, float] | None:
    live = deployments.live(session)
    if live is None or live.artefact.run_id is None:
        return None
    _, bars = observed.policy_of(runs.get(session, live.artefact.run_id))
    until = live.deployment.since_at + timedelta(hours=bars.warm_hours)
    if at >= until or gpu.held(session, at) is not None:
        return None
    number, crowded = rollbacks.way_back(session), settings.get(session, CROWDED)
    if number is None or (crowded is not None and crowded.value == live.deployment.id):
        return None
    return live.deployment, live.release, releases.get(session, number), (until - at).total_seconds()


def keep_alias(db: Database, client: Ollama, _at: datetime, *, alias: str = tags.ALIAS) -> bool:
    """A swap moves the alias after its transaction, and may be killed in between. Raises ServingError."""
    live = db.read(deployments.live)
    return live is not None and tags.catch_up(client, alias, live.release.tag)


# --- what an admin does


def stop(session: Session, by_user_id: int | None, at: datetime, *, number: int | None = None) -> Live | Refusal:
    """Nothing is answered by the canary any more; its run awaits approval. Refused: `no_canary`; so is, where a release
    is named by its number, another canary than that one."""
    deployments.hold(session)
    tried = deployments.canary(session)
    if tried is None or number not in {None, tried.release.id}:
        audit.record(session, by_user_id, "canary.stop", at, refused="no_canary")
        return Refusal("no_canary")
    number = tried.release.id
    made = deployments.deploy(session, number, by_whom(by_user_id), "stop", at, share=0.0)
    audit.record(session, by_user_id, "canary.stop", at, release=number)
    outbox.put(session, "canary_stopped", {"release": number, "by_user": by_user_id}, at, key=f"deployment:{made.id}")
    return tried


def set_share(session: Session, share: float, by_user_id: int | None, at: datetime) -> Deployment | Refusal:
    """Conversations that it has stay its own where the share grows. Said twice, as by a command that is taken up again
    after a kill, it is done once. Refused: `no_canary`, `canary_share`."""
    deployments.hold(session)
    tried = deployments.canary(session)
    lacking = "no_canary" if tried is None else None if MIN_SHARE <= share <= MAX_SHARE else "canary_share"
    told = {"refused": lacking} if lacking else {}
    audit.record(session, by_user_id, "canary.share", at, share=share, **told)
    if tried is None or lacking is not None:
        return Refusal(lacking or "no_canary")
    if share == tried.deployment.share:
        return tried.deployment
    why = tried.deployment.why
    return deployments.deploy(session, tried.release.id, by_whom(by_user_id), why, at, share=share)


def begin(db: Database, client: Ollama, number: int, *, by_user_id: int | None, at: datetime) -> Deployment | Refusal:
    """Try a proposal, by its run's recipe; one that is tried already goes on as it is. Refused as a promotion is, and
    `release_not_open` where it awaits nothing. Raises ServingError if Ollama cannot load it."""
    found = db.read(_proposed, number)
    if isinstance(found, Refusal):
        db.write(audit.record, by_user_id, "canary.begin", at, release=number, refused=found.code)
        return found
    tags.ready(client, *found, options=gpu.CPU_ALONE if db.read(gpu.held, at) else None)
    return db.write(_begin, number, by_user_id, at)


def _begin(session: Session, number: int, by_user_id: int | None, at: datetime) -> Deployment | Refusal:
    deployments.hold(session)
    found = _proposed(session, number)
    told = {"refused": found.code} if isinstance(found, Refusal) else {}
    audit.record(session, by_user_id, "canary.begin", at, release=number, **told)
    if isinstance(found, Refusal):
        return found
    tried = deployments.canary(session)
    if tried is not None and tried.release.id == number:
        return tried.deployment
    run_id = found[1].run_id
    assert run_id is not None
    rules, _ = observed.policy_of(runs.get(session, run_id))
    made = deployments.deploy(session, number, by_whom(by_user_id), rules.by, at, share=rules.share)
    news = {"release": number, "run": run_id, "share": rules.share, "by_user": by_user_id}
    outbox.put(session, "canary_begun", news, at, key=f"deployment:{made.id}")
    return made


def _proposed(session: Session, number: int) -> tuple[Release, Artefact] | Refusal:
    """Refused as a promotion is; what answered before is no proposal."""
    found = open_release(session, number)
    if isinstance(found, Refusal):
        return found
    run_id = found[1].run_id
    state = None if run_id is None else runs.get(session, run_id).state
    if state is not RunState.AWAITING_APPROVAL:
        return Refusal("release_not_open", {"release": number, "run": run_id, "state": state})
    return found
