"""`huigan backup` and `huigan restore`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError

from huigan import settings as environment
from huigan.commands.frame import FAILED, REFUSED, USAGE, AsJson, give_up, now, opened
from huigan.operate import backups, recipes
from huigan.operate.backups import Backup
from huigan.settings import BadSettings, Settings
from huigan.shown import print_json, show
from huigan.terminal import locale_of_terminal
from huigan.texts import text, told
from storage.copies import CopyFailed
from storage.db import BadDatabaseUrl, Database
from storage.migrations import is_current
from storage.recipe import BadRecipe

logger = logging.getLogger(__name__)

REFUSALS = frozenset({"not_empty", "in_use", "other_database", "newer", "under_way"})


def backup(
    out: Annotated[Path | None, typer.Option(help="The folder to write to; by default HUIGAN_BACKUPS.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show those that are there, and make none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one archive: the database as it is now, recipes, suites, settings without secrets. It is proved by loading
    it into a fresh database. The newest HUIGAN_BACKUP_KEEP stay."""
    with opened(migrated=False) as (chosen, db), _explained():  # before it is migrated is when one is wanted
        folder = out or chosen.backup_folder
        if listed:
            found = backups.listed(folder)
            if as_json:
                print_json([_plain(each) for each in found])
                return
            columns = {"file": lambda each: each.file.name, "made": lambda each: each.made_at}
            show(found, {**columns, "rows": _rows, "MB": _size}, as_json=False)
            return
        made = make(db, chosen, now(), folder)
        if as_json:
            print_json(_plain(made))
            return
        locale = locale_of_terminal()
        typer.echo(text(locale, "backup.made", file=made.file, rows=_rows(made), size=_size(made)))
        typer.echo(text(locale, "backup.proved" if made.is_proved else "backup.only_read"))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive of `huigan backup`.")],
    force: Annotated[bool, typer.Option("--force", help="Also where the database holds something.")] = False,
    look: Annotated[bool, typer.Option("--look", help="Only say what is in it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the database of a backup in the place of DATABASE_URL's, and bring it up to date. Nothing else may run."""
    try:
        chosen = environment.load()
    except BadSettings as error:
        give_up(str(error), USAGE)
    locale = locale_of_terminal()
    with _explained():
        if look:
            found = backups.read(file)
            if as_json:
                print_json(_plain(found))
                return
            made = f"{found.made_at.astimezone():%Y-%m-%d %H:%M}"
            typer.echo(text(locale, "backup.holds", made=made, huigan=found.huigan, rows=_rows(found)))
            return
        try:
            done = backups.restore(chosen.database, file, chosen.home, force=force, at=now())
        except (BadDatabaseUrl, DatabaseError) as error:
            give_up(str(getattr(error, "orig", error)), FAILED)
        if as_json:
            print_json({**_plain(done.backup), "beside": str(done.beside), "kept": done.kept and str(done.kept)})
            return
        typer.echo(text(locale, "backup.restored", rows=_rows(done.backup), beside=done.beside))
        if done.kept is not None:
            typer.echo(text(locale, "backup.kept", file=done.kept))


def make(db: Database, chosen: Settings, at: datetime, folder: Path | None = None) -> Backup:
    return backups.make(
        db,
        folder or chosen.backup_folder,
        keep=chosen.backup_keep,
        recipes=_files(db, chosen),
        environment=_without_secrets(chosen),
        version=version("huigan"),
        at=at,
    )


def _files(db: Database, chosen: Settings) -> list[Path]:
    """The recipe in force, and what it names. One that cannot be read is no reason for no backup."""
    from trainer import replay, suite  # which no other command should wait for

    found: list[Path] = []
    try:
        name = db.read(recipes.chosen, chosen.recipe) if is_current(db) else chosen.recipe or recipes.DEFAULT
        file = recipes.file_of(name)
        found.append(file)
        recipe = recipes.find(str(file))
        if recipe.gate.suite is not None:
            found.append(suite.found(recipe.gate.suite))
        found += [path for each in recipe.data.replays if (path := replay.local_file(each)) is not None]
    except (recipes.NoSuchRecipe, BadRecipe, suite.BadSuite, OSError) as error:
        logger.warning("the backup goes without what the recipe names: %s", error)
    return found


def _without_secrets(chosen: Settings) -> dict[str, Any]:
    kept = chosen.model_dump(mode="json")  # pydantic masks what is a secret
    return {**kept, "database_url": make_url(chosen.database).render_as_string(hide_password=True)}


def _rows(backup: Backup) -> int:
    return sum(backup.copied.counts.values())


def _size(backup: Backup) -> str:
    return f"{backup.size_bytes / 1e6:.1f}"


def _plain(backup: Backup) -> dict[str, Any]:
    return {
        "file": str(backup.file),
        "made_at": backup.made_at.isoformat(),
        "huigan": backup.huigan,
        "revision": backup.copied.revision,
        "counts": dict(backup.copied.counts),
        "is_proved": backup.is_proved,
        "size_bytes": backup.size_bytes,
    }


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CopyFailed as error:
        words = told(locale_of_terminal(), "backup", error.code, error.params)
        give_up(words, REFUSED if error.code in REFUSALS else FAILED)
