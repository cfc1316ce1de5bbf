"""What an admin set, which beats the environment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from storage.records import Setting
from storage.rows import as_record, first, put_row
from storage.tables import setting


def get(session: Session, key: str) -> Setting | None:
    return first(session, Setting, select(setting).where(setting.c.key == key))


def many(session: Session, keys: Iterable[str]) -> dict[str, Setting]:
    """By key, those that are set."""
    rows = session.execute(select(setting).where(setting.c.key.in_(sorted(set(keys)))))
    return {row.key: as_record(Setting, row) for row in rows}


def put(session: Session, key: str, value: Any, by_user_id: int | None, at: datetime) -> Setting:
    return put_row(session, Setting, setting, "key", key=key, value=value, by_user_id=by_user_id, set_at=at)


def drop(session: Session, key: str) -> None:
    """Does nothing where nothing was set."""
    session.execute(delete(setting).where(setting.c.key == key))
