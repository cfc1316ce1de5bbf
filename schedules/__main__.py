"""`python -m schedules`: the loop as a process of its own."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from huigan import settings
from schedules import loop
from schedules.cron import BadCron
from storage.db import connect
from storage.recipe import parse


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    where = settings.load()
    if not where.recipe:
        sys.exit("HUIGAN_RECIPE is not set: name the recipe file that scheduled runs use")
    recipe = parse(Path(where.recipe).read_text(encoding="utf-8"))
    db = connect(where.database)
    try:
        loop.main(db, loop.Plan(recipe, where.schedule, where.min_ratings))
    except BadCron as error:
        sys.exit(f"HUIGAN_SCHEDULE: {error}")
    finally:
        db.close()


if __name__ == "__main__":
    main()
