"""The curves of a run: what training measured at each step, as its attempts told it. Inserted only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from storage.db import Session
from storage.records import RunPoint
from storage.rows import add_once, every
from storage.tables import run_point

Point = tuple[str, int, Mapping[str, float]]  # method, step, measures


def add(session: Session, run_id: int, attempt: int, points: Sequence[Point], at: datetime) -> None:
    """A point that this attempt has told before is left as it was."""
    for method, step, measures in points:
        values: dict[str, Any] = {"method": method, "step": step, "measures": dict(measures), "at": at}
        add_once(session, RunPoint, run_point, run_id=run_id, attempt=attempt, **values)


def curve(session: Session, run_id: int) -> list[RunPoint]:
    """In the order of training. Where an attempt took a method up again, its steps replace those of attempts before."""
    told = every(session, RunPoint, select(run_point).where(run_point.c.run_id == run_id).order_by(run_point.c.id))
    order = {method: number for number, method in enumerate(dict.fromkeys(each.method for each in told))}
    begun: dict[tuple[str, int], int] = {}
    for each in told:
        key = (each.method, each.attempt)
        begun[key] = min(begun.get(key, each.step), each.step)
    kept = [each for each in told if not _is_done_over(each, begun)]
    return sorted(kept, key=lambda each: (order[each.method], each.step))


def _is_done_over(point: RunPoint, begun: Mapping[tuple[str, int], int]) -> bool:
    return any(
        method == point.method and attempt > point.attempt and step <= point.step
        for (method, attempt), step in begun.items()
    )
