"""One of two schedulers on one database, as a process: looks as fast as it can until it is told to stop.

python rival.py DATABASE_URL FOLDER NAME
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from schedules import loop
from storage.db import connect
from storage.recipe import Data, Recipe

RECIPE = Recipe(name="test", data=Data(min_ratings=4, min_raters=2, min_answers=4))


def main(url: str, folder: Path, name: str) -> None:
    db = connect(url)
    plan = loop.Plan(lambda: RECIPE, min_new_ratings=4, zone=UTC)
    looks = 0
    while not (folder / "stop").exists():
        loop.consider(db, plan, datetime.now(UTC))
        looks += 1
        (folder / name).write_text(str(looks))
    db.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
