"""A copy of the database is the database of one instant, and what is loaded from it is the same, on both engines."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import chats, copies, settings, users
from storage.copies import Copied, CopyFailed
from storage.db import Database, Session, connect
from storage.migrations import is_current
from storage.records import ChatKind
from tests.fakes import postgres

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def people(session: Session, count: int, begin: int = 0) -> None:
    """Each with a chat, in one transaction."""
    for number in range(begin, begin + count):
        users.meet(session, "test", str(number), f"人{number}", None, AT)
        chats.meet(session, "test", str(number), ChatKind.PRIVATE, "", AT)


def url_of(db: Database) -> str:
    return db.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def elsewhere(db: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A place of the same kind, with nothing in it."""
    if not db.is_shared:
        yield f"sqlite:///{tmp_path / 'elsewhere' / 'huigan.db'}"
        return
    with postgres.database(request.getfixturevalue("postgres_url")) as url:
        yield url


def names(url: str) -> list[str]:
    db = connect(url)
    try:
        assert is_current(db)
        with db.engine.connect() as connection:
            return sorted(connection.exec_driver_sql('SELECT name FROM "user"').scalars())
    finally:
        db.close()


def test_what_is_loaded_elsewhere_is_what_was_there(db: Database, elsewhere: str, tmp_path: Path) -> None:
    db.write(people, 3)
    copied = copies.take(db, tmp_path / "copy")
    assert (copied.counts["user"], copied.counts["chat"], copied.counts["rating"]) == (3, 3, 0)
    assert copies.prove(db, tmp_path / "copy", copied, tmp_path / "proof")
    assert copies.is_empty(elsewhere)
    assert copies.load(elsewhere, tmp_path / "copy", copied, AT) is None
    assert names(elsewhere) == ["人0", "人1", "人2"]
    assert not copies.is_empty(elsewhere)


def test_a_loaded_copy_can_be_written_on(db: Database, elsewhere: str, tmp_path: Path) -> None:
    db.write(people, 3)
    copies.load(elsewhere, tmp_path / "copy", copies.take(db, tmp_path / "copy"), AT)
    opened = connect(elsewhere)
    opened.write(people, 2, 3)  # ids go on where they were
    opened.close()
    assert len(names(elsewhere)) == 5


def test_loading_replaces_what_was_there_whole(db: Database, elsewhere: str, tmp_path: Path) -> None:
    db.write(people, 3)
    before = copies.take(db, tmp_path / "before")
    db.write(people, 4, 3)
    copies.load(elsewhere, tmp_path / "after", copies.take(db, tmp_path / "after"), AT)
    kept = copies.load(elsewhere, tmp_path / "before", before, AT)
    assert len(names(elsewhere)) == 3
    if kept is not None:
        assert len(names(f"sqlite:///{kept}")) == 7
    else:
        assert db.is_shared


def test_a_copy_is_of_one_instant_while_others_write(db: Database, elsewhere: str, tmp_path: Path) -> None:
    """Each transaction writes a user and a chat: a copy that has one without the other is of no instant."""
    stop, written = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            db.write(people, 1, written[0])
            written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            while written[0] < 20 * (number + 1):
                pass
            file = tmp_path / f"copy-{number}"
            copied = copies.take(db, file)
            assert copied.counts["user"] == copied.counts["chat"] > 0
            copies.load(elsewhere, file, copied, AT.replace(second=number))
            assert len(names(elsewhere)) == copied.counts["user"]
    finally:
        stop.set()
        writer.join()


def test_a_damaged_copy_is_named_and_changes_nothing(db: Database, elsewhere: str, tmp_path: Path) -> None:
    db.write(people, 3)
    file = tmp_path / "copy"
    copied = copies.take(db, file)
    copies.load(elsewhere, file, copied, AT)
    lacking = Copied(copied.dialect, copied.revision, {**copied.counts, "user": 4})
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    for bad, said in ((file, lacking), (cut, copied)):
        with pytest.raises(CopyFailed) as failed:
            copies.load(elsewhere, bad, said, AT)
        assert failed.value.code in {"damaged", "load_failed"}
        with pytest.raises(CopyFailed):
            copies.prove(db, bad, said, tmp_path / "proof")
    assert len(names(elsewhere)) == 3


def test_a_copy_of_the_one_kind_is_not_loaded_into_the_other(sqlite_db: Database, tmp_path: Path) -> None:
    copied = copies.take(sqlite_db, tmp_path / "copy")
    with pytest.raises(CopyFailed, match="other_database"):
        copies.load("postgresql://nobody@127.0.0.1:9/x", tmp_path / "copy", copied, AT)


@pytest.mark.postgres
def test_a_server_s_database_that_somebody_is_connected_to_is_left_alone(
    migrated_postgres: str, postgres_url: str, tmp_path: Path
) -> None:
    with postgres.database(postgres_url, template=migrated_postgres) as url:
        bot = connect(url)
        copied = copies.take(bot, tmp_path / "copy")
        bot.write(people, 1)
        with pytest.raises(CopyFailed, match="in_use"):
            copies.load(url, tmp_path / "copy", copied, AT)
        bot.close()
        copies.load(url, tmp_path / "copy", copied, AT)
        assert names(url) == []


def test_a_database_that_is_in_use_is_left_alone(sqlite_db: Database, tmp_path: Path) -> None:
    sqlite_db.write(people, 3)
    copied = copies.take(sqlite_db, tmp_path / "copy")
    sqlite_db.write(people, 1, 3)
    with pytest.raises(CopyFailed, match="in_use"):
        copies.load(url_of(sqlite_db), tmp_path / "copy", copied, AT)
    assert len(names(url_of(sqlite_db))) == 4
    assert [each.name for each in tmp_path.glob("*restoring*")] == []


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"no database"), lambda file: file.write_bytes(b"")])
def test_what_is_no_database_any_more_is_replaced_and_kept(
    sqlite_db: Database, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    sqlite_db.write(people, 3)
    copied = copies.take(sqlite_db, tmp_path / "copy")
    bad = tmp_path / "bad.db"
    spoil(bad)
    Path(f"{bad}-wal").write_bytes(b"of the old one")
    kept = copies.load(f"sqlite:///{bad}", tmp_path / "copy", copied, AT)
    assert kept is not None
    assert kept.stat().st_size < 100
    assert len(names(f"sqlite:///{bad}")) == 3


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """As the first version left it: with the first tables alone."""
    from alembic import command

    from storage.migrations import _config

    old = connect(f"sqlite:///{tmp_path / 'old.db'}")
    with old.engine.connect() as connection, connection.begin():
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with closing(sqlite3.connect(tmp_path / "old.db")) as opened:
        opened.execute(
            "INSERT INTO user (channel, external_id, name, role, created_at) "
            "VALUES ('telegram', '1', '老用户', 'user', '2026-01-01 00:00:00')"
        )
        opened.commit()
    copied = copies.take(old, tmp_path / "copy")
    old.close()
    assert copied.revision == "0001"
    copies.load(f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "copy", copied, AT)
    assert names(f"sqlite:///{tmp_path / 'new.db'}") == ["老用户"]


def test_a_database_with_the_programs_own_rows_alone_is_empty(db: Database) -> None:
    db.write(settings.put, "schedules_looked", True, None, AT)
    assert copies.is_empty(url_of(db))
    db.write(people, 1)
    assert not copies.is_empty(url_of(db))


def test_tools_that_are_missing_are_named(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if not db.is_shared:
        assert copies.take(db, tmp_path / "copy").dialect == "sqlite"
        return
    with pytest.raises(CopyFailed, match="no_tool") as failed:
        copies.take(db, tmp_path / "copy")
    assert failed.value.params == {"tool": "pg_dump"}
