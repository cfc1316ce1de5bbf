"""`python -m trainer`: the supervisor as a process of its own."""

from __future__ import annotations

import logging
import sys

from huigan import settings
from storage.db import connect
from storage.records import Run
from trainer import supervisor


def command(run: Run) -> list[str]:
    return [sys.executable, "-m", "huigan", "train", str(run.id), "--attempt", str(run.attempt)]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    where = settings.load()
    db = connect(where.database)
    try:
        supervisor.main(db, command, where.home / "logs")
    finally:
        db.close()


if __name__ == "__main__":
    main()
