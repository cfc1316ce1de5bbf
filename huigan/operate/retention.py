"""Old conversations go by the days that a setting names, with their answers, ratings and pictures; by default none.

What was learnt of them is not taken back: nobody asked for that. Later data sets are without them.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from storage import audit, erasure
from storage.db import Database

log = logging.getLogger(__name__)


def expire(db: Database, days: float | None, at: datetime) -> int:
    """A hundred a transaction, so that nobody waits for long and what was cut short is gone on with. How many went;
    `days` None: all stay."""
    if days is None:
        return 0
    went = 0
    while True:
        gone, paths = db.write(erasure.expire, at - timedelta(days=days))
        for path in paths:
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as error:
                log.error("a picture of an old conversation could not be deleted: %s", error.strerror)
        if not gone:
            break
        went += gone
    if went:
        db.write(audit.record, None, "data.expire", at, conversations=went)
    return went
