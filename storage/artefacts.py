"""Files that can be served, with how they are served and what was found of them. Inserted only, but for the samples
that hold what somebody takes back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import Artefact
from storage.rows import add as add_row
from storage.rows import every, first
from storage.tables import artefact

OF_ID = select(artefact).where(artefact.c.id == bindparam("id"))


def add(session: Session, **values: Any) -> Artefact:
    """`values` are the fields of `Artefact` but its id."""
    return add_row(session, Artefact, artefact, **values)


def get(session: Session, artefact_id: int) -> Artefact:
    """Raises LookupError."""
    found = first(session, Artefact, OF_ID, id=artefact_id)
    if found is None:
        raise LookupError(f"artefact {artefact_id} is unknown")
    return found


def of_run(session: Session, run_id: int) -> Artefact | None:
    return first(
        session, Artefact, select(artefact).where(artefact.c.run_id == run_id).order_by(artefact.c.id.desc()).limit(1)
    )


def drop_samples(session: Session, run_id: int) -> None:
    """Of its scorecards the figures stay."""
    for found in every(session, Artefact, select(artefact).where(artefact.c.run_id == run_id)):
        if found.scorecard and found.scorecard.get("samples"):
            card = {**found.scorecard, "samples": []}
            session.execute(sql_update(artefact).where(artefact.c.id == found.id).values(scorecard=card))
