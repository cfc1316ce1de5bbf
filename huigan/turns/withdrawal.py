"""What somebody takes back, by /forget or by no longer agreeing: everything that was made of it is known and marked.

Rows of data sets, the runs that were trained on them, and whatever went on from those. Whoever has the disk clears the
files, and the next night's run is made without. This module touches no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from storage import artefacts, audit, dataset_people, datasets, holdings, outbox, runs, users
from storage.db import Session
from storage.records import Holding, RunState, User


def decline(session: Session, user_id: int, at: datetime) -> User:
    """Nothing of theirs is learnt from any more, and what was learnt is to be made anew without it."""
    users.lock(session, user_id)
    take_back(session, [user_id], at)
    return users.decline(session, user_id, at)


def take_back(session: Session, user_ids: Iterable[int], at: datetime) -> list[Holding]:
    """The runs that hold something of theirs. In one transaction with what makes it so; repeated, it finds nothing."""
    found = {dataset_id for user_id in user_ids for dataset_id in dataset_people.withdraw(session, user_id, at)}
    if not found:
        return []
    trained = [each for each in datasets.run_ids(session, found) if not runs.get(session, each).dataset_only]
    marked = holdings.mark(session, trained, at)
    for each in marked:
        artefacts.drop_samples(session, each.run_id)
        if runs.get(session, each.run_id).state in {RunState.QUEUED, RunState.RUNNING}:
            _end(session, each.run_id, at)
    numbers = [each.run_id for each in marked]
    audit.record(session, None, "data.withdraw", at, datasets=sorted(found), runs=numbers)
    if numbers:
        told = {"runs": ", ".join(map(str, numbers))}
        outbox.put(session, "data_withdrawn", told, at, key=f"withdrawn:{at:%Y-%m-%d}")  # coalesced to one a day
    return marked


def _end(session: Session, run_id: int, at: datetime) -> None:
    """One that runs is told of when it has stopped; one that waits ends here, and whoever asked for it hears of it."""
    ended = runs.ask_cancel(session, run_id, at)
    if ended is not None and ended.state is RunState.CANCELLED:
        told = {"run": ended.id, "lane": ended.lane, "why": ended.why, "error": ended.error}
        outbox.put(session, "run_cancelled", told, at, user_id=ended.by_user_id, key=f"run:{ended.id}:{ended.state}")
