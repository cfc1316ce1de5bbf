"""One bot to a SQLite file: a second one, begun by mistake, says so and ends. Several share a PostgreSQL."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.db import Database


class AnotherBot(RuntimeError):
    """Another bot answers from this database file: end it first, or give both one PostgreSQL by DATABASE_URL."""


@contextmanager
def alone(db: Database) -> Iterator[None]:
    """Raises AnotherBot. Whoever is killed lets go."""
    if db.is_shared:
        yield
        return
    assert db.engine.url.database is not None
    with Path(f"{db.engine.url.database}.bot").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherBot(AnotherBot.__doc__) from None
        yield
