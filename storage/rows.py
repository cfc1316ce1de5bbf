"""From rows to records: the one place that knows both. Knows no noun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Executable, Row, Table, insert
from sqlalchemy.dialects import postgresql, sqlite

from storage.db import Session

R = TypeVar("R")
N = TypeVar("N", int, str)

IDS_A_QUERY = 10_000  # SQLite and PostgreSQL bind some 32,000 at most


def as_record(kind: type[R], row: Row[Any]) -> R:
    """Columns that the record does not have (a key for uniqueness, say) are left out."""
    return _maker(kind, row._fields)(row)


def _maker(kind: type[R], columns: tuple[str, ...]) -> Callable[[Sequence[Any]], R]:
    """What makes a record of a row with these columns."""
    return _making(kind, columns)  # type: ignore[arg-type]  # a class can be hashed


@cache
def _making(kind: Any, columns: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    fields: Mapping[str, Any] = kind.__dataclass_fields__
    if all(name in fields for name in columns):
        return lambda row: kind(**dict(zip(columns, row, strict=True)))
    kept = [(place, name) for place, name in enumerate(columns) if name in fields]
    return lambda row: kind(**{name: row[place] for place, name in kept})


def joined(row: Row[Any], *kinds: tuple[type[Any], Table]) -> Iterator[Any]:
    """The records of a row that has every column of several tables, one table after the other."""
    start = 0
    for kind, table in kinds:
        names = tuple(table.c.keys())
        yield _maker(kind, names)(row[start : start + len(names)])
        start += len(names)


def first(session: Session, kind: type[R], query: Executable, /, **bound: Any) -> R | None:
    """`bound` fills a query that was built once: building one takes twice as long as asking it."""
    row = session.execute(query, bound).first()
    return None if row is None else as_record(kind, row)


def every(session: Session, kind: type[R], query: Executable, /, **bound: Any) -> list[R]:
    rows = session.execute(query, bound)
    return list(map(_maker(kind, tuple(rows.keys())), rows))


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
    return as_record(kind, session.execute(inserting(table), values).one())


def add_once(session: Session, kind: type[R], table: Table, /, **values: Any) -> R | None:
    """Insert one row, or nothing (None) where a unique constraint already holds one like it."""
    return first(session, kind, _inserting_once(_dialect(session), table), **values)


def put_row(session: Session, kind: type[R], table: Table, key: str, /, **values: Any) -> R:
    """Insert one row, or overwrite the one that has the same `key`; safe where several do so at once."""
    return as_record(kind, session.execute(_putting(_dialect(session), table, key, tuple(values)), values).one())


def _dialect(session: Session) -> str:
    return session.dialect.name


@cache
def inserting(table: Table) -> Executable:
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
