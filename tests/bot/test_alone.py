"""A SQLite file has one bot, a PostgreSQL several."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from bot.alone import AnotherBot, alone
from storage.db import Database


def test_a_second_bot_says_so_where_there_is_one_file_and_the_next_after_it_may_begin(db: Database) -> None:
    with alone(db), nullcontext() if db.is_shared else pytest.raises(AnotherBot, match="PostgreSQL"), alone(db):
        assert db.is_shared
    with alone(db):
        pass
