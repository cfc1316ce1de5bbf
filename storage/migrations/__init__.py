"""Alembic migrations of the tables, run by `huigan migrate` and at `huigan up`. Knows no data."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage.db import Database


class NewerSchema(RuntimeError):
    """The database was migrated by a newer Huigan: update this one, or restore a backup of the database."""


def upgrade(db: Database) -> None:
    """Bring the tables up to date; two processes may do so at once. Raises NewerSchema."""
    with db.engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(7204841)"
            )  # any fixed number; SQLite's BEGIN IMMEDIATE does it
        present = MigrationContext.configure(connection).get_current_revision()
        if not knows(present):
            raise NewerSchema(NewerSchema.__doc__)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def knows(revision: str | None) -> bool:
    """Whether it can be brought up to date from there; None is a database without tables."""
    known = {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision is None or revision in known


def is_newer(db: Database) -> bool:
    """Whether a newer Huigan migrated it."""
    with db.engine.connect() as connection:
        return not knows(MigrationContext.configure(connection).get_current_revision())


def is_current(db: Database) -> bool:
    with db.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    return present == ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
