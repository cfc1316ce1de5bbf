"""The runs whose weights hold what somebody took back, and with them their releases. Known for as long as the run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy import update as sql_update

from storage import runs
from storage.db import Session
from storage.records import Holding, Run
from storage.rows import batches, every, first, put_row
from storage.tables import artefact, holding, release, run

OF_RUN = select(holding).where(holding.c.run_id == bindparam("id"))
_made = holding.join(artefact, artefact.c.run_id == holding.c.run_id)
_made = _made.join(release, release.c.artefact_id == artefact.c.id)
OF_RELEASE = select(holding).select_from(_made).where(release.c.id == bindparam("id")).limit(1)
WITHDRAWN_OF = (
    select(release.c.id)
    .select_from(_made)
    .where(holding.c.withdrawn_at.is_not(None), release.c.id.in_(bindparam("ids", expanding=True)))
)


def mark(session: Session, run_ids: Iterable[int], at: datetime) -> list[Holding]:
    """These, and whatever went on from them; that is looked for until all of them are held, so whoever goes on from one
    is among them or finds its mark."""
    held: set[int] = set()
    while (found := runs.and_on(session, run_ids)) != held:
        # The weakest lock that `of_origin` waits for: others write to these runs meanwhile.
        for ids in batches(found):
            chosen = select(run.c.id).where(run.c.id.in_(ids)).order_by(run.c.id)
            session.execute(chosen.with_for_update(read=True, key_share=True))
        held = found
    return [_mark(session, run_id, at) for run_id in sorted(found)]


def _mark(session: Session, run_id: int, at: datetime) -> Holding:
    known = of_run(session, run_id)
    values = {"run_id": run_id, "since_at": known.since_at if known else at, "asked_at": at}
    return put_row(session, Holding, holding, "run_id", **values)


def of_run(session: Session, run_id: int | None) -> Holding | None:
    return first(session, Holding, OF_RUN, id=run_id)


def of_origin(session: Session, run_id: int) -> Holding | None:
    """As `of_run`, of a run that another is about to go on from: until this transaction ends, nobody marks it."""
    session.execute(select(run.c.id).where(run.c.id == run_id).with_for_update())
    return of_run(session, run_id)


def of_release(session: Session, number: int) -> Holding | None:
    return first(session, Holding, OF_RELEASE, id=number)


def newest(session: Session, limit: int = 1000) -> list[Holding]:
    return every(session, Holding, select(holding).order_by(holding.c.asked_at.desc(), holding.c.id).limit(limit))


def of_releases(session: Session) -> list[Holding]:
    """Those whose run made a release that is not withdrawn."""
    made = artefact.join(release, release.c.artefact_id == artefact.c.id)
    is_released = select(artefact.c.run_id).select_from(made).where(artefact.c.run_id == holding.c.run_id).exists()
    query = select(holding).where(holding.c.withdrawn_at.is_(None), is_released)
    return every(session, Holding, query.order_by(holding.c.asked_at.desc(), holding.c.id))


def withdrawn_of(session: Session, numbers: Iterable[int]) -> set[int]:
    """Which of these releases were withdrawn for it."""
    return set(session.scalars(WITHDRAWN_OF, {"ids": sorted(set(numbers))}))


def withdrawn_runs(session: Session, among: Iterable[int]) -> list[Run]:
    """Whose releases were withdrawn for it."""
    query = select(run).join(holding, holding.c.run_id == run.c.id).where(holding.c.withdrawn_at.is_not(None))
    found = (every(session, Run, query.where(run.c.id.in_(ids)).order_by(run.c.id)) for ids in batches(among))
    return [each for some in found for each in some]


def mark_withdrawn(session: Session, run_id: int, at: datetime) -> None:
    session.execute(sql_update(holding).where(holding.c.run_id == run_id).values(withdrawn_at=at))
