"""The first owner, where HUIGAN_ADMINS names none: whoever reads the code in the terminal claims the bot with it.

Only the code's digest is kept. It works once, and only while there is no admin.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime

from sqlalchemy.orm import Session

from bot import CHANNEL
from huigan.turns.opening import Refusal, Speaker
from storage import audit, settings, users
from storage.records import Role, User

KEY = "claim"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that look alike
_LENGTH = 12


def issue(session: Session, at: datetime) -> str | None:
    """A new code to print, which replaces any older one; None where there is an admin already."""
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
