"""Who may do what: roles given and taken, people and groups let in. Only owners change who is an admin, and the last
owner stays one. Each act is one transaction with its audit row and the notice for whom it concerns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from huigan.operate.refusals import Refusal
from storage import access, audit, chats, outbox, users
from storage.db import Session
from storage.records import ADMIN_ROLES, Role, User

MOST_ANSWERS = 1_000_000


def set_role(session: Session, user_id: int, role: Role, *, by_user_id: int, at: datetime) -> User | Refusal:
    """Refused: `unknown_user`, `not_admin`, `only_owners`, `last_owner`, `block_yourself`."""
    admins = {each.id: each for each in users.lock_admins(session)}
    known = users.find_by_id(session, user_id)
    if known is None:
        return Refusal("unknown_user")
    refused = _may_not(admins, known, role, by_user_id)
    told = {"refused": refused.code} if refused else {"before": known.role}
    if refused or known.role is not role:
        audit.record(session, by_user_id, "user.role", at, user=user_id, role=role, **told)
    if refused or known.role is role:
        return refused or known
    changed = users.set_role(session, user_id, role)
    _tell(session, known, role, at)
    return changed


def _may_not(admins: dict[int, User], known: User, role: Role, by_user_id: int) -> Refusal | None:
    by = admins.get(by_user_id)
    if by is None:
        return Refusal("not_admin")
    if by.id == known.id and role is Role.BLOCKED:
        return Refusal("block_yourself")
    if (known.is_admin or role in ADMIN_ROLES) and by.role is not Role.OWNER:
        return Refusal("only_owners")
    owners = [each for each in admins.values() if each.role is Role.OWNER]
    if known.role is Role.OWNER and role is not Role.OWNER and len(owners) == 1:
        return Refusal("last_owner")
    return None


def _tell(session: Session, known: User, role: Role, at: datetime) -> None:
    """Whoever is blocked is told when they ask next: see `first_refusal`."""
    if role is Role.BLOCKED:
        return
    code = "you_are_admin" if role in ADMIN_ROLES else "you_are_unblocked" if known.role is Role.BLOCKED else None
    outbox.put(session, code or "you_are_user", {}, at, user_id=known.id)


def first_refusal(session: Session, user_id: int, at: datetime) -> bool:
    """Whether somebody who is blocked is to be told so: once each time that they were blocked."""
    blocked = [each.id for each in audit.of_act(session, "user.role") if _is_blocking(each.params, user_id)]
    put = outbox.put(session, "blocked", {}, at, user_id=user_id, key=f"blocked:{user_id}:{max(blocked, default=0)}")
    if put is not None:
        outbox.mark_sent(session, put.id, at)  # it is said in its place, now
    return put is not None


def _is_blocking(params: Any, user_id: int) -> bool:
    return params.get("user") == user_id and params.get("role") == Role.BLOCKED and "refused" not in params


def admit(session: Session, user_id: int, *, by_user_id: int, at: datetime) -> User | Refusal:
    """Let somebody in who is not yet. Refused: `unknown_user`."""
    known = users.find_by_id(session, user_id)
    if known is None:
        return Refusal("unknown_user")
    if known.admitted_at is not None:
        return known
    audit.record(session, by_user_id, "user.admit", at, user=user_id)
    outbox.put(session, "you_are_admitted", {}, at, user_id=user_id)
    return users.admit(session, user_id, at)


def admit_chat(session: Session, chat_id: int, *, by_user_id: int, at: datetime) -> None:
    """Whoever speaks in that group is answered from now on."""
    if chats.get(session, chat_id).admitted_at is None:
        audit.record(session, by_user_id, "chat.admit", at, chat=chat_id)
        chats.admit(session, chat_id, at)


def set_mode(session: Session, mode: str, *, by_user_id: int, at: datetime) -> None:
    audit.record(session, by_user_id, "access.mode", at, mode=mode)
    access.set_mode(session, mode, by_user_id, at)


def set_budget(session: Session, budget: int, *, by_user_id: int, at: datetime) -> None:
    """Answers a day and person; 0: no limit."""
    audit.record(session, by_user_id, "access.budget", at, budget=budget)
    access.set_budget(session, budget, by_user_id, at)
