"""A run trained by hand, without a supervisor: claimed here, and beaten for while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from huigan.operate import runs as operate
from storage import runs
from storage.db import Database
from trainer.child import NOT_OURS, now
from trainer.supervisor import worker_name

BEAT_SECONDS = 5.0

Walk = Callable[[Database, int, int], int]  # run, attempt → exit code


def run(db: Database, number: int, walk: Walk) -> int:
    """The exit code; NOT_OURS where that run does not wait, or its lane is busy. Ctrl-C hands the run back."""
    claimed = db.write(runs.claim, worker_name(), now(), number)
    if claimed is None:
        return NOT_OURS
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            db.write(runs.beat, claimed.id, claimed.attempt, now())

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        return walk(db, claimed.id, claimed.attempt)
    except KeyboardInterrupt:
        db.write(operate.lose, claimed, now(), orderly=True)
        raise
    finally:
        ended.set()
        beating.join()
