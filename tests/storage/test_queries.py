"""What is asked every few seconds, or at every turn, finds its rows by an index; and no list of ids is too long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from storage import (
    answers,
    comparisons,
    dataset_copies,
    deliveries,
    figures,
    gpu,
    messages,
    ratings,
    run_cards,
    run_points,
    showings,
    trial_figures,
    turns,
    updates,
)
from storage.db import Database, Session
from storage.records import CardKind
from tests.storage.noun_world import AT, answered

VARIABLES = 32_766  # SQLite's own limit where nobody raised it


@contextmanager
def asked(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent meanwhile, with what is bound in them."""
    sent: list[tuple[str, Any]] = []

    def keep(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", keep)
    try:
        yield sent
    finally:
        event.remove(db.engine, "before_cursor_execute", keep)


@pytest.mark.parametrize(
    "question",
    [
        turns.unclosed,
        lambda session: turns.abandoned(session, AT, AT),
        lambda session: turns.open_next(session, 1, "w", AT),
        lambda session: turns.of_message(session, 1),
        lambda session: ratings.counting(session, answer_ids=[1, 2]),
        lambda session: dataset_copies.to_clear(session, ["disk"]),
        dataset_copies.nowhere,
        lambda session: ratings.newest(session, 1, 1),
        lambda session: comparisons.counting(session, of_messages=[1, 2]),
        lambda session: comparisons.newest(session, 1, 2, 1),
        lambda session: messages.of_conversation(session, 1, up_to=9, limit=5),
        lambda session: messages.by_source(session, "s"),
        lambda session: answers.of_messages(session, [1, 2]),
        lambda session: deliveries.find(session, "telegram", "1", "1"),
        lambda session: showings.unfinished(session, "telegram"),
        lambda session: showings.unfinished(session, "telegram", "w", AT, AT),
        updates.unhandled,
        lambda session: gpu.held(session, AT),
        lambda session: figures.answers_given(session, AT, AT),
        lambda session: figures.ratings_given(session, AT, AT),
        lambda session: figures.raters(session, AT),
        lambda session: figures.thumbs(session, [1, 2]),
        lambda session: trial_figures.first_thumbs(session, (1, 2), AT, 9),
        lambda session: trial_figures.first_picks(session, (1, 2), AT, 9),
        lambda session: trial_figures.endings(session, "t", AT, AT),
        lambda session: trial_figures.waits(session, 1, AT, AT, 9),
        lambda session: run_cards.of_run(session, 1, CardKind.PROMOTION),
        lambda session: run_points.curve(session, 1),
    ],
)
def test_no_table_is_read_from_end_to_end(sqlite_db: Database, question: Callable[[Session], object]) -> None:
    """Three indexes are: they hold what is left to do, and nothing else. `given` is what an index has found already."""
    with asked(sqlite_db) as sent:
        sqlite_db.write(question)
    with sqlite_db.engine.connect() as connection:
        for statement, bound in [each for each in sent if not each[0].startswith("BEGIN")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", bound).all()
            scans = [row[3] for row in plan if row[3].startswith("SCAN")]
            fine = ("ix_showing_unfinished", "ix_update_unhandled", "ix_dataset_person_withdrawn", "SCAN given")
            assert [each for each in scans if not each.endswith(fine)] == []


def test_more_ids_than_a_query_may_name_are_looked_up_all_the_same(sqlite_db: Database) -> None:
    known = sqlite_db.write(answered, 3)

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, VARIABLES)

    sqlite_db.engine.dispose()
    event.listen(sqlite_db.engine, "connect", limit)
    ids = range(1, 2 * VARIABLES)
    assert list(sqlite_db.read(answers.many, ids)) == [each.id for each in known]
    assert [each.id for each in sqlite_db.read(answers.of_messages, ids)] == [each.id for each in known]
    assert list(sqlite_db.read(messages.many, ids)) == sorted({each.message_id for each in known})
    assert sqlite_db.read(ratings.many, ids) == {}
    assert sqlite_db.read(ratings.counting, answer_ids=ids) == []
    assert sqlite_db.read(comparisons.counting, of_messages=list(ids)) == []
