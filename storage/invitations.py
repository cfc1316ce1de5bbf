"""Links that let people in, or make them admins. Of a link's code only the digest is kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import Invitation, Role
from storage.rows import add, every, first
from storage.tables import invitation


def make(
    session: Session,
    digest: str,
    role: Role,
    uses: int,
    by_user_id: int | None,
    at: datetime,
    *,
    expires_at: datetime,
    note: str = "",
) -> Invitation:
    values = {"digest": digest, "role": role, "note": note, "uses_left": uses, "by_user_id": by_user_id}
    return add(session, Invitation, invitation, **values, made_at=at, expires_at=expires_at)


def find(session: Session, digest: str) -> Invitation | None:
    return first(session, Invitation, select(invitation).where(invitation.c.digest == digest))


def take(session: Session, invitation_id: int, at: datetime) -> Invitation | None:
    """Use it up by one. None if it is used up, expired or withdrawn."""
    counts = (invitation.c.uses_left > 0) & (invitation.c.expires_at > at) & invitation.c.withdrawn_at.is_(None)
    return first(
        session,
        Invitation,
        sql_update(invitation)
        .where(invitation.c.id == invitation_id, counts)
        .values(uses_left=invitation.c.uses_left - 1)
        .returning(invitation),
    )


def withdraw(session: Session, invitation_id: int, at: datetime) -> Invitation | None:
    """None if there is none, or it was withdrawn before."""
    return first(
        session,
        Invitation,
        sql_update(invitation)
        .where(invitation.c.id == invitation_id, invitation.c.withdrawn_at.is_(None))
        .values(withdrawn_at=at)
        .returning(invitation),
    )


def usable(session: Session, at: datetime, limit: int = 20) -> list[Invitation]:
    """Newest first."""
    query = select(invitation).where(
        invitation.c.uses_left > 0, invitation.c.expires_at > at, invitation.c.withdrawn_at.is_(None)
    )
    return every(session, Invitation, query.order_by(invitation.c.id.desc()).limit(limit))
