"""What people take back: whose words each example holds, where data sets lie, and which runs hold what

Revises 0003. Of data sets that were made before, whose words they hold is gathered from the rows behind them. An
example that no row is behind any more is somebody's who was forgotten: it is taken back now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

T = TypeVar("T")
READ = [
    *("dataset", "dataset_example", "dataset_person", "dataset_copy", "holding"),
    *("rating", "comparison", "answer", "message", "run"),
]
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("run", sa.Column("continues_run_id", ID, nullable=True))
    op.create_table(
        "dataset_person",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("dataset_id", ID, nullable=False),
        sa.Column("example", sa.String(length=64), nullable=False),
        sa.Column("user_id", ID, nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_dataset_person_dataset_id")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_dataset_person_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_person")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_dataset_person_dataset_id"), "dataset_person", ["dataset_id"], unique=False)
    op.create_index(op.f("ix_dataset_person_user_id"), "dataset_person", ["user_id"], unique=False)
    op.create_table(
        "dataset_copy",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("dataset_id", ID, nullable=False),
        sa.Column("disk", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_dataset_copy_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_copy")),
        sa.UniqueConstraint("dataset_id", "disk", "path", name=op.f("uq_dataset_copy_dataset_id_disk_path")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_dataset_copy_dataset_id"), "dataset_copy", ["dataset_id"], unique=False)
    op.create_table(
        "holding",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("since_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_holding_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holding")),
        sa.UniqueConstraint("run_id", name=op.f("uq_holding_run_id")),
        sqlite_autoincrement=True,
    )
    gather(op.get_bind(), datetime.now(UTC))


def gather(db: sa.Connection, at: datetime) -> None:
    tables = sa.MetaData()
    tables.reflect(db, only=READ)
    when = at.replace(tzinfo=None) if db.dialect.name == "sqlite" else at
    for dataset in db.execute(sa.select(tables.tables["dataset"])).all():
        copy = {"dataset_id": dataset.id, "disk": "", "path": dataset.path, "made_at": dataset.created_at}
        db.execute(sa.insert(tables.tables["dataset_copy"]), [copy])
        people, orphans = whose(db, tables, dataset.id)
        rows = [
            *({"dataset_id": dataset.id, "example": one, "user_id": who, "withdrawn_at": None} for one, who in people),
            *({"dataset_id": dataset.id, "example": one, "user_id": None, "withdrawn_at": when} for one in orphans),
        ]
        for some in some_of(rows):
            db.execute(sa.insert(tables.tables["dataset_person"]), some)
        if orphans and dataset.run_id is not None and not known(db, tables, dataset.run_id):
            values = {"run_id": dataset.run_id, "since_at": when, "asked_at": when}
            db.execute(sa.insert(tables.tables["holding"]), [values])


def known(db: sa.Connection, tables: sa.MetaData, run_id: int) -> bool:
    holding, run = tables.tables["holding"], tables.tables["run"]
    taught_nothing = db.scalar(sa.select(run.c.dataset_only).where(run.c.id == run_id))
    return bool(taught_nothing) or db.scalar(sa.select(holding.c.id).where(holding.c.run_id == run_id)) is not None


def whose(db: sa.Connection, tables: sa.MetaData, dataset_id: int) -> tuple[set[tuple[str, int]], set[str]]:
    """(example, user) of all that is known, and the examples that nobody's row is behind."""
    lines, rating, comparison = (tables.tables[name] for name in ("dataset_example", "rating", "comparison"))
    people: set[tuple[str, int]] = set()
    behind: dict[int, set[str]] = defaultdict(set)  # by answer
    of_it = lines.c.dataset_id == dataset_id
    gone = lines.c.rating_id.is_(None) & lines.c.comparison_id.is_(None)
    orphans = set(db.scalars(sa.select(lines.c.example).where(of_it, gone)))
    for table, column, answer in (
        (rating, lines.c.rating_id, rating.c.answer_id),
        (comparison, lines.c.comparison_id, comparison.c.left_answer_id),
    ):
        query = sa.select(lines.c.example, table.c.user_id, answer).join(table, table.c.id == column).where(of_it)
        for example, user_id, answer_id in db.execute(query):
            people.add((example, user_id))
            behind[answer_id].add(example)
    for some in some_of(sorted(behind)):
        people |= authors(db, tables, {each: behind[each] for each in some})
    return people, orphans


def authors(db: sa.Connection, tables: sa.MetaData, behind: dict[int, set[str]]) -> set[tuple[str, int]]:
    """Of the messages and corrections that each answer was shown."""
    answer, message, rating = (tables.tables[name] for name in ("answer", "message", "rating"))
    query = sa.select(answer.c.id, answer.c.message_id, answer.c.row_ids).where(answer.c.id.in_(sorted(behind)))
    wrote: dict[str, dict[int, set[str]]] = {"message": defaultdict(set), "correction": defaultdict(set)}
    for answer_id, message_id, row_ids in db.execute(query):
        wrote["message"][message_id] |= behind[answer_id]
        for kind, row_id in row_ids or ():
            if kind in wrote:
                wrote[kind][int(row_id)] |= behind[answer_id]
    found: set[tuple[str, int]] = set()
    for kind, table in (("message", message), ("correction", rating)):
        for some in some_of(sorted(wrote[kind])):
            for row_id, user_id in db.execute(sa.select(table.c.id, table.c.user_id).where(table.c.id.in_(some))):
                found |= {(example, user_id) for example in wrote[kind][row_id]}
    return found


def some_of(values: Iterable[T]) -> Iterator[list[T]]:
    """As many at a time as one query may name."""
    left = iter(values)
    while some := list(islice(left, 5000)):
        yield some
