"""What an admin set, which beats the environment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, select

from storage.db import Session
from storage.records import Setting
from storage.rows import every, first, put_row
from storage.tables import setting

OF_KEY = select(setting).where(setting.c.key == bindparam("key"))
OF_KEYS = select(setting).where(setting.c.key.in_(bindparam("keys", expanding=True)))


def get(session: Session, key: str) -> Setting | None:
    return first(session, Setting, OF_KEY, key=key)


def many(session: Session, keys: Iterable[str]) -> dict[str, Setting]:
    """By key, those that are set."""
    return {each.key: each for each in every(session, Setting, OF_KEYS, keys=sorted(set(keys)))}


def put(session: Session, key: str, value: Any, by_user_id: int | None, at: datetime) -> Setting:
    return put_row(session, Setting, setting, "key", key=key, value=value, by_user_id=by_user_id, set_at=at)


def drop(session: Session, key: str) -> None:
    """Does nothing where nothing was set."""
    session.execute(delete(setting).where(setting.c.key == key))
