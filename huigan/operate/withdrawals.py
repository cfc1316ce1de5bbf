"""Releases that hold what somebody took back: never a successor of one that does not, and withdrawn once such a one
answers. Until then the live one goes on, for there is nothing else to answer with; the schedule has it made anew."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from huigan.operate import feedback
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import artefacts, audit, deployments, holdings, outbox, releases, runs
from storage.db import Database, Session
from storage.recipe import BadRecipe, Recipe
from storage.records import Holding, Live, Release, Run, RunState

log = logging.getLogger(__name__)

FELL_THROUGH = frozenset({RunState.FAILED, RunState.CANCELLED})


def is_barred(session: Session, number: int) -> bool:
    """A release that holds such data is no worse than one that does too, unless it was withdrawn for it."""
    held = holdings.of_release(session, number)
    if held is None:
        return False
    return held.withdrawn_at is not None or not _holds(session, deployments.live(session))


def rebuild_asked_at(session: Session, lane: str) -> datetime | None:
    """Since when a release is to be made anew without what was taken back; None where none needs to be: neither the one
    that answers nor one that awaits approval holds any, and no run was ended for it that nobody made up for; or one
    that was made since awaits approval already."""
    awaiting = runs.newest(session, 1000, states=frozenset({RunState.AWAITING_APPROVAL}))
    concerned = {each.id for each in awaiting}
    live = deployments.live(session)
    if live is not None and live.artefact.run_id is not None:
        concerned.add(live.artefact.run_id)
    newest = runs.newest(session, 1, lane=lane, dataset_only=False)
    concerned |= {each.id for each in newest if each.state in FELL_THROUGH}
    held = {each: found for each in sorted(concerned) if (found := holdings.of_run(session, each)) is not None}
    asked_at = max((each.asked_at for each in held.values()), default=None)
    made_anew = (each for each in awaiting if each.id not in held and each.lane == lane)
    is_made = asked_at is not None and any(each.queued_at > asked_at for each in made_anew)
    return None if is_made else asked_at


def rebuilt_in_vain(session: Session, recipe: Recipe, asked_at: datetime) -> int | None:
    """The run that made it anew since `asked_at`, as another would now, and was turned down. None if there is none, or
    if since it was queued somebody took back what that one learnt, too, or rated, or chose another recipe, or another
    release answers, which the next would be compared with."""
    turned_down = runs.newest(session, 1, lane=recipe.lane, dataset_only=False, states=frozenset({RunState.REJECTED}))
    if not turned_down or turned_down[0].queued_at <= asked_at:
        return None
    run, live = turned_down[0], deployments.live(session)
    if live is None or live.deployment.since_at > run.queued_at or not _is_by(run, recipe):
        return None
    is_same = holdings.of_run(session, run.id) is None and not feedback.ratings_since(session, run.queued_at)
    return run.id if is_same else None


def _is_by(run: Run, recipe: Recipe) -> bool:
    """What becomes of a release is not what it is."""
    try:
        return replace(Recipe.from_dict(run.recipe), approval=recipe.approval) == recipe
    except BadRecipe:  # an older version's
        return False


def withdraw(db: Database, client: Ollama, at: datetime) -> list[Release]:
    """Take every such release out of Ollama that does not answer, once the one that does holds none. What Ollama cannot
    do now is tried again at the next call; what it did already is only written down."""
    done = []
    for held, release in db.read(_to_withdraw):
        db.write(_end_trial, release, at)
        try:
            library.delete(client, release.tag)
        except ServingError as error:
            log.warning("release %d waits to be withdrawn: %s", release.id, error)
            continue
        if db.write(_record, held, release, at):
            done.append(release)
    return done


def _to_withdraw(session: Session) -> list[tuple[Holding, Release]]:
    if _holds(session, live := deployments.live(session)):
        return []
    answers = {live.release.id} if live else set()
    found = []
    for held in holdings.of_releases(session):
        made = artefacts.of_run(session, held.run_id)
        release = releases.of_artefact(session, made.id) if made else None
        if release is not None and release.id not in answers:
            found.append((held, release))
    return found


def _end_trial(session: Session, release: Release, at: datetime) -> None:
    """Where it answers a share of conversations, none of them is to meet a tag that is gone."""
    deployments.hold(session)
    tried = deployments.canary(session)
    if tried is not None and tried.release.id == release.id:
        deployments.deploy(session, release.id, "schedule", "data_withdrawn", at, share=0.0)


def _record(session: Session, held: Holding, release: Release, at: datetime) -> bool:
    """False where another process was quicker, or it answers since."""
    known, live = holdings.of_run(session, held.run_id), deployments.live(session)
    if known is None or known.withdrawn_at is not None or (live is not None and live.release.id == release.id):
        return False
    holdings.mark_withdrawn(session, held.run_id, at)
    run = runs.get(session, held.run_id)
    if run.state is RunState.AWAITING_APPROVAL:
        moved = runs.move(session, run.id, run.attempt, run.state, RunState.REJECTED, at, {"why": "data_withdrawn"})
        assert moved is not None
    audit.record(session, None, "release.withdraw", at, release=release.id, tag=release.tag)
    told = {"release": release.id, "tag": release.tag}
    outbox.put(session, "release_withdrawn", told, at, key=f"release_withdrawn:{release.id}")
    return True


def _holds(session: Session, live: Live | None) -> bool:
    return live is not None and holdings.of_run(session, live.artefact.run_id) is not None
