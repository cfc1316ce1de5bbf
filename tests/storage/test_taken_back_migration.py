"""A database of a time before words were traced: whose they are is gathered, and the orphans are taken back."""

from __future__ import annotations

from alembic import command

from storage import dataset_copies, dataset_people, datasets, holdings, migrations, ratings, runs, tables
from storage.db import Database, Session
from storage.migrations import upgrade
from storage.records import Lineage, Run, Thumb
from tests.storage.noun_world import AT, answered


def old_data_set(session: Session) -> Run:
    """Two examples: one whose rating is still there, and one whose rater was forgotten."""
    queued = runs.enqueue(session, "default", {}, "test", AT)
    assert queued is not None
    [answer] = answered(session, 1)
    rating = ratings.add(session, answer.id, answer_author(session, answer.message_id), Thumb.UP, AT)
    lines = [Lineage("a" * 64, "train", rating.id, None), Lineage("b" * 64, "train", None, None)]
    datasets.add(session, queued.id, "sft", (9, 9), {}, {}, "0", "/data/runs/1/dataset", lines, AT)
    return queued


def answer_author(session: Session, message_id: int) -> int:
    found = session.scalar(tables.message.select().with_only_columns(tables.message.c.user_id))
    assert found is not None
    return int(found)


def back_to(db: Database, revision: str) -> None:
    """As an older program left it: without the tables that came since."""
    with db.engine.connect() as connection, connection.begin():
        for table in (tables.dataset_person, tables.dataset_copy, tables.holding):
            table.drop(connection)
        connection.exec_driver_sql("DROP INDEX ix_turn_tag_closed")
        connection.exec_driver_sql('ALTER TABLE "run" DROP COLUMN continues_run_id')
        config = migrations._config()
        config.attributes["connection"] = connection
        command.stamp(config, revision)


def test_of_older_data_sets_the_people_are_found_and_what_nobody_is_behind_is_taken_back(db: Database) -> None:
    queued = db.write(old_data_set)
    back_to(db, "0003")
    upgrade(db)
    [data] = db.read(datasets.newest)
    assert set(db.read(dataset_people.withdrawn, data.id)) == {"b" * 64}
    assert db.read(holdings.of_run, queued.id) is not None
    assert [(each.disk, each.path) for each in db.read(dataset_copies.of, data.id)] == [("", "/data/runs/1/dataset")]
    with db.engine.connect() as connection:
        rows = connection.execute(tables.dataset_person.select()).all()
    assert {(row.example, row.user_id is None) for row in rows} == {("a" * 64, False), ("b" * 64, True)}
