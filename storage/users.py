"""Who talks, rates and decides: their role, language and consent. Knows nothing of what they said."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import ADMIN_ROLES, Role, User
from storage.rows import add_once, batches, every, first
from storage.tables import turn, user

SIMULATED = "simulated"  # the channel of people who are programs: they have nothing to agree to


OF_ID = select(user).where(user.c.id == bindparam("id"))
OF_NAME = select(user).where(user.c.channel == bindparam("channel"), user.c.external_id == bindparam("external_id"))


def meet(session: Session, channel: str, external_id: str, name: str, locale: str | None, at: datetime) -> User:
    """The user of that name in that channel, added at the first meeting; their name and the locale
    that their channel tells are kept up to date."""
    known = find(session, channel, external_id)
    if known is None:
        added = add_once(
            session,
            User,
            user,
            channel=channel,
            external_id=external_id,
            name=name,
            role=Role.USER,
            locale=locale,
            created_at=at,
        )
        known = added or find(session, channel, external_id)
        assert known is not None
    news: dict[str, object] = {"name": name} if name and known.name != name else {}
    if locale and known.locale != locale:
        news["locale"] = locale
    return _set(session, known.id, **news) if news else known


def find(session: Session, channel: str, external_id: str) -> User | None:
    return first(session, User, OF_NAME, channel=channel, external_id=external_id)


def find_by_id(session: Session, user_id: int) -> User | None:
    return first(session, User, OF_ID, id=user_id)


def get(session: Session, user_id: int) -> User:
    """Raises LookupError."""
    found = find_by_id(session, user_id)
    if found is None:
        raise LookupError(f"user {user_id} is unknown")
    return found


def admins(session: Session) -> list[User]:
    return every(session, User, select(user).where(user.c.role.in_(sorted(ADMIN_ROLES))).order_by(user.c.id))


def lock(session: Session, user_id: int) -> None:
    """Until this transaction ends, nobody else who locks them goes on. Rows that name them may be added all the same:
    with those that two transactions have added before, a stronger lock would be a deadlock."""
    session.execute(select(user.c.id).where(user.c.id == user_id).with_for_update(key_share=True))


def lock_unwilling(session: Session, user_ids: Iterable[int]) -> list[int]:
    """Those of them who are people and do not agree to be learnt from; none of all of them changes that until this
    transaction ends."""
    found: list[int] = []
    for ids in batches(user_ids):
        chosen = select(user).where(user.c.id.in_(ids)).order_by(user.c.id).with_for_update(read=True)
        met = every(session, User, chosen)
        found += [each.id for each in met if each.consented_at is None and each.channel != SIMULATED]
    return found


def lock_admins(session: Session) -> list[User]:
    """As `admins`, and who is one stays as it is until this transaction ends."""
    chosen = select(user).where(user.c.role.in_(sorted(ADMIN_ROLES))).order_by(user.c.id)
    return every(session, User, chosen.with_for_update(key_share=True))


def of_channel(session: Session, channel: str) -> list[User]:
    return every(session, User, select(user).where(user.c.channel == channel).order_by(user.c.id))


def by_activity(session: Session, limit: int, offset: int = 0) -> list[User]:
    """Who asked last comes first; who never asked, after them."""
    asked = select(turn.c.user_id, func.max(turn.c.id).label("turn_id")).group_by(turn.c.user_id).subquery()
    query = select(user).outerjoin(asked, asked.c.user_id == user.c.id)
    ordered = query.order_by(func.coalesce(asked.c.turn_id, 0).desc(), user.c.id.desc())
    return every(session, User, ordered.limit(limit).offset(offset))


def named(session: Session, words: str, limit: int) -> list[User]:
    """Whose channel knows them by this id, else whose name holds these words."""
    found = every(session, User, select(user).where(user.c.external_id == words).limit(limit))
    if not found:
        is_named = func.lower(user.c.name).contains(words.lower(), autoescape=True)
        found = every(session, User, select(user).where(is_named).order_by(user.c.id.desc()).limit(limit))
    return found


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(user)) or 0


def count_let_in(session: Session) -> int:
    """By an invitation or an admin, or as one."""
    let_in = user.c.admitted_at.is_not(None) | user.c.role.in_(sorted(ADMIN_ROLES))
    return session.scalar(select(func.count()).select_from(user).where(let_in)) or 0


def admit(session: Session, user_id: int, at: datetime) -> User:
    return _set(session, user_id, admitted_at=at)


def set_role(session: Session, user_id: int, role: Role) -> User:
    return _set(session, user_id, role=role)


def choose_locale(session: Session, user_id: int, locale: str | None) -> User:
    """None: as their channel tells it."""
    return _set(session, user_id, chosen_locale=locale)


def consent(session: Session, user_id: int, at: datetime) -> User:
    """Their ratings and texts may be learnt from, from now on."""
    return _set(session, user_id, consented_at=at, declined_at=None)


def decline(session: Session, user_id: int, at: datetime) -> User:
    return _set(session, user_id, consented_at=None, declined_at=at)


def blank(session: Session, user_id: int, *, keep_number: bool) -> User:
    """Leave a row that says nothing of them: what an admin did, or a run that they asked for, may point to it."""
    number = {} if keep_number else {"external_id": f"forgotten-{user_id}"}
    empty = dict.fromkeys(("locale", "chosen_locale", "consented_at", "declined_at", "admitted_at"))
    return _set(session, user_id, name="", **number, **empty)


def _set(session: Session, user_id: int, **values: object) -> User:
    changed = first(session, User, sql_update(user).where(user.c.id == user_id).values(**values).returning(user))
    if changed is None:
        raise LookupError(f"user {user_id} is unknown")
    return changed
