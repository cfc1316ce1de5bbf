"""Invitation links: made by admins, used once a person, counted, expiring. Knows no address: the channel makes a link
of a code, of which only the digest is kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from huigan.operate.refusals import Refusal
from storage import audit, invitations, users
from storage.db import Session
from storage.records import ADMIN_ROLES, Invitation, Role, User

ACT = "invitation.use"
MOST_USES, MOST_DAYS = 1000, 365


@dataclass(frozen=True)
class Made:
    invitation: Invitation
    code: str  # shown once


def make(session: Session, role: Role, uses: int, days: int, *, by_user_id: int, at: datetime) -> Made | Refusal:
    """Refused: `only_owners` may invite admins; `invite_usage` for figures nobody means."""
    if not (1 <= uses <= MOST_USES and 1 <= days <= MOST_DAYS):
        return Refusal("invite_usage")
    if role in ADMIN_ROLES and users.get(session, by_user_id).role is not Role.OWNER:
        return Refusal("only_owners")
    code = secrets.token_urlsafe(18)
    expires_at = at + timedelta(days=days)
    made = invitations.make(session, digest(code), role, uses, by_user_id, at, expires_at=expires_at)
    audit.record(session, by_user_id, "invitation.make", at, invitation=made.id, role=role, uses=uses, days=days)
    return Made(made, code)


def use(session: Session, code: str, user_id: int, at: datetime) -> User | Refusal:
    """Let them in. Whoever has what it gives uses nothing up. Refused: `blocked`, `invitation_void`."""
    users.lock(session, user_id)  # or two presses at once would each use one up
    known, found = users.get(session, user_id), invitations.find(session, digest(code))
    if known.role is Role.BLOCKED:
        return Refusal("blocked")
    if found is None:
        return Refusal("invitation_void")
    has_role = known.is_admin or found.role is Role.USER
    if has_role and (known.admitted_at is not None or known.is_admin):
        return known
    if _has_used(session, user_id, found.id) or invitations.take(session, found.id, at) is None:
        return Refusal("invitation_void")
    audit.record(session, user_id, ACT, at, invitation=found.id, role=found.role)
    users.admit(session, user_id, at)
    return users.get(session, user_id) if has_role else users.set_role(session, user_id, found.role)


def _has_used(session: Session, user_id: int, invitation_id: int) -> bool:
    """Who was an admin by it and is one no longer is none again by the same link."""
    return any(each.params.get("invitation") == invitation_id for each in audit.of_user(session, user_id, ACT))


def withdraw(session: Session, invitation_id: int, *, by_user_id: int, at: datetime) -> Invitation | Refusal:
    """Refused: `invitation_void`."""
    gone = invitations.withdraw(session, invitation_id, at)
    if gone is None:
        return Refusal("invitation_void")
    audit.record(session, by_user_id, "invitation.withdraw", at, invitation=invitation_id)
    return gone


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
