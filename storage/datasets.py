"""Data sets that runs were trained on, and which ratings and comparisons are in them. Inserted only; what is in them
goes with what people take back, and once nothing is left that was made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Table, delete, insert, select

from storage.db import Session
from storage.records import Dataset, Lineage
from storage.rows import add as add_row
from storage.rows import batches, chunks, every, first
from storage.tables import comparison, dataset, dataset_example, rating


def add(
    session: Session,
    run_id: int | None,
    method: str,
    watermarks: tuple[int, int],
    counts: Mapping[str, Any],
    filters: Mapping[str, Any],
    sha256: str,
    path: str,
    lineage: Iterable[Lineage],
    at: datetime,
) -> Dataset:
    """`watermarks` are the newest rating and comparison that were looked at."""
    known = first(session, Dataset, select(dataset).where(dataset.c.run_id == run_id, dataset.c.sha256 == sha256))
    if known is not None:
        return known
    added = add_row(
        session,
        Dataset,
        dataset,
        run_id=run_id,
        method=method,
        rating_watermark=watermarks[0],
        comparison_watermark=watermarks[1],
        counts=dict(counts),
        filters=dict(filters),
        sha256=sha256,
        path=path,
        created_at=at,
    )
    rows = [
        {
            "dataset_id": added.id,
            "example": line.example,
            "split": line.split,
            "rating_id": line.rating_id,
            "comparison_id": line.comparison_id,
        }
        for line in lineage
    ]
    if rows:
        session.execute(insert(dataset_example), rows)
    return added


def hold_judgements(session: Session, rating_ids: Iterable[int], comparison_ids: Iterable[int]) -> bool:
    """Whether they are all there; where so, none of them goes until this transaction ends."""
    return _hold(session, rating, rating_ids) and _hold(session, comparison, comparison_ids)


def _hold(session: Session, table: Table, wanted: Iterable[int]) -> bool:
    for ids in batches(wanted):
        chosen = select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id)
        if len(session.execute(chosen.with_for_update(read=True, key_share=True)).all()) < len(ids):
            return False
    return True


def of_run(session: Session, run_id: int) -> Dataset | None:
    return first(
        session, Dataset, select(dataset).where(dataset.c.run_id == run_id).order_by(dataset.c.id.desc()).limit(1)
    )


def all_of_run(session: Session, run_id: int) -> list[Dataset]:
    """Oldest first: an attempt that found other feedback than the one before made another."""
    return every(session, Dataset, select(dataset).where(dataset.c.run_id == run_id).order_by(dataset.c.id))


def run_ids(session: Session, dataset_ids: Iterable[int]) -> list[int]:
    """The runs that were trained on them."""
    found: set[int] = set()
    for ids in batches(dataset_ids):
        query = select(dataset.c.run_id).where(dataset.c.id.in_(ids), dataset.c.run_id.is_not(None))
        found.update(session.scalars(query))
    return sorted(found)


def runs_on(session: Session, sha256: str) -> list[int]:
    """The runs that had a data set of just that content."""
    query = select(dataset.c.run_id).where(dataset.c.sha256 == sha256, dataset.c.run_id.is_not(None))
    return sorted(set(session.scalars(query)))


def get(session: Session, dataset_id: int) -> Dataset:
    """Raises LookupError."""
    found = first(session, Dataset, select(dataset).where(dataset.c.id == dataset_id))
    if found is None:
        raise LookupError(f"data set {dataset_id} is unknown")
    return found


def forget(session: Session, dataset_id: int, examples: Iterable[str]) -> None:
    """They are in none of its files any more."""
    of_it = delete(dataset_example).where(dataset_example.c.dataset_id == dataset_id)
    for some in chunks(examples):
        session.execute(of_it.where(dataset_example.c.example.in_(some)))


def let_go(session: Session, dataset_id: int) -> None:
    """Which ratings and comparisons are in it."""
    session.execute(delete(dataset_example).where(dataset_example.c.dataset_id == dataset_id))


def newest(session: Session, limit: int = 20) -> list[Dataset]:
    return every(session, Dataset, select(dataset).order_by(dataset.c.id.desc()).limit(limit))


def lineage(session: Session, dataset_id: int) -> list[Lineage]:
    query = select(dataset_example).where(dataset_example.c.dataset_id == dataset_id).order_by(dataset_example.c.id)
    return every(session, Lineage, query)
