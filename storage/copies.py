"""A whole copy of the database as it is at one instant, and a database made of such a copy. Knows no noun.

SQLite is copied by its backup API, PostgreSQL by pg_dump; both while others write. What a copy holds is counted in the
snapshot that it was made of, so that it can be proved by loading it elsewhere and counting again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, make_url
from sqlalchemy import text as sql
from sqlalchemy.exc import DatabaseError, ProgrammingError

from storage.db import BUSY_TIMEOUT_SECONDS, Database, connect
from storage.migrations import upgrade
from storage.tables import metadata

Dialect = Literal["sqlite", "postgresql"]
FILE_NAMES: Mapping[str, str] = {"sqlite": "database.sqlite", "postgresql": "database.dump"}
TOOLS = ("pg_dump", "pg_restore", "psql")
REVISIONS = "alembic_version"
OF_THE_PROGRAM = frozenset({REVISIONS, "setting"})  # rows that come by starting it
# pg_restore 17 writes it, and servers before 17 do not know it.
UNKNOWN_TO_OLDER = b"SET transaction_timeout = 0;\n"
SAID_BYTES = 500


class CopyFailed(Exception):
    """No copy was made or loaded; `code` and `params` say why, for `huigan.texts`. What was there is as it was."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(f"{code} {params}" if params else code)
        self.code, self.params = code, params


@dataclass(frozen=True)
class Copied:
    """What a copy holds."""

    dialect: Dialect
    revision: str | None
    counts: Mapping[str, int]  # rows by table


def take(db: Database, file: Path) -> Copied:
    """Copy the database to `file`, which must not be there. Raises CopyFailed."""
    return _dump(db, file) if db.is_shared else _copy(_path(db.engine.url), file)


def prove(db: Database, file: Path, copied: Copied, scratch: Path) -> bool:
    """Load it into a fresh database and count. False where the server lets us make none: then it was only read through.
    Raises CopyFailed where it is not what it should be."""
    if copied.dialect == "sqlite":
        loaded = Path(shutil.copy(file, scratch))
        _check(loaded, copied)
        loaded.unlink()
        return True
    with _scratch(db.engine.url) as url:
        if url is None:
            _run(["pg_restore", "--file", os.devnull, str(file)], {})
            return False
        _load(url, file, copied, {})
    return True


def is_empty(url: str) -> bool:
    """Whether nothing is lost if it is replaced: no table, or no row but the program's own."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not _path(parsed).exists():
        return True
    db = connect(url)
    try:
        with db.engine.connect() as connection:
            return not any(rows for name, rows in _counts(connection).items() if name not in OF_THE_PROGRAM)
    except DatabaseError:
        if db.is_shared:
            raise
        return False  # a file that is no database may hold anything
    finally:
        db.close()


LOOKS, LOOK_SECONDS = 4, 0.2
# Whoever is connected to this database of a server beside us: a bot, schedules, a trainer keep a connection each.
OTHERS = sql(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


def _is_in_use(connection: Connection) -> bool:
    """A connection that has just been closed is seen for a moment longer."""
    for attempt in range(LOOKS):
        time.sleep(attempt * LOOK_SECONDS)
        others = connection.scalar(OTHERS)
        connection.rollback()  # what is seen of the others stays as it is within a transaction
        if not others:
            return False
    return True


def load(url: str, file: Path, copied: Copied, at: datetime) -> Path | None:
    """Put the copy in the place of what is at `url` and bring it up to date; nothing else may use that. Returns where
    the SQLite file that was there has been kept. Raises CopyFailed, and what `upgrade` does."""
    parsed = make_url(url)
    if parsed.get_backend_name() != copied.dialect:
        raise CopyFailed("other_database", made_of=copied.dialect, wanted=parsed.get_backend_name())
    if copied.dialect == "sqlite":
        return _swap(_path(parsed), file, copied, at)
    db = connect(url)
    try:
        with db.engine.connect() as connection:
            if _is_in_use(connection):
                raise CopyFailed("in_use")
            present = _counts(connection)
        _load(db.engine.url, file, copied, present)
        upgrade(db)
    finally:
        db.close()
    return None


# SQLite


def _path(url: URL) -> Path:
    return Path(url.database or "")


def _copy(source: Path, file: Path) -> Copied:
    with closing(_opened(source)) as live, closing(_opened(file)) as copy:
        try:
            live.execute("BEGIN")
            counts, revision = _counts_sqlite(live), _revision(live)  # the snapshot begins with the first read
            live.backup(copy)
            live.execute("COMMIT")
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        except sqlite3.DatabaseError as error:
            raise CopyFailed("copy_failed", detail=str(error)) from error
    return Copied("sqlite", revision, counts)


def _check(file: Path, copied: Copied) -> None:
    try:
        with closing(_opened(file)) as opened:
            [found, *_] = [str(row[0]) for row in opened.execute("PRAGMA integrity_check")]
            dangling = opened.execute("PRAGMA foreign_key_check").fetchone()
            counts = _counts_sqlite(opened)
    except sqlite3.DatabaseError as error:
        raise CopyFailed("damaged", detail=str(error)) from error
    if found != "ok" or dangling is not None:
        raise CopyFailed("damaged", detail=found if dangling is None else f"{dangling[0]}: a row points nowhere")
    _same(counts, copied)


def _same(counts: Mapping[str, int], copied: Copied) -> None:
    for table, rows in copied.counts.items():
        if counts.get(table) != rows:
            raise CopyFailed("damaged", detail=f"{table}: {counts.get(table)} / {rows}")


def _swap(target: Path, file: Path, copied: Copied, at: datetime) -> Path | None:
    """Never is there no database, or half of one, at `target`."""
    new, kept = target.with_name(f"{target.name}.restoring"), None
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, new)
    try:
        _check(new, copied)
        db = connect(f"sqlite:///{new}")
        try:
            upgrade(db)
        finally:
            db.close()
        with closing(_opened(new)) as made:
            made.execute("PRAGMA journal_mode=DELETE")
        _sync(new)
        if target.exists():
            _alone(target)
            kept = target.with_name(f"{target.name}.before-{at:%Y%m%dT%H%M%SZ}")
            kept.hardlink_to(target)
            for ending in ("-wal", "-shm"):  # beside a damaged file SQLite leaves them: not for the new one
                if (beside := target.with_name(target.name + ending)).exists():
                    beside.rename(kept.with_name(kept.name + ending))
        new.replace(target)
        _sync(target.parent)
    finally:
        new.unlink(missing_ok=True)
    return kept


def _alone(file: Path) -> None:
    """Everything into the one file. SQLite does so only for the last one that has it open."""
    try:
        with closing(sqlite3.connect(file, timeout=1, isolation_level=None)) as old:
            [mode] = old.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise CopyFailed("in_use") from error
    except sqlite3.DatabaseError:
        return  # what is there is no database any more: that is what it is replaced for
    if mode != "delete":
        raise CopyFailed("in_use")


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)


def _counts_sqlite(opened: sqlite3.Connection) -> dict[str, int]:
    names = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    ours = [name for name in names if not name.startswith("sqlite_")]
    return {name: opened.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in ours}


def _revision(opened: sqlite3.Connection) -> str | None:
    if opened.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (REVISIONS,)).fetchone() is None:
        return None
    row = opened.execute(f"SELECT version_num FROM {REVISIONS}").fetchone()
    return str(row[0]) if row else None


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


# PostgreSQL


def _dump(db: Database, file: Path) -> Copied:
    with db.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        counts = _counts(connection)
        revision = connection.exec_driver_sql(f"SELECT version_num FROM {REVISIONS}").scalar() if counts else None
        tables = [f'--table="{name}"' for name in counts]
        how = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", *tables]
        info, environment = _conninfo(db.engine.url)
        _run(["pg_dump", *how, "--file", str(file), "--dbname", info], environment)
    return Copied("postgresql", revision, counts)


def _counts(connection: Connection) -> dict[str, int]:
    """Rows by table, of those of ours that are there."""
    names = [each.name for each in metadata.sorted_tables] + [REVISIONS]
    has = connection.dialect.has_table
    return {
        name: connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar_one()
        for name in names
        if has(connection, name)
    }


def _load(url: URL, file: Path, copied: Copied, present: Mapping[str, int]) -> None:
    """In one transaction, which ends well only if every row is there."""
    info, environment = _conninfo(url)
    reading = [_tool("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(file)]
    writing = [_tool("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", info]
    drops = "".join(f'DROP TABLE IF EXISTS "{name}" CASCADE;\n' for name in {**present, **copied.counts})
    checks = "".join(
        f"IF (SELECT count(*) FROM public.\"{name}\") <> {rows} THEN RAISE EXCEPTION '{name}'; END IF;\n"
        for name, rows in copied.counts.items()
    )
    with (
        subprocess.Popen(reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as read,
        subprocess.Popen(
            writing, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        ) as wrote,
    ):
        assert read.stdout is not None
        assert read.stderr is not None
        assert wrote.stdin is not None
        assert wrote.stderr is not None
        # Without the COMMIT at its end psql leaves everything as it was.
        with contextlib.suppress(BrokenPipeError):
            wrote.stdin.write(f"BEGIN;\nSET client_min_messages = warning;\n{drops}".encode())
            in_head = True
            for line in read.stdout:
                in_head = in_head and not line.startswith(b"COPY ")
                if not (in_head and line == UNKNOWN_TO_OLDER):
                    wrote.stdin.write(line)
            said = read.stderr.read()
            if read.wait() == 0:
                wrote.stdin.write(f"DO $check$ BEGIN\n{checks}END $check$;\nCOMMIT;\n".encode())
            wrote.stdin.close()
        complaint = wrote.stderr.read()
        if read.wait() != 0:
            raise CopyFailed("damaged", detail=_end_of(said))
        if wrote.wait() != 0:
            raise CopyFailed("load_failed", detail=_end_of(complaint))


@contextlib.contextmanager
def _scratch(url: URL) -> Iterator[URL | None]:
    """A fresh database on the same server; None where we may make none."""
    name = f"{url.database}_backup_check"
    db = connect(url.render_as_string(hide_password=False))
    try:
        outside = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        with outside.connect() as connection:
            try:
                connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # a killed one's
                connection.exec_driver_sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
            except ProgrammingError:  # insufficient privilege
                yield None
                return
        try:
            yield url.set(database=name)
        finally:
            with outside.connect() as connection:
                connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        db.close()


def _conninfo(url: URL) -> tuple[str, dict[str, str]]:
    """For PostgreSQL's own programs; the password by the environment, which no list of processes shows."""
    known: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "dbname": url.database,
        **url.query,
    }
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    return make_conninfo(**{name: value for name, value in known.items() if value}), {**os.environ, **password}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CopyFailed("no_tool", tool=name)
    return found


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [_tool(command[0]), *command[1:]], env={**os.environ, **environment}, capture_output=True, check=False
    )
    if done.returncode != 0:
        code = "copy_failed" if command[0] == "pg_dump" else "damaged"
        raise CopyFailed(code, detail=_end_of(done.stderr))


def _end_of(said: bytes) -> str:
    return said.decode(errors="replace").strip()[-SAID_BYTES:]
