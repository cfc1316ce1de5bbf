"""What became of one user's feedback: how much counts, and which releases and runs were made with it.

Joins what storage keeps by noun, from ratings by way of data sets to releases, and begins with the user's own rows:
how much others have rated costs nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Case, ColumnElement, Exists, Row, Select, case, exists, func, literal, select

from storage import users
from storage.db import Session
from storage.records import RunState, Thumb
from storage.tables import comparison, dataset, dataset_example, rating, release, run

UP, DOWN, CORRECTION, COMPARISON = "up", "down", "correction", "comparison"
KINDS = (UP, DOWN, CORRECTION, COMPARISON)
Counts = Mapping[str, int]  # by kind


@dataclass(frozen=True)
class Used:
    """One run that had some of it; its release, where there is one."""

    run_id: int
    state: RunState
    release_id: int | None
    trained: Counts
    held_out: Counts  # not learnt from: kept to judge by whether it is better


@dataclass(frozen=True)
class Effects:
    has_consented: bool
    given: Counts  # that counts now
    unused: Counts  # of it, what is in no data set of a run yet
    used: tuple[Used, ...]  # the newest first


def of_user(session: Session, user_id: int) -> Effects:
    used: dict[tuple[int, RunState, int | None], tuple[dict[str, int], dict[str, int]]]
    used = defaultdict(lambda: ({}, {}))
    for query in (_rated_in_runs(user_id), _compared_in_runs(user_id)):
        for row in session.execute(query):
            trained, held_out = used[row.run_id, row.state, row.release_id]
            if row.trained:
                trained[row.kind] = row.trained
            if row.number > row.trained:
                held_out[row.kind] = row.number - row.trained
    given, unused = _given(session, user_id, is_unused=False), _given(session, user_id, is_unused=True)
    consented = users.get(session, user_id).consented_at is not None
    newest = sorted(used.items(), key=lambda each: each[0][0], reverse=True)
    return Effects(consented, given, unused, tuple(Used(*which, *counts) for which, counts in newest))


def _kind() -> Case[str]:
    return case((rating.c.correction.is_not(None), CORRECTION), (rating.c.thumb == Thumb.UP, UP), else_=DOWN)


def _rated_in_runs(user_id: int) -> Select[Any]:
    """Answers, not rows: somebody may have changed what they say, and an example may be in two stages' data."""
    kind = _kind().label("kind")
    columns = (run.c.id.label("run_id"), run.c.state, release.c.id.label("release_id"), kind)
    return (
        select(*columns, *_numbers(rating.c.answer_id))
        .select_from(rating)
        .join(dataset_example, dataset_example.c.rating_id == rating.c.id)
        .join(dataset, dataset.c.id == dataset_example.c.dataset_id)
        .join(run, run.c.id == dataset.c.run_id)
        .outerjoin(release, release.c.artefact_id == run.c.artefact_id)
        .where(rating.c.user_id == user_id)
        .group_by(run.c.id, run.c.state, release.c.id, kind)
    )


def _compared_in_runs(user_id: int) -> Select[Any]:
    kind = literal(COMPARISON).label("kind")
    columns = (run.c.id.label("run_id"), run.c.state, release.c.id.label("release_id"), kind)
    return (
        select(*columns, *_numbers(comparison.c.message_id))
        .select_from(comparison)
        .join(dataset_example, dataset_example.c.comparison_id == comparison.c.id)
        .join(dataset, dataset.c.id == dataset_example.c.dataset_id)
        .join(run, run.c.id == dataset.c.run_id)
        .outerjoin(release, release.c.artefact_id == run.c.artefact_id)
        .where(comparison.c.user_id == user_id)
        .group_by(run.c.id, run.c.state, release.c.id)
    )


def _numbers(of: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """How many, and how many of them any stage was trained on: the rest is held out."""
    trained = case((dataset_example.c.split == "train", of))
    return func.count(of.distinct()).label("number"), func.count(trained.distinct()).label("trained")


def _given(session: Session, user_id: int, *, is_unused: bool) -> Counts:
    latest = select(func.max(rating.c.id)).where(rating.c.user_id == user_id).group_by(rating.c.answer_id)
    kind = _kind().label("kind")
    rated = select(kind, func.count().label("number")).where(rating.c.id.in_(latest), rating.c.thumb != Thumb.WITHDRAWN)
    compared = select(literal(COMPARISON).label("kind"), func.count(comparison.c.message_id.distinct()).label("number"))
    compared = compared.where(comparison.c.user_id == user_id)
    if is_unused:
        rated = rated.where(~_in_a_run(dataset_example.c.rating_id == rating.c.id))
        compared = compared.where(~_in_a_run(dataset_example.c.comparison_id == comparison.c.id))
    rows: list[Row[tuple[str, int]]] = [*session.execute(rated.group_by(kind)), *session.execute(compared)]
    return {row.kind: row.number for row in rows if row.number}


def _in_a_run(is_theirs: ColumnElement[bool]) -> Exists:
    made = dataset_example.join(dataset, dataset.c.id == dataset_example.c.dataset_id)
    return exists().select_from(made).where(is_theirs, dataset.c.run_id.is_not(None))
