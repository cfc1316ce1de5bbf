"""The doors: snapshots, exclusive writes, cancellation; and the migrations."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, make_url, select

from storage import users
from storage.db import BadDatabaseUrl, Database, Session, connect
from storage.migrations import NewerSchema, is_current, upgrade
from storage.tables import metadata, user

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def count(session: Session) -> int:
    return session.execute(select(func.count()).select_from(user)).scalar_one()


def test_the_migrations_make_exactly_the_tables_of_the_code(db: Database) -> None:
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_and_at_once_is_the_same_as_once(database_url: str) -> None:
    opened = [connect(database_url) for _ in range(3)]
    threads = [threading.Thread(target=upgrade, args=(each,)) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    upgrade(opened[0])
    assert all(is_current(each) for each in opened)
    for each in opened:
        each.close()


def test_a_database_of_a_newer_program_is_left_alone(sqlite_db: Database) -> None:
    with sqlite_db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerSchema):
        upgrade(sqlite_db)


def test_a_read_sees_one_snapshot_while_others_write(db: Database) -> None:
    db.write(users.meet, "telegram", "1", "Ann", None, AT)

    def look_twice(session: Session) -> tuple[int, int]:
        before = count(session)
        writer = threading.Thread(target=db.write, args=(users.meet, "telegram", "2", "Bo", None, AT))
        writer.start()
        writer.join()
        return before, count(session)

    assert db.read(look_twice) == (1, 1)
    assert db.read(count) == 2


def test_a_write_that_raises_leaves_nothing(db: Database) -> None:
    def half(session: Session) -> None:
        users.meet(session, "telegram", "1", "Ann", None, AT)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        db.write(half)
    assert db.read(count) == 0


def test_what_a_read_writes_is_undone(db: Database) -> None:
    db.read(users.meet, "telegram", "1", "Ann", None, AT)
    assert db.read(count) == 0


def test_many_writers_wait_for_each_other(db: Database) -> None:
    def meet_ten(first: int) -> None:
        for number in range(first, first + 10):
            db.write(users.meet, "telegram", str(number), "", None, AT)

    threads = [threading.Thread(target=meet_ten, args=(n * 5,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.read(count) == 45  # the ranges overlap: nobody is met twice


async def test_a_write_whose_caller_is_cancelled_is_kept(db: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(session: Session) -> None:
        users.meet(session, "telegram", "1", "Ann", None, AT)
        begun.set()
        go_on.wait(10)

    task = asyncio.create_task(db.awrite(slowly))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    while await db.aread(count) == 0:
        await asyncio.sleep(0.01)
    assert await db.aread(count) == 1


def test_times_come_back_aware_and_in_utc(db: Database) -> None:
    east = AT.astimezone(timezone(timedelta(hours=8)))
    met = db.write(users.meet, "telegram", "1", "Ann", None, east)
    assert met.created_at == AT
    assert db.read(users.get, met.id).created_at.tzinfo is UTC


def test_a_naive_time_is_refused(db: Database) -> None:
    with pytest.raises(Exception, match="naive"):
        db.write(users.meet, "telegram", "1", "Ann", None, AT.replace(tzinfo=None))


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_names_no_usable_database_is_refused_with_the_fix(url: str) -> None:
    with pytest.raises(BadDatabaseUrl, match="sqlite:///"):
        connect(url)


def test_what_no_database_can_keep_is_kept_as_a_replacement_character(db: Database) -> None:
    """A NUL and half of a surrogate pair: a release that writes bytes may write either."""
    asked = db.write(users.meet, "telegram", "1", "a\0b\ud83dc 😀 \ud83d\ude00", None, AT)
    assert asked.name == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c 😀 😀"
    assert db.read(users.get, asked.id) == asked


@pytest.mark.postgres
def test_a_server_that_is_gone_without_a_word_is_not_waited_for_for_long(postgres_url: str) -> None:
    url = make_url(postgres_url).update_query_dict({"connect_timeout": "5"})
    db = connect(url.render_as_string(hide_password=False))
    with db.engine.connect() as session:
        driven = session.connection.driver_connection
        assert driven is not None
        told = driven.info.get_parameters()
    db.close()
    assert {name: told[name] for name in ("connect_timeout", "keepalives_idle", "tcp_user_timeout")} == {
        "connect_timeout": "5",
        "keepalives_idle": "30",
        "tcp_user_timeout": "60000",
    }
