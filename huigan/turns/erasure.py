"""/forget: everything of one person goes, and what was made of it is marked, so that it follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from huigan.turns import withdrawal
from huigan.turns.refusals import Refusal
from storage import attachments, dataset_people, erasure, messages, turns, users
from storage.db import Session
from storage.records import Role


@dataclass(frozen=True)
class Forgotten:
    messages: int
    answers: int
    ratings: int
    paths: tuple[str, ...]  # files that nobody's message has any more, to be removed once this is committed


def forget(session: Session, user_id: int, at: datetime) -> Forgotten | Refusal:
    """In one transaction. An admin is asked to hand that over first, and whoever is being answered to wait."""
    users.lock(session, user_id)
    user = users.get(session, user_id)
    if user.is_admin:
        return Refusal("admin_stays")
    if any(turn.user_id == user_id for turn in turns.unclosed(session)):
        return Refusal("already_answering")
    withdrawal.take_back(session, [user_id], at)
    dataset_people.unname(session, user_id)
    paths = attachments.remove(session, [each.id for each in messages.of_user(session, user_id)])
    gone = erasure.erase(session, user_id, user.external_id)
    # A block outlives it: else this would be the way around it.
    users.blank(session, user_id, keep_number=user.role is Role.BLOCKED)
    return Forgotten(gone["message"], gone["answer"], gone["rating"] + gone["comparison"], tuple(paths))
