"""Releases that were turned away: rejected, withdrawn, gone back over. The same is not proposed again of the same data.

A run would make the same release where its data set has the same content, its recipe says the same about what is made
of it, and it starts from the same weights: equal recipes on equal data give equal runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huigan.operate.releases import HISTORY, ROLLBACK
from storage import artefacts, datasets, deployments, releases, runs
from storage.db import Session
from storage.records import Deployment, Run, RunState

# Of a recipe: what names a run, or says what becomes of its file, not what the file is.
SAYS_NOTHING_OF_THE_FILE = frozenset({"name", "lane", "approval", "canary", "rollback", "serving", "gate", "judge"})

Origin = tuple[str, dict[str, Any], str | int | None]  # data, recipe, what it starts from


def same_as(session: Session, run_id: int) -> int | None:
    """The release, turned away, that this run would make once more; None too before its data set is there."""
    ours = _origin(session, runs.get(session, run_id))
    if ours is None:
        return None
    alike = [each for each in datasets.runs_on(session, ours[0]) if each != run_id]
    made = {number: each for each in alike if (number := _released(session, each)) is not None}
    known = made.keys() & all_of_them(session) if made else set()
    return max((each for each in known if _origin(session, runs.get(session, made[each])) == ours), default=None)


def _released(session: Session, run_id: int) -> int | None:
    made = artefacts.of_run(session, run_id)
    release = releases.of_artefact(session, made.id) if made is not None else None
    return None if release is None else release.id


def all_of_them(session: Session) -> set[int]:
    rejected = runs.newest(session, HISTORY, states=frozenset({RunState.REJECTED}))
    proposed = (releases.of_artefact(session, each.artefact_id) for each in rejected if each.artefact_id is not None)
    return gone_back_over(deployments.history(session, HISTORY)) | {each.id for each in proposed if each is not None}


def gone_back_over(newest_first: Sequence[Deployment]) -> set[int]:
    """Releases that a rollback took from live, and that nobody made live again since."""
    found: set[int] = set()
    live: int | None = None
    for each in reversed([each for each in newest_first if each.share >= 1.0]):
        if each.why == ROLLBACK and live is not None:
            found.add(live)
        live = each.release_id
        found.discard(live)
    return found


def _origin(session: Session, run: Run) -> Origin | None:
    data = datasets.of_run(session, run.id)
    if data is None or run.started_at is None:
        return None
    recipe = {name: value for name, value in run.recipe.items() if name not in SAYS_NOTHING_OF_THE_FILE}
    number = deployments.live_at(session, run.started_at)
    if number is None or recipe.get("start") == "continue":
        return data.sha256, recipe, number
    return data.sha256, recipe, artefacts.get(session, releases.get(session, number).artefact_id).weights
