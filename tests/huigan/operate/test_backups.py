"""Backups: proved, kept, complete, without secrets; what is put back is what was there; no kill leaves half a one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from huigan.operate import backups
from huigan.operate.backups import Backup, Last
from schedules import nightly
from storage import settings, users
from storage.copies import CopyFailed
from storage.db import Database, connect
from storage.records import Release

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[3]


def make(db: Database, folder: Path, at: datetime = AT, **given: Any) -> Backup:
    how: dict[str, Any] = {"keep": 0, "recipes": (), "environment": {}, "version": "0.1.0"}
    return backups.make(db, folder, **{**how, **given}, at=at)


def meet(db: Database, name: str) -> None:
    db.write(users.meet, "test", name, name, None, AT)


def url_of(db: Database) -> str:
    return db.engine.url.render_as_string(hide_password=False)


def names(url: str) -> list[str]:
    opened = connect(url)
    try:
        with opened.engine.connect() as connection:
            return sorted(connection.exec_driver_sql('SELECT name FROM "user"').scalars())
    finally:
        opened.close()


def test_an_archive_holds_the_database_recipes_settings_and_what_is_live(
    db: Database, base: Release, tmp_path: Path
) -> None:
    recipe = tmp_path / "ours.toml"
    recipe.write_text('name = "ours"\n')
    made = make(db, tmp_path / "backups", recipes=[recipe, tmp_path / "gone.jsonl"], environment={"home": "/srv"})
    assert made.is_proved
    assert made.copied.counts["release"] == 1
    with tarfile.open(made.file) as archive:
        held = {each.name: archive.extractfile(each) for each in archive if each.isfile()}
        assert set(held) >= {"manifest.json", "environment.json", "live.json", "recipes/ours.toml"}
        live = json.loads(held["live.json"].read())  # type: ignore[union-attr]
    assert live["release"]["tag"] == base.tag
    assert live["artefact"]["weights"] == "/weights"
    assert made.file.stat().st_mode & 0o077 == 0
    assert sorted(each.name for each in (tmp_path / "backups").iterdir()) == [".making.lock", made.file.name]
    assert backups.listed(tmp_path / "backups") == [made]


def test_what_was_backed_up_comes_back_and_what_came_later_is_replaced_only_by_force(
    db: Database, tmp_path: Path
) -> None:
    meet(db, "a")
    made = make(db, tmp_path / "backups")
    meet(db, "b")
    url = url_of(db)
    db.engine.dispose()
    with pytest.raises(CopyFailed, match="not_empty"):
        backups.restore(url, made.file, tmp_path, force=False, at=AT)
    assert names(url) == ["a", "b"]
    done = backups.restore(url, made.file, tmp_path, force=True, at=AT)
    assert names(url) == ["a"]
    assert (done.beside / "environment.json").is_file()
    assert not any("database" in each.name for each in done.beside.iterdir())
    if done.kept is not None:
        assert names(f"sqlite:///{done.kept}") == ["a", "b"]


def test_only_the_newest_are_kept_and_what_is_none_of_ours_stays(sqlite_db: Database, tmp_path: Path) -> None:
    other = tmp_path / "huigan-notes.txt"
    other.write_text("mine")
    made = [make(sqlite_db, tmp_path, AT + timedelta(days=day), keep=2) for day in range(4)]
    assert [each.file for each in backups.listed(tmp_path)] == [made[3].file, made[2].file]
    assert other.exists()


def test_those_of_a_clock_that_was_ahead_push_none_out(sqlite_db: Database, tmp_path: Path) -> None:
    ahead = [make(sqlite_db, tmp_path, AT + timedelta(days=365 + day), keep=2) for day in range(2)]
    made = make(sqlite_db, tmp_path, AT, keep=2)
    assert {each.file for each in backups.listed(tmp_path)} == {ahead[1].file, made.file}


def test_an_archive_that_was_changed_or_cut_is_refused(sqlite_db: Database, tmp_path: Path) -> None:
    meet(sqlite_db, "a")
    made = make(sqlite_db, tmp_path / "backups")
    target = f"sqlite:///{tmp_path / 'new.db'}"
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(made.file.read_bytes()[:-200])
    for bad, code in ((cut, "damaged"), (tmp_path / "nothing", "no_such_file"), (Path(__file__), "no_backup")):
        with pytest.raises(CopyFailed) as failed:
            backups.restore(target, bad, tmp_path, force=False, at=AT)
        assert failed.value.code == code
    changed = tmp_path / "changed.tar.gz"
    with tarfile.open(made.file) as source, tarfile.open(changed, "w:gz") as copy:
        for member in source:
            held = source.extractfile(member)
            if member.name == "live.json":
                (tmp_path / "live.json").write_text("{}")
                copy.add(tmp_path / "live.json", "live.json")
            else:
                copy.addfile(member, held)
    with pytest.raises(CopyFailed, match=r"live\.json"):
        backups.restore(target, changed, tmp_path, force=False, at=AT)
    assert not (tmp_path / "new.db").exists()


def test_a_backup_of_a_newer_version_is_refused_before_anything_is_touched(sqlite_db: Database, tmp_path: Path) -> None:
    with sqlite_db.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    made = make(sqlite_db, tmp_path / "backups")
    with pytest.raises(CopyFailed, match="newer"):
        backups.restore(f"sqlite:///{tmp_path / 'new.db'}", made.file, tmp_path, force=True, at=AT)
    assert not (tmp_path / "new.db").exists()


def test_an_older_database_is_backed_up_before_it_is_migrated_and_one_without_tables_is_told(tmp_path: Path) -> None:
    from alembic import command

    from storage.migrations import _config

    old = connect(f"sqlite:///{tmp_path / 'old.db'}")
    with pytest.raises(CopyFailed, match="no_tables"):
        make(old, tmp_path / "backups")
    with old.engine.connect() as connection, connection.begin():
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    made = make(old, tmp_path / "backups")
    old.close()
    assert (made.copied.revision, made.is_proved) == ("0001", True)


def test_two_at_once_are_one_and_a_refusal(sqlite_db: Database, tmp_path: Path) -> None:
    with backups._alone(tmp_path), pytest.raises(CopyFailed, match="under_way"):
        make(sqlite_db, tmp_path)
    assert make(sqlite_db, tmp_path).is_proved


def test_a_folder_that_cannot_be_written_is_named(sqlite_db: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CopyFailed, match="copy_failed"):
        make(sqlite_db, tmp_path / "file" / "backups")


def test_a_full_disk_is_told_as_such_and_leaves_the_earlier_ones(
    sqlite_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0 or not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    made = make(sqlite_db, tmp_path)

    def into_a_full_disk(file: Path, contents: object) -> None:
        file.symlink_to("/dev/full")
        with file.open("wb") as opened:
            opened.write(b"x" * 100_000)

    monkeypatch.setattr(backups, "_pack", into_a_full_disk)
    with pytest.raises(CopyFailed, match="disk_full"):
        make(sqlite_db, tmp_path, AT + timedelta(days=1))
    assert [each.file for each in backups.listed(tmp_path)] == [made.file]
    assert not (tmp_path / ".making").exists()


SCRIPT = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from huigan.operate import backups
from storage.db import connect
db, at = connect(sys.argv[1]), datetime(2027, 1, 1, tzinfo=UTC)
for number in range(10_000):
    how = {"keep": 3, "recipes": (), "environment": {}, "version": "1"}
    backups.make(db, Path(sys.argv[2]), **how, at=at + timedelta(hours=number))
"""


def test_killed_at_any_instant_every_archive_is_whole_and_the_next_clears_up(db: Database, tmp_path: Path) -> None:
    meet(db, "a")
    folder = tmp_path / "backups"
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url_of(db), str(folder)], cwd=REPOSITORY, start_new_session=True
        )
        until = time.monotonic() + 30
        while not (folder / ".making").exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.037 * number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = sorted(folder.glob(backups.NAMES))
        assert [backups.read(each).is_proved for each in found] == [True] * len(found)
    made = make(db, folder, datetime(2028, 1, 1, tzinfo=UTC), keep=1)
    assert sorted(each.name for each in folder.iterdir()) == [".making.lock", made.file.name]


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("made_at", "failed_at", "now", "due"),
    [
        (None, None, at(24, 12), True),
        (at(24, 4), None, at(24, 12), False),
        (at(23, 12), None, at(24, 3, 59), False),
        (at(23, 12), None, at(24, 4), True),
        (at(20, 12), None, at(24, 2), True),
        (at(23, 4), at(24, 4), at(24, 4, 30), False),
        (at(23, 4), at(24, 4), at(24, 5), True),
        (at(23, 4), at(25, 4), at(24, 5), True),  # the clock went back
        (at(24, 5, 1), None, at(24, 5), False),  # another machine's is a minute ahead
    ],
)
def test_one_is_due_once_after_each_night_and_again_an_hour_after_it_failed(
    made_at: datetime | None, failed_at: datetime | None, now: datetime, due: bool
) -> None:
    assert nightly.due(Last(made_at, failed_at, None), now, UTC) == due


def test_one_that_a_clock_which_was_ahead_has_dated_counts_for_none(db: Database, tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + timedelta(days=365)
    make(db, tmp_path, ahead, keep=2)
    looks: list[datetime] = []

    def makes(at: datetime) -> Backup:
        looks.append(at)
        return make(db, tmp_path, at, keep=2)

    right = ahead - timedelta(days=365)
    nightly.look(db, "a", makes, right, UTC)
    nightly.look(db, "a", makes, right + timedelta(minutes=1), UTC)
    assert looks == [right]


def test_nights_pass_and_what_fails_is_noted_until_one_is_made(db: Database, tmp_path: Path) -> None:
    def fails(_at: datetime) -> Backup:
        raise CopyFailed("disk_full", folder="/x")

    nightly.look(db, "a", fails, AT, UTC)
    noted = db.read(backups.last)
    assert (noted.made_at, noted.failed_at, noted.error) == (None, AT, {"code": "disk_full", "folder": "/x"})
    made: list[datetime] = []

    def makes(at: datetime) -> Backup:
        made.append(at)
        return make(db, tmp_path, at, keep=2)

    for hours in range(1, 72):
        nightly.look(db, "a", makes, AT + timedelta(hours=hours), UTC)
    assert [each.hour for each in made] == [9, 4, 4, 4][: len(made)]
    assert len(made) == 4
    assert db.read(backups.last) == Last(made[-1], None, None)
    assert db.read(settings.get, "lease:backup") is not None


def test_of_two_processes_one_makes_it(db: Database, tmp_path: Path) -> None:
    made: list[str] = []

    def by(worker: str) -> Any:
        def makes(at: datetime) -> Backup:
            made.append(worker)
            nightly.look(db, "b" if worker == "a" else "a", by("b" if worker == "a" else "a"), at, UTC)
            return make(db, tmp_path, at)

        return makes

    nightly.look(db, "a", by("a"), AT, UTC)
    nightly.look(db, "b", by("b"), AT, UTC)
    assert made == ["a"]
