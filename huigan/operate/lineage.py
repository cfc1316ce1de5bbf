"""What leads from a run's data sets to the people in them, and how it goes: once nothing is left that was made of them.

As long as a folder of the run lies on any disk, its tag in Ollama, or anything that went on from it, whoever takes
something back must be led to it. Afterwards these rows say only who once taught what nobody can ask any more; and they
are as many as there is feedback, with each night anew. The run, its figures and the data set's digest stay.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from huigan.operate import tags
from storage import artefacts, audit, dataset_copies, dataset_people, datasets, releases, runs
from storage.db import Database, Session

log = logging.getLogger(__name__)


def let_go(db: Database, there: Collection[str], at: datetime) -> list[int]:
    """Of which runs. `there`: tags that are in Ollama, or that must be. Each run in a transaction of its own: what a
    kill leaves is gone on with at the next call."""
    found = db.read(that_left_nothing, there)
    for run_id in found:
        db.write(_let_go, run_id, at)
    if found:
        log.info("nothing is left of %d runs: who taught them is not kept any longer", len(found))
    return found


def that_left_nothing(session: Session, there: Collection[str]) -> list[int]:
    nowhere = dataset_copies.nowhere(session)
    served = {found for tag in there if (found := _run_of(session, tag)) is not None} if nowhere else set()
    return [each for each in nowhere if not any(_is_left(session, one, served) for one in runs.and_on(session, [each]))]


def _is_left(session: Session, run_id: int, served: Collection[int]) -> bool:
    """Whether anything is there of what it made, or will be."""
    if run_id in served or runs.get(session, run_id).state not in runs.ENDED:
        return True
    return any(dataset_copies.of(session, each.id) for each in datasets.all_of_run(session, run_id))


def _run_of(session: Session, tag: str) -> int | None:
    """Also of a tag that became no release, for the run was killed just then."""
    release = releases.by_tag(session, tag)
    return tags.run_of(tag) if release is None else artefacts.get(session, release.artefact_id).run_id


def _let_go(session: Session, run_id: int, at: datetime) -> None:
    """With the samples of its scorecards: nobody would be led to them."""
    artefacts.drop_samples(session, run_id)
    for each in datasets.all_of_run(session, run_id):
        dataset_people.let_go(session, each.id)
        datasets.let_go(session, each.id)
    audit.record(session, None, "data.let_go", at, run=run_id)
