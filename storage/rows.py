"""From rows to records: the one place that knows both. Knows no noun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy import Executable, Row, Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

R = TypeVar("R")
N = TypeVar("N", int, str)

IDS_A_QUERY = 10_000  # SQLite and PostgreSQL bind some 32,000 at most


def as_record(kind: type[R], row: Row[Any]) -> R:
    """Columns that the record does not have (a key for uniqueness, say) are left out."""
    fields: Mapping[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in row._mapping.items() if name in fields})


def as_record_of(kind: type[R], table: Table, row: Row[Any]) -> R:
    """Of one of the tables that a row was joined from."""
    fields: Mapping[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: row._mapping[table.c[name]] for name in fields})


def first(session: Session, kind: type[R], query: Executable) -> R | None:
    row = session.execute(query).first()
    return None if row is None else as_record(kind, row)


def every(session: Session, kind: type[R], query: Executable) -> list[R]:
    return [as_record(kind, row) for row in session.execute(query)]


def batches(ids: Iterable[int]) -> Iterator[list[int]]:
    """Ids in ascending order, each once, as many at a time as one query may name."""
    return chunks(ids)


def chunks(names: Iterable[N]) -> Iterator[list[N]]:
    """As `batches`, of whatever rows are named by."""
    ordered = sorted(set(names))
    for start in range(0, len(ordered), IDS_A_QUERY):
        yield ordered[start : start + IDS_A_QUERY]


def add(session: Session, kind: type[R], table: Table, /, **values: Any) -> R:
    """Insert one row and return it as the database kept it."""
    return as_record(kind, session.execute(insert(table).values(**values).returning(table)).one())


def add_once(session: Session, kind: type[R], table: Table, /, **values: Any) -> R | None:
    """Insert one row, or nothing (None) where a unique constraint already holds one like it."""
    query = _insert(session, table).values(**values).on_conflict_do_nothing().returning(table)
    return first(session, kind, query)


def put_row(session: Session, kind: type[R], table: Table, key: str, /, **values: Any) -> R:
    """Insert one row, or overwrite the one that has the same `key`; safe where several do so at once."""
    query = _insert(session, table).values(**values)
    query = query.on_conflict_do_update(index_elements=[key], set_=values)
    return as_record(kind, session.execute(query.returning(table)).one())


def _insert(session: Session, table: Table) -> postgresql.Insert | sqlite.Insert:
    is_postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgres else sqlite.insert(table)
