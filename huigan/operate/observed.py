"""What is known of a canary, and of the release that answers: read from the database for huigan.operate.judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from huigan.operate import judgement, rollbacks
from huigan.operate import releases as operate_releases
from huigan.operate.betting import Thumbed
from huigan.operate.judgement import Reign, Service, Trial
from storage import deployments, releases, runs, trial_figures
from storage.db import Session
from storage.recipe import build
from storage.records import Deployment, Live, Release, Run, Thumb
from storage.release_policy import Canary, Rollback
from storage.trial_figures import FirstPick, FirstThumb

MOST_THUMBS = 20_000  # of one trial
MOST_BEFORE = 1000  # thumbs of the release before: its newest
BEFORE = timedelta(days=30)  # how far back the service of the release before is looked at
WAITS = 300  # answers, the newest, whose waiting is looked at

T = TypeVar("T", FirstThumb, FirstPick)


@dataclass(frozen=True)
class Tried:
    """The canary that there is, beside which release, by whose rules, and what was seen."""

    candidate: Live
    live: Live
    run: Run
    rules: Canary
    bars: Rollback
    trial: Trial


@dataclass(frozen=True)
class Answering:
    """The live release of a run, the one before it, and what was seen of both."""

    live: Live
    before: Release
    bars: Rollback
    reign: Reign


def canary(session: Session, at: datetime) -> Tried | None:
    if not (rows := deployments.of_canary(session)):
        return None
    candidate, live = deployments.canary(session), deployments.live(session)
    run = _run_of(session, candidate)
    if candidate is None or live is None or run is None:
        return None
    rules, bars = policy_of(run)
    since_at = rows[0].since_at
    pair = (candidate.release.id, live.release.id)
    raters: set[int] = set()
    thumbs, picks = [], []
    if candidate.deployment.why == deployments.COMPARISONS:
        found = trial_figures.first_picks(session, pair, since_at, MOST_THUMBS)
        picks = [_sign(each, pair) for each in _of_each(found, rules.max_of_rater, raters)]
    else:
        given = trial_figures.first_thumbs(session, pair, since_at, MOST_THUMBS)
        thumbs = [_thumbed(each, pair[0], rows) for each in _of_each(given, rules.max_of_rater, raters)]
    services = [_service(session, each.release, since_at, at) for each in (candidate, live)]
    return Tried(candidate, live, run, rules, bars, Trial(since_at, thumbs, picks, len(raters), *services))


def answering(session: Session, at: datetime) -> Answering | None:
    """None where there is nothing to go back to, or it is what one went back to: nobody goes there and back. Of what
    is not watched nothing is looked up."""
    live = deployments.live(session)
    run = _run_of(session, live)
    if live is None or run is None or live.deployment.why == operate_releases.ROLLBACK:
        return None
    _, bars = policy_of(run)
    since_at = live.deployment.since_at
    number = before(session)
    if number is None:
        return None
    other = releases.get(session, number)
    if not judgement.is_watched(since_at, bars, at):
        return Answering(live, other, bars, Reign(since_at))
    raters: set[int] = set()
    given = trial_figures.first_thumbs(session, (live.release.id,), since_at, MOST_BEFORE)
    ups = [each.thumb is Thumb.UP for each in _of_each(given, bars.max_of_rater, raters)]
    given_before = trial_figures.first_thumbs(session, (number,), since_at - BEFORE, MOST_BEFORE)
    ups_before = [each.thumb is Thumb.UP for each in _of_each(given_before, bars.max_of_rater, set())]
    services = (
        _service(session, live.release, since_at, at),
        _service(session, other, since_at - BEFORE, since_at),
    )
    return Answering(live, other, bars, Reign(since_at, ups, len(raters), ups_before, *services))


def before(session: Session) -> int | None:
    """The release that answered before the live one."""
    return next(iter(rollbacks.ways_back(deployments.reigns(session, operate_releases.HISTORY))), None)


def policy_of(run: Run) -> tuple[Canary, Rollback]:
    """As its recipe says; by default where an older version queued it."""
    return build(Canary, run.recipe.get("canary", {})), build(Rollback, run.recipe.get("rollback", {}))


def _run_of(session: Session, live: Live | None) -> Run | None:
    return None if live is None or live.artefact.run_id is None else runs.get(session, live.artefact.run_id)


def _of_each(given: Iterable[T], most: int, raters: set[int]) -> Iterator[T]:
    """No more than so many of one person's, the first; `raters` is filled."""
    counts: Counter[int] = Counter()
    for each in given:
        counts[each.user_id] += 1
        if counts[each.user_id] <= most:
            raters.add(each.user_id)
            yield each


def _thumbed(each: FirstThumb, candidate: int, rows: Sequence[Deployment]) -> Thumbed:
    """With the share that held when it was answered."""
    share = next((row.share for row in reversed(rows) if row.since_at <= each.answered_at), rows[0].share)
    return Thumbed(each.release_id == candidate, share, each.thumb is Thumb.UP)


def _sign(each: FirstPick, pair: tuple[int, int]) -> int:
    return 0 if each.chosen_release_id is None else 1 if each.chosen_release_id == pair[0] else -1


def _service(session: Session, release: Release, since: datetime, until: datetime) -> Service:
    ended, failed = trial_figures.endings(session, release.tag, since, until)
    waits = [each for each in trial_figures.waits(session, release.id, since, until, WAITS) if not each.by_the_cpu]
    first_words = [each.first_token_seconds for each in waits if each.first_token_seconds is not None]
    paces = [
        (each.total_seconds - each.first_token_seconds) / (each.answer_tokens - 1)
        for each in waits
        if each.total_seconds is not None and each.first_token_seconds is not None
        if each.answer_tokens is not None and each.answer_tokens > 1
    ]
    return Service(ended, failed, first_words, paces)
