"""Whose words and judgements each example of a data set holds: how what somebody takes back is found again.

A row goes when its example is in none of the data set's files any more, so the table says what the files hold; all of
a data set's go once nothing is left that was made of it (`huigan.operate.lineage`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Select, delete, insert, select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.rows import chunks
from storage.tables import dataset_person

_withdrawn = dataset_person.c.withdrawn_at.is_not(None)


def add(session: Session, dataset_id: int, people: Iterable[tuple[str, int]]) -> None:
    """(example, user id) of each, once a data set."""
    known = session.execute(select(dataset_person.c.id).where(dataset_person.c.dataset_id == dataset_id).limit(1))
    rows = [{"dataset_id": dataset_id, "example": example, "user_id": user_id} for example, user_id in people]
    if rows and known.first() is None:
        session.execute(insert(dataset_person), rows)


def withdraw(session: Session, user_id: int, at: datetime) -> list[int]:
    """Everything of theirs is taken back. Gives the data sets that hold some of it."""
    mine = dataset_person.c.user_id == user_id
    changed = sql_update(dataset_person).where(mine, ~_withdrawn).values(withdrawn_at=at)
    return sorted(set(session.scalars(changed.returning(dataset_person.c.dataset_id))))


def unname(session: Session, user_id: int) -> None:
    """What they have taken back is nobody's from now on."""
    mine = dataset_person.c.user_id == user_id
    session.execute(sql_update(dataset_person).where(mine).values(user_id=None))


def withdrawn(session: Session, dataset_id: int) -> dict[str, datetime]:
    """The examples that are to go, each with when it was last taken back."""
    query = select(dataset_person.c.example, dataset_person.c.withdrawn_at)
    rows = session.execute(query.where(dataset_person.c.dataset_id == dataset_id, _withdrawn))
    found: dict[str, datetime] = {}
    for example, at in rows:
        found[example] = max(at, found.get(example, at))
    return found


def with_withdrawn() -> Select[tuple[int]]:
    """The data sets that have examples which are to go."""
    return select(dataset_person.c.dataset_id).where(_withdrawn)


def let_go(session: Session, dataset_id: int) -> None:
    """Of all of its examples."""
    session.execute(delete(dataset_person).where(dataset_person.c.dataset_id == dataset_id))


def forget(session: Session, dataset_id: int, examples: Iterable[str]) -> None:
    """They are in no file of that data set any more."""
    of_it = delete(dataset_person).where(dataset_person.c.dataset_id == dataset_id)
    for some in chunks(examples):
        session.execute(of_it.where(dataset_person.c.example.in_(some)))
