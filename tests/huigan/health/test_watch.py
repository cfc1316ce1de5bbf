"""Alerts on a real database: told once by however many who look, over restarts, in the words of who reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.notices import words
from huigan.health import watch
from huigan.health.conditions import Condition, Facts, Machine, judge
from huigan.operate import timetable, workers
from huigan.serving.client import Ollama
from storage import alerts, outbox, runs, settings
from storage.db import Database, Session, connect
from storage.records import Notice, RunState
from tests.fakes.ollama import FakeOllama

AT = datetime.now(UTC).replace(microsecond=0)  # a database server goes by its own clock
LOW = Condition("disk_low:1", "disk_low", {"host": "lab", "free": 1.5, "total": 100})


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        yield running


def minutes(count: float) -> datetime:
    return AT + timedelta(minutes=count)


def put(db: Database) -> list[Notice]:
    return db.read(outbox.unsent)


def said(db: Database) -> list[tuple[str, str]]:
    return [(each.code, str(each.params["condition"])) for each in put(db)]


def look(db: Database, client: Ollama, home: Path, at: datetime) -> None:
    watch.look(db, client, home, at)


def test_an_ollama_that_goes_and_comes_back_is_told_twice_in_all(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    well, away = Ollama(fake.host, timeout_seconds=5), Ollama("127.0.0.1:9", timeout_seconds=5)
    look(sqlite_db, well, tmp_path, AT)
    assert sqlite_db.read(alerts.standing) == []
    for minute in range(10):
        look(sqlite_db, away, tmp_path, minutes(minute))
    assert said(sqlite_db) == [("alert_raised", "ollama_away")]
    for minute in range(10, 20):
        look(sqlite_db, well, tmp_path, minutes(minute))
    assert said(sqlite_db) == [("alert_raised", "ollama_away"), ("alert_mended", "ollama_away")]
    assert sqlite_db.read(alerts.standing) == []


def test_what_stands_and_was_told_is_known_after_a_restart(db: Database) -> None:
    db.write(watch.tell, {LOW.key: LOW}, AT)
    again = connect(db.engine.url.render_as_string(hide_password=False))
    again.write(watch.tell, {LOW.key: LOW}, minutes(5))
    [standing] = again.read(alerts.standing)
    again.close()
    assert (standing.code, standing.told_at, standing.params["free"]) == ("disk_low", AT, 1.5)
    assert len(put(db)) == 1


def test_however_many_look_at_once_it_is_told_once(db: Database) -> None:
    gate = threading.Barrier(4)

    def looking() -> None:
        for minute in range(12):
            gate.wait()
            db.write(watch.tell, {LOW.key: LOW if minute < 4 else None, "clock_off": None}, minutes(minute))

    threads = [threading.Thread(target=looking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said(db) == [("alert_raised", "disk_low"), ("alert_mended", "disk_low")]
    assert db.read(alerts.standing) == []


def test_those_who_begin_one_at_the_same_instant_tell_it_once(db: Database) -> None:
    gate = threading.Barrier(4)

    def begin() -> None:
        gate.wait()
        db.write(watch.tell, {LOW.key: LOW}, AT)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said(db) == [("alert_raised", "disk_low")]


def test_who_sees_another_disk_mends_none_but_its_own(db: Database) -> None:
    db.write(watch.tell, {LOW.key: LOW}, AT)
    for minute in range(20):
        db.write(watch.tell, {"disk_low:2": None}, minutes(minute))
    assert [each.key for each in db.read(alerts.standing)] == [LOW.key]


def test_what_one_machine_sees_is_told_though_another_sees_nothing(sqlite_db: Database) -> None:
    ahead = Facts(AT, Machine("a", "lab"), is_ollama_well=False, clock_off_seconds=90.0)
    well = Facts(AT, Machine("b", "gpu"), is_ollama_well=True)
    for minute in range(6):
        for facts in (ahead, well):
            sqlite_db.write(watch.tell, judge(facts), minutes(minute / 2))
            sqlite_db.write(watch.forget, minutes(minute / 2))
    assert said(sqlite_db) == [("alert_raised", "clock_off"), ("alert_raised", "ollama_away")]
    assert {each.params["host"] for each in put(sqlite_db)} == {"lab"}


def test_what_nobody_looks_at_any_more_is_forgotten_and_what_somebody_does_is_not(sqlite_db: Database) -> None:
    gone = Condition("clock_off:a", "clock_off", {"host": "lab", "seconds": 90})
    sqlite_db.write(watch.tell, {gone.key: gone, LOW.key: LOW}, AT)
    for minute in range(1, 63):
        sqlite_db.write(watch.tell, {LOW.key: LOW}, minutes(minute))
        sqlite_db.write(watch.forget, minutes(minute))
        assert len(sqlite_db.read(alerts.standing)) == 2 - (minute > 60)
    assert [each.key for each in sqlite_db.read(alerts.standing)] == [LOW.key]
    assert ("alert_mended", "clock_off") not in said(sqlite_db), "nobody knows"


@pytest.mark.parametrize("db", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
@pytest.mark.parametrize("ahead", [timedelta(days=-2), timedelta(days=365)])
def test_a_machine_whose_clock_is_far_off_is_not_taken_for_one_that_is_gone(db: Database, ahead: timedelta) -> None:
    wrong = Condition("clock_off:a", "clock_off", {"host": "lab", "seconds": round(ahead.total_seconds())})
    for minute in range(3):
        db.write(watch.tell, {wrong.key: wrong}, minutes(minute) + ahead)
        db.write(watch.forget, minutes(minute))
    assert said(db) == [("alert_raised", "clock_off")]


def fail(session: Session, times: int, state: RunState = RunState.FAILED) -> None:
    for _ in range(times):
        runs.enqueue(session, "default", {}, "test", AT)
        claimed = runs.claim(session, "gpu", AT)
        assert claimed is not None
        runs.move(session, claimed.id, claimed.attempt, RunState.RUNNING, state, AT)


def test_everything_that_the_database_tells_is_seen(db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    client = Ollama(fake.host, timeout_seconds=5)
    db.write(workers.mark_seen, "gpu:1", minutes(-10))
    db.write(timetable.mark_looked, minutes(-10))
    db.write(fail, 2)
    db.write(outbox.put, "run_failed", {"run": 1}, minutes(-120))
    db.write(settings.put, "backup_made", {"failed_at": AT.isoformat()}, None, AT)
    for minute in (0, 3):
        watch.look(db, client, tmp_path, minutes(minute), backups_kept=7)
    found = {code for word, code in said_of(db) if word == "alert_raised"}
    expected = {"trainer_lost", "schedules_lost", "runs_failing", "notices_late", "backup_failed"}
    assert found - {"disk_low", "clock_off"} == expected
    db.write(fail, 1, RunState.REJECTED)
    for minute in (4, 10):
        watch.look(db, client, tmp_path, minutes(minute), backups_kept=7)
    assert ("alert_mended", "runs_failing") in said_of(db)


def said_of(db: Database) -> list[tuple[str, str]]:
    return [(each.code, str(each.params["condition"])) for each in put(db) if "condition" in each.params]


def test_a_clock_that_went_back_is_seen_by_what_was_written_before(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    client = Ollama(fake.host, timeout_seconds=5)
    sqlite_db.write(timetable.mark_looked, minutes(60))
    for minute in (0, 3):
        look(sqlite_db, client, tmp_path, minutes(minute))
    assert ("alert_raised", "clock_off") in said(sqlite_db)


def test_a_database_that_is_away_ends_nothing(tmp_path: Path) -> None:
    gone = connect("postgresql://nobody@127.0.0.1:9/x")
    watch.look(gone, None, tmp_path, AT)
    gone.close()


@pytest.mark.parametrize(
    ("locale", "code", "expected"),
    [
        ("en", "alert_raised", "⚠️ The disk of lab has only 1.5 GB left of 100 GB. Free some space"),
        ("en", "alert_mended", "✅ Well again: the disk of lab"),
        ("zh-Hans", "alert_still", "⚠️ 已经 2 天了，还没有解决：lab 的磁盘只剩 1.5 GB"),
        ("zh-Hant", "alert_mended", "✅ 恢復正常：磁碟（lab）"),
    ],
)
def test_an_admin_reads_what_is_wrong_and_what_to_do(locale: str, code: str, expected: str) -> None:
    params = {**LOW.params, "condition": "disk_low", "days": 2}
    assert words(Notice(1, code, params), locale).startswith(expected)
