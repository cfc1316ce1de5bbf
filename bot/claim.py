"""Who owns the bot: whom HUIGAN_ADMINS names, for as long as it does, or whoever claims it.

Where nobody is named, whoever reads the code in the terminal claims the bot with it, for good. Only the code's
digest is kept. It works once, and only while there is no admin.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from bot import CHANNEL
from huigan.turns.opening import Refusal, Speaker
from storage import audit, settings, users
from storage.db import Session
from storage.records import Role, User

KEY = "claim"
APPOINTED_KEY = "appointed"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that look alike
_LENGTH = 12


def appoint(session: Session, external_ids: Sequence[str], at: datetime) -> None:
    """Make owners of these, known or not, and of those who were owners only because they were named before what they
    had been. Call it at each start with what HUIGAN_ADMINS names now."""
    kept = settings.get(session, APPOINTED_KEY)
    roles: dict[str, str] = dict(kept.value) if kept else {}  # by id, what they were before
    for gone in roles.keys() - set(external_ids):
        _dismiss(session, gone, Role(roles.pop(gone)), at)
    for external_id in external_ids:
        user = users.meet(session, CHANNEL, external_id, "", None, at)
        if user.role is not Role.OWNER:
            roles[external_id] = user.role
            users.set_role(session, user.id, Role.OWNER)
            audit.record(session, None, "owner.appoint", at, user=user.id)
    settings.put(session, APPOINTED_KEY, roles, None, at)


def _dismiss(session: Session, external_id: str, before: Role, at: datetime) -> None:
    user = users.find(session, CHANNEL, external_id)
    if user is not None and user.role is Role.OWNER:
        users.set_role(session, user.id, before)
        audit.record(session, None, "owner.dismiss", at, user=user.id)


def issue(session: Session, at: datetime) -> str | None:
    """A new code to print where HUIGAN_ADMINS names nobody. It replaces any older one; None where there is an admin."""
    appoint(session, [], at)
    if users.admins(session):
        return None
    code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    settings.put(session, KEY, _digest(code), None, at)
    return code


def is_open(session: Session) -> bool:
    kept = settings.get(session, KEY)
    return kept is not None and kept.value is not None and not users.admins(session)


def claim(session: Session, speaker: Speaker, code: str, at: datetime) -> User | Refusal:
    """Make the speaker the owner."""
    user = users.meet(session, CHANNEL, speaker.external_id, speaker.name, speaker.locale, at)
    if user.role is Role.OWNER:
        return user  # an update that is replayed
    if not is_open(session):
        return Refusal("claim_used")
    kept = settings.get(session, KEY)
    if kept is None or not hmac.compare_digest(str(kept.value), _digest(code)):
        return Refusal("claim_wrong")
    settings.put(session, KEY, None, user.id, at)
    audit.record(session, user.id, "owner.claim", at)
    return users.set_role(session, user.id, Role.OWNER)


def _digest(code: str) -> str:
    return hashlib.sha256(code.strip().upper().encode()).hexdigest()
