"""The doors to the database: `read`, `write` and their awaitable twins. Knows nothing of the nouns.

SQLite and PostgreSQL behave alike here: a read sees one snapshot from its first statement to its last, a write
holds the right to write from its first statement (`BEGIN IMMEDIATE` on SQLite: BEGIN, read, then write can fail at
once after another's commit, whatever the busy timeout). Nothing slow belongs inside either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError

Session: TypeAlias = Connection  # one transaction, as functions of storage are given it: tables, no mapped objects

P = ParamSpec("P")
T = TypeVar("T")

POOL_SIZE = 8
BUSY_TIMEOUT_SECONDS = 30
# libpq's: a machine that loses its power says nothing, and the kernel alone would wait a quarter of an hour for it.
GONE_WITHOUT_A_WORD = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
AWAY = (OperationalError, InterfaceError)  # locked, full, restarting: it passes


class BadDatabaseUrl(ValueError):
    """The DATABASE_URL names no database that Huigan can use."""


class Database:
    """One database, its connection pool, and as many threads as connections for async callers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reading = {"isolation_level": "REPEATABLE READ"} if self.is_shared else {}
        self._threads = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="database")

    @property
    def is_shared(self) -> bool:
        """Whether several bots may run on it at once: a SQLite file has one."""
        return self.engine.dialect.name == "postgresql"

    def read(self, fn: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(session, …)` on one consistent snapshot; whatever it writes is rolled back."""
        with self.engine.connect() as session:
            session.execution_options(huigan_writes=False, **self._reading)
            return fn(session, *args, **kwargs)

    def write(self, fn: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(session, …)` in a transaction of its own: committed when it returns, undone when it raises."""
        with self.engine.connect() as session:
            result = fn(session, *args, **kwargs)
            session.commit()
            return result

    async def aread(self, fn: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_thread(lambda: self.read(fn, *args, **kwargs))

    async def awrite(self, fn: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `write`. Shielded: once begun it commits, also when the caller is cancelled meanwhile."""
        return await self._in_thread(lambda: self.write(fn, *args, **kwargs))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, call))

    def close(self) -> None:
        """Wait for what is under way, then let go of every connection."""
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def connect(url: str) -> Database:
    """Open the database at `url`: `sqlite:///PATH` or `postgresql+psycopg://…` (plain `postgresql://` will do).

    Raises BadDatabaseUrl. Creates the folder of a SQLite file, not its tables: see `storage.migrations.upgrade`.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What it complains of may be a part of the password.
        raise BadDatabaseUrl(
            "DATABASE_URL is no URL: write sqlite:///path/to/file or postgresql://user:password@host/name, "
            "and in a password %40 for @, %3A for :, %2F for /"
        ) from None
    # hide_parameters, below: what users wrote must not reach a log by way of an error's text.
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        waits = {name: value for name, value in GONE_WITHOUT_A_WORD.items() if name not in parsed.query}
        options: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_pre_ping": True}
        return Database(create_engine(parsed, **options, connect_args=waits, hide_parameters=True))
    is_sqlite = parsed.drivername in {"sqlite", "sqlite+pysqlite"}
    if not is_sqlite or not parsed.database or parsed.database == ":memory:":
        raise BadDatabaseUrl(f"DATABASE_URL names {parsed.drivername}: use a SQLite file (sqlite:///…) or PostgreSQL")
    folder = Path(parsed.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadDatabaseUrl(
            f"There can be no database in {folder} ({error.strerror}): "
            "set HUIGAN_HOME or DATABASE_URL to where you may write"
        ) from error
    # isolation_level None: the driver leaves BEGIN to us.
    options = {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(parsed, pool_size=POOL_SIZE, max_overflow=0, connect_args=options, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # FULL: a rating that was confirmed survives a power cut, not only a kill.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("huigan_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
