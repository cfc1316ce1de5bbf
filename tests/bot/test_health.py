"""/health tells, in each language, what admins were alerted to and since when, and of the last backup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bot.health import of_database
from bot.status import time_of
from huigan.health import watch
from huigan.health.conditions import CALM, Condition
from huigan.operate import backups
from huigan.texts import LOCALES, text
from storage import settings
from storage.copies import CopyFailed
from storage.db import Database

AT = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
LOW = Condition("disk_low:1", "disk_low", {"host": "lab", "free": 2, "total": 100})


def minutes(count: float) -> datetime:
    return AT + timedelta(minutes=count)


@pytest.mark.parametrize("locale", LOCALES)
def test_what_admins_were_alerted_to_is_told_with_its_time_until_it_is_mended(sqlite_db: Database, locale: str) -> None:
    def shown(at: datetime) -> str:
        return sqlite_db.read(of_database, locale, at)[-1]

    since = text(locale, "health.alert", since=time_of(AT), what=text(locale, "condition.disk_low", **LOW.params))
    assert shown(AT) != since
    sqlite_db.write(watch.tell, {LOW.key: LOW}, AT)
    sqlite_db.write(watch.tell, {LOW.key: LOW}, minutes(90))
    assert shown(minutes(90)) == since
    sqlite_db.write(watch.tell, {LOW.key: None}, minutes(91))
    assert shown(minutes(91)) != since, "it is not wrong now, if perhaps again soon"
    sqlite_db.write(watch.tell, {LOW.key: None}, minutes(91) + CALM)
    assert shown(minutes(99)) != since


def test_what_admins_were_not_told_of_yet_is_no_alert(sqlite_db: Database) -> None:
    away = Condition("ollama_away:1", "ollama_away", {"host": "lab"})
    sqlite_db.write(watch.tell, {away.key: away}, AT)
    words = text("en", "condition.ollama_away", host="lab")
    assert words not in "\n".join(sqlite_db.read(of_database, "en", AT))
    sqlite_db.write(watch.tell, {away.key: away}, minutes(2))
    assert words in "\n".join(sqlite_db.read(of_database, "en", minutes(2)))


@pytest.mark.parametrize("locale", LOCALES)
def test_the_last_backup_is_told_or_that_there_is_none_or_that_a_later_one_failed(
    sqlite_db: Database, locale: str
) -> None:
    def shown() -> str:
        return sqlite_db.read(of_database, locale, minutes(60))[-1]

    assert shown() == f"✗ {text(locale, 'health.no_backup')}"
    sqlite_db.write(settings.put, backups.MADE_KEY, {"made_at": AT.isoformat()}, None, AT)
    made = text(locale, "health.backup", made=time_of(AT))
    assert shown() == f"✓ {made}"
    sqlite_db.write(backups.note_failure, CopyFailed("disk_full"), minutes(30))
    assert shown() == f"✗ {made}"
