"""The runs whose weights hold what somebody took back, and with them their releases. Known for as long as the run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from storage.records import Holding
from storage.rows import every, first, put_row
from storage.tables import artefact, holding, release, run


def mark(session: Session, run_ids: Iterable[int], at: datetime) -> list[Holding]:
    """These, and whatever went on from them."""
    found: set[int] = set()
    more = set(run_ids)
    while more:
        found |= more
        more = set(session.scalars(select(run.c.id).where(run.c.continues_run_id.in_(sorted(more))))) - found
    return [_mark(session, run_id, at) for run_id in sorted(found)]


def _mark(session: Session, run_id: int, at: datetime) -> Holding:
    known = of_run(session, run_id)
    values = {"run_id": run_id, "since_at": known.since_at if known else at, "asked_at": at}
    return put_row(session, Holding, holding, "run_id", **values)


def of_run(session: Session, run_id: int | None) -> Holding | None:
    return first(session, Holding, select(holding).where(holding.c.run_id == run_id))


def of_release(session: Session, number: int) -> Holding | None:
    query = (
        select(holding)
        .join(artefact, artefact.c.run_id == holding.c.run_id)
        .join(release, release.c.artefact_id == artefact.c.id)
    )
    return first(session, Holding, query.where(release.c.id == number).limit(1))


def newest(session: Session, limit: int = 1000) -> list[Holding]:
    return every(session, Holding, select(holding).order_by(holding.c.asked_at.desc(), holding.c.id).limit(limit))


def mark_withdrawn(session: Session, run_id: int, at: datetime) -> None:
    session.execute(sql_update(holding).where(holding.c.run_id == run_id).values(withdrawn_at=at))
