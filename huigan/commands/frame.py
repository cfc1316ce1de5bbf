"""What every command stands in: settings and the database opened, what can go wrong told with its fix, exit codes, and
the options that several of them take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console
from sqlalchemy.exc import DatabaseError, OperationalError

from huigan import logs
from huigan import settings as environment
from huigan.operate import recipes
from huigan.operate.refusals import Refusal
from huigan.serving.errors import ServingError
from huigan.settings import BadSettings, Settings
from huigan.terminal import locale_of_terminal
from huigan.texts import told
from huigan.texts.printable import printable
from storage.db import BadDatabaseUrl, Database, connect
from storage.migrations import NewerSchema, is_current
from storage.recipe import BadRecipe, Recipe

T = TypeVar("T")

FAILED, USAGE, REFUSED, SERVING = 1, 2, 3, 4
MAX_ID = 2**63 - 1  # what a database counts to

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, whole records, instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=MAX_ID, help="How many, the newest first.")]
RunNumber = Annotated[int, typer.Argument(metavar="RUN", min=1, max=MAX_ID, help="Its number, from `huigan run list`.")]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="A TOML file or a packaged recipe; by default HUIGAN_RECIPE or what an admin set."),
]
errors = Console(stderr=True, highlight=False, markup=False)


def now() -> datetime:
    return datetime.now(UTC)


def give_up(message: str, code: int) -> NoReturn:
    errors.print(printable(message), style="red", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def opened(*, migrated: bool = True) -> Iterator[tuple[Settings, Database]]:
    """Settings and the database; what can go wrong with either, or with Ollama, ends the command with its fix."""
    locale = locale_of_terminal()
    try:
        chosen = environment.load()
        db = connect(chosen.database)
    except (BadSettings, BadDatabaseUrl) as error:
        give_up(str(error), USAGE)
    try:
        if migrated and not is_current(db):
            give_up("The database is new, or of another version: run `huigan migrate` first.", USAGE)
        yield chosen, db
    except (BadRecipe, recipes.NoSuchRecipe) as error:
        give_up(str(error), USAGE)
    except NewerSchema as error:
        give_up(str(error), FAILED)
    except DatabaseError as error:
        if type(error) not in {DatabaseError, OperationalError}:  # the others are bugs of ours
            raise
        at = db.engine.url.render_as_string(hide_password=True)
        give_up(f"The database {at} cannot be used: {error.orig}\nCorrect DATABASE_URL, or start the server.", FAILED)
    except ServingError as error:
        give_up(f"{told(locale, 'error', error.code, error.params)}\n{error}", SERVING)
    finally:
        db.close()


def agreed(result: T | Refusal) -> T:
    """What was done; a refusal ends the command."""
    if isinstance(result, Refusal):
        give_up(told(locale_of_terminal(), "refusal", result.code, result.params), REFUSED)
    return result


def recipe_for(chosen: Settings, db: Database, name: str) -> Recipe:
    return recipes.find(name or db.read(recipes.chosen, chosen.recipe))


def log_to_stderr(chosen: Settings) -> None:
    logs.begin(chosen.log_format, chosen.secrets)
