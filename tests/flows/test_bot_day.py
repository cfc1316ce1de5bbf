"""A tenth of a simulated day: 20 people, 200 messages. The whole one is `python -m benchmarks.day`."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.db import Database
from tests.bot.day import SPEED, Day
from tests.bot.running import world


@pytest.mark.slow
def test_a_day_ends_with_all_answered_or_marked_in_order_and_nothing_refused_that_was_ours_to_avoid(
    sqlite_db: Database, tmp_path: Path
) -> None:
    with world(sqlite_db, tmp_path, SPEED, overall=SPEED, context_tokens=30_000) as here:
        day = Day(here)
        day.live()
        assert day.troubles() == []
