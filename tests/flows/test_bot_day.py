"""A tenth of a simulated day: 20 people, 200 messages. The whole one is `python -m benchmarks.day`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text as sql

from storage.db import connect
from tests.bot.day import SPEED, Day
from tests.bot.running import world

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def day(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """One that was lived to its end."""
    folder = tmp_path_factory.mktemp("day")
    db = connect(f"sqlite:///{shutil.copy(migrated_sqlite, folder / 'huigan.db')}")
    with world(db, folder, SPEED, overall=SPEED, context_tokens=30_000) as here:
        lived = Day(here)
        lived.live()
        yield lived
    db.close()


def test_a_day_ends_with_all_answered_or_marked_in_order_and_nothing_refused_that_was_ours_to_avoid(day: Day) -> None:
    assert day.troubles() == [], day.summary()
    seen = {str(row["ended"]) for row in day.world.rows("turn")}
    assert {"complete", "interrupted"} <= seen, day.summary()  # it was a day on which things went wrong
    assert len(day.world.rows("rating")) > 10, day.summary()


def test_what_is_lost_doubled_or_told_would_be_found(day: Day) -> None:
    """Last, since it spoils the day."""
    lost = day.world.rows("delivery")[-1]
    said = day.world.rows("rating")[-1]
    first, second = [row for row in day.world.rows("turn") if row["opened_at"]][:2]
    with day.world.db.engine.begin() as connection:
        connection.execute(sql("DELETE FROM delivery WHERE id = :id"), {"id": lost["id"]})
        columns = "answer_id, user_id, thumb, reason, correction, rated_at"
        copied = f"INSERT INTO rating ({columns}) SELECT {columns} FROM rating WHERE id = :id"
        connection.execute(sql(copied), {"id": said["id"]})
        swap = "UPDATE turn SET conversation_id = :conversation, state = 'waiting', opened_at = :at WHERE id = :id"
        told = {"conversation": first["conversation_id"], "at": first["asked_at"].replace("20", "19", 1)}
        connection.execute(sql(swap), {**told, "id": second["id"]})
    with day.world.log.open("a", encoding="utf-8") as log:
        log.write("INFO somebody said 秘密的问1完\n")
    found = "\n".join(day.troubles())
    assert f"answer {lost['answer_id']} is not whole" in found
    assert f"said the same of answer {said['answer_id']} twice" in found
    assert f"turn {second['id']} is waiting" in found
    assert f"turn {second['id']} was answered before turn {first['id']}" in found
    assert "the log tells '秘密'" in found
