"""Files that can be served, with how they are served and what was found of them. Inserted only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.records import Artefact
from storage.rows import add as add_row
from storage.rows import first
from storage.tables import artefact


def add(session: Session, **values: Any) -> Artefact:
    """`values` are the fields of `Artefact` but its id."""
    return add_row(session, Artefact, artefact, **values)


def get(session: Session, artefact_id: int) -> Artefact:
    """Raises LookupError."""
    found = first(session, Artefact, select(artefact).where(artefact.c.id == artefact_id))
    if found is None:
        raise LookupError(f"artefact {artefact_id} is unknown")
    return found


def of_run(session: Session, run_id: int) -> Artefact | None:
    return first(
        session, Artefact, select(artefact).where(artefact.c.run_id == run_id).order_by(artefact.c.id.desc()).limit(1)
    )
