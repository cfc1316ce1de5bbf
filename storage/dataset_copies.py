"""Where the files of data sets lie. Each machine has a disk of its own, which only its own processes reach."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy import update as sql_update

from storage import dataset_people
from storage.db import Session
from storage.records import DatasetCopy
from storage.rows import add_once, every
from storage.runs import ENDED
from storage.tables import dataset, dataset_copy, dataset_example, dataset_person, run

UNNAMED = ""  # the disk of a copy that was made before disks had names


def add(session: Session, dataset_id: int, disk: str, path: str, at: datetime) -> None:
    """Known once a place."""
    add_once(session, DatasetCopy, dataset_copy, dataset_id=dataset_id, disk=disk, path=path, made_at=at)


def of(session: Session, dataset_id: int) -> list[DatasetCopy]:
    query = select(dataset_copy).where(dataset_copy.c.dataset_id == dataset_id).order_by(dataset_copy.c.id)
    return every(session, DatasetCopy, query)


def to_clear(session: Session, disks: Sequence[str] | None = None) -> list[DatasetCopy]:
    """Those that hold what was taken back after they were last cleared: on these disks, or on all (None)."""
    newest = select(func.max(dataset_person.c.withdrawn_at)).where(
        dataset_person.c.dataset_id == dataset_copy.c.dataset_id
    )
    query = select(dataset_copy).where(
        dataset_copy.c.dataset_id.in_(dataset_people.with_withdrawn()),
        or_(dataset_copy.c.cleared_at.is_(None), dataset_copy.c.cleared_at < newest.scalar_subquery()),
    )
    if disks is not None:
        query = query.where(dataset_copy.c.disk.in_(disks))
    return every(session, DatasetCopy, query.order_by(dataset_copy.c.id))


def remove(session: Session, copy_id: int) -> None:
    """Its folder is gone."""
    session.execute(delete(dataset_copy).where(dataset_copy.c.id == copy_id))


def nowhere(session: Session) -> list[int]:
    """The runs that have come to an end, whose data sets lie on no disk any more and still say what was in them."""
    other = dataset.alias("other")
    lies = exists().where(dataset_copy.c.dataset_id == other.c.id, other.c.run_id == run.c.id)
    says = or_(*(exists().where(each.c.dataset_id == dataset.c.id) for each in (dataset_example, dataset_person)))
    made = run.join(dataset, dataset.c.run_id == run.c.id)
    query = select(run.c.id).select_from(made).where(run.c.state.in_(sorted(ENDED)), says, ~lies)
    return list(session.scalars(query.distinct().order_by(run.c.id)))


def mark_cleared(session: Session, copy_id: int, up_to: datetime) -> None:
    """Of all that was taken back by then."""
    session.execute(sql_update(dataset_copy).where(dataset_copy.c.id == copy_id).values(cleared_at=up_to))
