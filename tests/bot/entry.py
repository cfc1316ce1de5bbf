"""The bot as a process of its own, pointed at the fakes by one JSON argument: what `huigan bot` does by settings."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from bot.application import Intervals
from bot.main import Webhook, run
from bot.pace import Limits
from storage.db import connect
from storage.recipe import Recipe


def main(path: str) -> None:
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    webhook, intervals, limits = (told.pop(name) for name in ("webhook", "intervals", "limits"))
    db = connect(told.pop("database_url"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run(
            db=db,
            recipe=lambda: Recipe(name="test"),
            home=Path(told.pop("home")),
            webhook=Webhook(**webhook) if webhook else None,
            intervals=Intervals(**intervals),
            limits=Limits(**limits),
            **told,
        )
    finally:
        db.close()


if __name__ == "__main__":
    main(sys.argv[1])
