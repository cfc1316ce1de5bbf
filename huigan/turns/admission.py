"""Whether somebody is answered: not who is blocked, nor who was not let in where that is needed, nor more than so often
a day. Decided in the transaction that stores what they ask, so that nobody slips in between."""

from __future__ import annotations

from datetime import datetime, time, timedelta, tzinfo

from huigan.turns.refusals import Refusal
from storage import access, turns, users
from storage.db import Session
from storage.records import Chat, ChatKind, Role, User


def refusal(session: Session, user: User, chat: Chat, at: datetime, zone: tzinfo | None = None) -> Refusal | None:
    """None where they are to be answered: `blocked`, `not_invited` or `budget_spent` otherwise. A day begins at
    midnight, in the machine's own zone unless told."""
    if user.role is Role.BLOCKED:
        return Refusal("blocked")
    if user.is_admin or chat.kind is ChatKind.TERMINAL:
        return None
    rules = access.rules(session)
    if not (rules.is_open or is_let_in(user, chat)):
        return Refusal("not_invited")
    return _spent(session, user, rules.budget, at, zone) if rules.budget else None


def is_let_in(user: User, chat: Chat) -> bool:
    """By an invitation or an admin: the person, or the group that they speak in."""
    return user.admitted_at is not None or (chat.kind is ChatKind.GROUP and chat.admitted_at is not None)


def _spent(session: Session, user: User, budget: int, at: datetime, zone: tzinfo | None) -> Refusal | None:
    users.lock(session, user.id)  # or two messages at once would each take the last answer
    begins_at, ends_at = day(at, zone)
    if turns.count_asked(session, user.id, begins_at) < budget:
        return None
    minutes = -(-(ends_at - at) // timedelta(minutes=1))
    return Refusal("budget_spent", {"budget": budget, "hours": minutes // 60, "minutes": minutes % 60})


def day(at: datetime, zone: tzinfo | None = None) -> tuple[datetime, datetime]:
    """From midnight to midnight."""
    date = at.astimezone(zone).date()
    first, second = (datetime.combine(each, time(), zone) for each in (date, date + timedelta(days=1)))
    return first.astimezone(at.tzinfo), second.astimezone(at.tzinfo)
