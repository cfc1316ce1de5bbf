"""Releases: an artefact under an immutable tag that was seen to answer. Inserted only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, select

from storage.db import Session
from storage.records import Release
from storage.rows import add_once, batches, every, first
from storage.tables import artefact, release

OF_ID = select(release).where(release.c.id == bindparam("id"))
OF_TAG = select(release).where(release.c.tag == bindparam("tag"))
OF_ARTEFACT = select(release).where(release.c.artefact_id == bindparam("id"))


def add(session: Session, tag: str, artefact_id: int, at: datetime) -> Release:
    """The release of that tag: a second call with the same tag returns the first one's."""
    added = add_once(session, Release, release, tag=tag, artefact_id=artefact_id, created_at=at)
    known = added or by_tag(session, tag)
    assert known is not None
    return known


def get(session: Session, number: int) -> Release:
    """Raises LookupError."""
    found = first(session, Release, OF_ID, id=number)
    if found is None:
        raise LookupError(f"release {number} is unknown")
    return found


def by_tag(session: Session, tag: str) -> Release | None:
    return first(session, Release, OF_TAG, tag=tag)


def systems(session: Session, numbers: Iterable[int]) -> dict[int, str]:
    """The system texts that they are served with."""
    made = release.join(artefact, artefact.c.id == release.c.artefact_id)
    queries = (
        select(release.c.id, artefact.c.system).select_from(made).where(release.c.id.in_(ids))
        for ids in batches(numbers)
    )
    return {number: system for query in queries for number, system in session.execute(query)}


def of_artefact(session: Session, artefact_id: int) -> Release | None:
    return first(session, Release, OF_ARTEFACT, id=artefact_id)


def newest(session: Session, limit: int = 50) -> list[Release]:
    """Newest first."""
    return every(session, Release, select(release).order_by(release.c.id.desc()).limit(limit))


def runs_that_made_one(session: Session) -> frozenset[int]:
    """Ids of runs."""
    made = select(artefact.c.run_id).join(release, release.c.artefact_id == artefact.c.id).distinct()
    return frozenset(session.scalars(made.where(artefact.c.run_id.is_not(None))))
