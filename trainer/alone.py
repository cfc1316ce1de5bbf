"""A run trained by hand, without a supervisor: claimed here, and beaten for while it goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from huigan.operate import runs as operate
from storage import runs
from storage.db import Database
from trainer import HANDED_BACK
from trainer.child import NOT_OURS, now
from trainer.supervisor import worker_name

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0

Walk = Callable[[Database, int, int], int]  # run, attempt → exit code


def run(db: Database, number: int, walk: Walk, *, beat_seconds: float = BEAT_SECONDS) -> int:
    """The exit code; NOT_OURS where that run does not wait, or its lane is busy. Ctrl-C hands the run back."""
    claimed = db.write(runs.claim, worker_name(), now(), number)
    if claimed is None:
        return NOT_OURS
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(beat_seconds):
            try:
                db.write(runs.beat, claimed.id, claimed.attempt, now())
            except OperationalError as error:  # the run goes on, and so does the beating when the database is back
                log.warning("run %d: no beat was written: %s", claimed.id, type(error.orig).__name__)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        code = walk(db, claimed.id, claimed.attempt)
        if code == HANDED_BACK:
            db.write(operate.lose, claimed, now())
        return code
    except KeyboardInterrupt:
        db.write(operate.lose, claimed, now(), orderly=True)
        raise
    finally:
        ended.set()
        beating.join()
