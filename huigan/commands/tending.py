"""What every process of ours does beside its own work: looks whether all is well."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from huigan.commands.frame import now
from huigan.health import watch
from huigan.health.rounds import beside
from huigan.serving.client import Ollama
from huigan.settings import Settings
from storage.db import Database

ASKED_SECONDS = 10.0

Act = tuple[float, Callable[[], object]]


@contextlib.contextmanager
def tended(chosen: Settings, db: Database, *acts: Act) -> Iterator[None]:
    """`acts` are done beside it too: each again after so many seconds."""
    client = Ollama(chosen.ollama_host, timeout_seconds=ASKED_SECONDS)

    def look() -> None:
        watch.look(db, client, chosen.home, now(), backups_kept=chosen.backup_keep)

    with beside((watch.LOOK_SECONDS, look), *acts):
        yield
