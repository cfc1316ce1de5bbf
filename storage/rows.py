"""From rows to records: the one place that knows both. Knows no noun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
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


def first(session: Session, kind: type[R], query: Executable, /, **bound: Any) -> R | None:
    """`bound` fills a query that was built once: building one takes twice as long as asking it."""
    row = session.execute(query, bound).first()
    return None if row is None else as_record(kind, row)


def every(session: Session, kind: type[R], query: Executable, /, **bound: Any) -> list[R]:
    return [as_record(kind, row) for row in session.execute(query, bound)]


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
    return as_record(kind, session.execute(_inserting(table), values).one())


def add_once(session: Session, kind: type[R], table: Table, /, **values: Any) -> R | None:
    """Insert one row, or nothing (None) where a unique constraint already holds one like it."""
    return first(session, kind, _inserting_once(_dialect(session), table), **values)


def put_row(session: Session, kind: type[R], table: Table, key: str, /, **values: Any) -> R:
    """Insert one row, or overwrite the one that has the same `key`; safe where several do so at once."""
    return as_record(kind, session.execute(_putting(_dialect(session), table, key, tuple(values)), values).one())


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name


@cache
def _inserting(table: Table) -> Executable:
    return insert(table).returning(table)


@cache
def _inserting_once(dialect: str, table: Table) -> Executable:
    return _insert(dialect, table).on_conflict_do_nothing().returning(table)


@cache
def _putting(dialect: str, table: Table, key: str, names: tuple[str, ...]) -> Executable:
    query = _insert(dialect, table)
    given = {name: query.excluded[name] for name in names}
    return query.on_conflict_do_update(index_elements=[key], set_=given).returning(table)


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
