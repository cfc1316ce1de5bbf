"""Attempts at a run: `trainer.child.main` itself, in a process that can be killed, whose clock may be wrong, or which
is told to die as a stage begins.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from huigan.serving.client import Ollama
from storage.db import connect
from storage.records import Run
from tests.faults.forks import Fork
from tests.trainer.world import World
from trainer import child

PATIENCE_SECONDS = 2.0  # of a run with an Ollama or a database that is away


def begun(where: World, run: Run, dies_at: str = "", ahead: timedelta = timedelta()) -> Fork:
    told = (where.url, run.id, run.attempt, str(where.home), where.ollama.host, dies_at, ahead)
    return Fork(where.folder / "attempts.log", attempt, *told)


def attempt(url: str, run_id: int, number: int, home: str, host: str, dies_at: str, ahead: timedelta) -> int:
    if dies_at:
        child.Teller = dying(dies_at)  # type: ignore[misc]
    if ahead:
        child.now = lambda: datetime.now(UTC) + ahead  # a machine whose clock jumped
    patience = {"threads": 1, "patience_seconds": PATIENCE_SECONDS}
    return child.main(connect(url), run_id, number, Path(home), Ollama(host), **patience)


def dying(stage: str) -> type[child.Teller]:
    class Dying(child.Teller):
        """Kills itself, as kill -9 does, when its run comes to that stage."""

        def __call__(self, at: str, what: str, done: int, total: int) -> None:
            super().__call__(at, what, done, total)
            if at == stage:
                os.kill(os.getpid(), signal.SIGKILL)

    return Dying
