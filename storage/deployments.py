"""Which release answers, since when and why. Inserted only: the hot swap is one INSERT here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from storage import artefacts, releases
from storage.records import Deployment, Live
from storage.rows import add, every, first
from storage.tables import deployment


def deploy(session: Session, release_id: int, by: str, why: str, at: datetime, *, share: float = 1.0) -> Deployment:
    return add(session, Deployment, deployment, release_id=release_id, share=share, by=by, why=why, since_at=at)


def live(session: Session) -> Live | None:
    """The newest deployment with share 1; None before the first `huigan base add`."""
    return _newest(session, select(deployment).where(deployment.c.share >= 1.0))


def of_tag(session: Session, tag: str) -> Live | None:
    """The newest deployment of the release with that tag."""
    released = releases.by_tag(session, tag)
    return (
        None if released is None else _newest(session, select(deployment).where(deployment.c.release_id == released.id))
    )


def _newest(session: Session, query: Select[Any]) -> Live | None:
    newest = first(session, Deployment, query.order_by(deployment.c.id.desc()).limit(1))
    if newest is None:
        return None
    released = releases.get(session, newest.release_id)
    return Live(newest, released, artefacts.get(session, released.artefact_id))


def history(session: Session, limit: int = 50) -> list[Deployment]:
    """Newest first."""
    return every(session, Deployment, select(deployment).order_by(deployment.c.id.desc()).limit(limit))
