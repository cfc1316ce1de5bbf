"""What schedules does about releases at each look: settles the canary, watches the live one, keeps the one before warm
and the alias where it belongs.

Each of them stands alone: an Ollama that is away hinders no look at the others, and what it hindered is due again
at the next. What decides is huigan.operate's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from huigan.operate import canaries
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage.db import Database

log = logging.getLogger(__name__)

Chore = Callable[[Database, Ollama, datetime], object]
CHORES: tuple[Chore, ...] = (canaries.settle, canaries.watch, canaries.keep_warm, canaries.keep_alias)


def look(db: Database, client: Ollama, at: datetime) -> None:
    for chore in CHORES:
        try:
            chore(db, client, at)
        except ServingError as error:
            log.warning("%s waits for Ollama: %s", getattr(chore, "__name__", "a chore"), error)
