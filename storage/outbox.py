"""Notices that the bot is to send: codes with parameters, put where the news arises, sent wherever a bot lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import Notice
from storage.rows import IDS_A_QUERY, add_once, every
from storage.tables import outbox

_unsent = outbox.c.sent_at.is_(None) & outbox.c.code.not_in(bindparam("but", expanding=True))
COUNT_UNSENT = select(func.count()).select_from(outbox).where(_unsent)
UNSENT_SINCE = select(func.min(outbox.c.created_at)).where(_unsent)


def put(
    session: Session,
    code: str,
    params: Mapping[str, Any],
    at: datetime,
    *,
    user_id: int | None = None,
    key: str | None = None,
) -> Notice | None:
    """For one user, or for every admin. With a `key`, the same notice is put once: None the second time."""
    return add_once(session, Notice, outbox, code=code, params=dict(params), user_id=user_id, key=key, created_at=at)


def put_to_each(session: Session, code: str, params: Mapping[str, Any], at: datetime, keys: Mapping[int, str]) -> None:
    """The same to many users, by their ids with a key for each. Raises IntegrityError where one is there already."""
    rows = [
        {"code": code, "params": dict(params), "user_id": user_id, "key": key, "created_at": at}
        for user_id, key in keys.items()
    ]
    for start in range(0, len(rows), IDS_A_QUERY):
        session.execute(insert(outbox), rows[start : start + IDS_A_QUERY])


def unsent(session: Session, limit: int = 50, *, only: str | None = None, but: Sequence[str] = ()) -> list[Notice]:
    """Oldest first: `only` of one code, or all `but` those of some."""
    query = select(outbox).where(outbox.c.sent_at.is_(None))
    if only is not None:
        query = query.where(outbox.c.code == only)
    if but:
        query = query.where(outbox.c.code.not_in(but))
    return every(session, Notice, query.order_by(outbox.c.id).limit(limit))


def count_unsent(session: Session, *, but: Sequence[str] = ()) -> int:
    return session.scalar(COUNT_UNSENT, {"but": but}) or 0


def unsent_since(session: Session, *, but: Sequence[str] = ()) -> datetime | None:
    """When the oldest of them was put."""
    since: datetime | None = session.scalar(UNSENT_SINCE, {"but": but})
    return since


def count_by_fate(session: Session, key_prefix: str) -> dict[str, int]:
    """Of the notices whose key begins so: how many are `unsent`, `sent`, or why they never reached their user."""
    found = session.execute(
        select(outbox.c.sent_at.is_(None), outbox.c.undeliverable, func.count())
        .where(outbox.c.key.startswith(key_prefix, autoescape=True))
        .group_by(outbox.c.sent_at.is_(None), outbox.c.undeliverable)
    )
    return {"unsent" if is_unsent else why or "sent": count for is_unsent, why, count in found}


def mark_sent(session: Session, notice_id: int, at: datetime) -> None:
    session.execute(sql_update(outbox).where(outbox.c.id == notice_id).values(sent_at=at))


def give_up(session: Session, notice_id: int, why: str, at: datetime) -> None:
    """It never reaches its user."""
    session.execute(sql_update(outbox).where(outbox.c.id == notice_id).values(sent_at=at, undeliverable=why))


def take(session: Session, notice_id: int, why: str, at: datetime) -> bool:
    """Give it up before it is sent: a kill then leaves it so. False where it is not there to be sent any more."""
    taken = session.execute(
        sql_update(outbox)
        .where(outbox.c.id == notice_id, outbox.c.sent_at.is_(None))
        .values(sent_at=at, undeliverable=why)
        .returning(outbox.c.id)
    )
    return taken.first() is not None


def put_back(session: Session, notice_id: int) -> None:
    """It was taken, and is still to be sent."""
    session.execute(sql_update(outbox).where(outbox.c.id == notice_id).values(sent_at=None, undeliverable=None))


def mark_reached(session: Session, notice_id: int, at: datetime) -> None:
    """It was taken, and has reached its user."""
    session.execute(sql_update(outbox).where(outbox.c.id == notice_id).values(sent_at=at, undeliverable=None))


def withdraw(session: Session, key_prefix: str, why: str, at: datetime) -> int:
    """Send none of those that are not sent yet. Returns how many."""
    gone = session.execute(
        sql_update(outbox)
        .where(outbox.c.key.startswith(key_prefix, autoescape=True), outbox.c.sent_at.is_(None))
        .values(sent_at=at, undeliverable=why)
        .returning(outbox.c.id)
    )
    return len(gone.all())
