"""Every row that names a person, of every table: what /export gives, so that nothing that is kept is left out of it.

A table that points to users is reached by that; the others are named here with how they are reached, or as naming
nobody. A table that is neither fails a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, or_, select

from storage import tables as t
from storage import updates
from storage.db import Session
from storage.records import User

Reach = Callable[[User], ColumnElement[bool]]

NAMES_NOBODY = frozenset(
    {
        "artefact",
        "release",
        "run_point",
        "dataset",
        "dataset_example",  # leads to ratings and comparisons, whose rows name them
        "dataset_copy",
        "holding",
    }
)


def _said(user: User) -> Select[tuple[int]]:
    return select(t.message.c.id).where(t.message.c.user_id == user.id)


def _given(user: User) -> Select[tuple[int]]:
    return select(t.answer.c.id).where(t.answer.c.message_id.in_(_said(user)))


# Beside what points to the user itself.
REACHED: Mapping[str, Reach] = {
    "user": lambda user: t.user.c.id == user.id,
    "chat": lambda user: (t.chat.c.channel == user.channel) & (t.chat.c.external_id == user.external_id),
    "update": lambda user: updates.of_person(user.external_id),
    "attachment": lambda user: t.attachment.c.message_id.in_(_said(user)),
    "answer": lambda user: t.answer.c.message_id.in_(_said(user)),
    "delivery": lambda user: t.delivery.c.answer_id.in_(_given(user)),
    "showing": lambda user: t.showing.c.turn_id.in_(select(t.turn.c.id).where(t.turn.c.user_id == user.id)),
    "comparison_offer": lambda user: t.comparison_offer.c.message_id.in_(_said(user)),
    "deployment": lambda user: t.deployment.c.by == f"user {user.id}",
    "run_event": lambda user: t.run_event.c.detail["by"].as_string() == f"user {user.id}",
    "audit": lambda user: t.audit.c.params["user"].as_integer() == user.id,
}


def of_user(session: Session, user: User) -> dict[str, list[dict[str, Any]]]:
    """By table, as plain values; only tables that have any."""
    found = {table.name: list(_rows(session, table, user)) for table in t.metadata.sorted_tables}
    return {name: rows for name, rows in found.items() if rows}


def pointing(table: Table) -> list[Column[Any]]:
    """Its columns that hold a user's id."""
    return [column for column in table.c if any(key.column is t.user.c.id for key in column.foreign_keys)]


def _rows(session: Session, table: Table, user: User) -> Iterator[dict[str, Any]]:
    ways = [column == user.id for column in pointing(table)]
    if table.name in REACHED:
        ways.append(REACHED[table.name](user))
    if not ways:
        return
    order = list(table.primary_key.columns)
    for row in session.execute(select(table).where(or_(*ways)).order_by(*order)).mappings():
        yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value
