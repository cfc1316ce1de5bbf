"""/users and /audit: who is here, what each may do, and who did what."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from telegram.ext import BaseHandler

from bot.access import in_private
from bot.admin import Asked, Guard, refused
from bot.locales import Locales
from bot.panels import Panel, Pushed, now, pressable, put
from bot.screen import Screen
from bot.status import time_of
from huigan.operate import people
from huigan.operate.refusals import Refusal
from huigan.texts import text, told
from huigan.turns import admission
from storage import access, audit, turns, users
from storage.db import Database, Session
from storage.records import Role, User

PAGE = 8
FOUND = 20
ENTRIES = 20
NAME_CHARACTERS = 40


class People:
    def __init__(self, db: Database, screen: Screen, locales: Locales, replayed: Container[int]) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales
        self._replayed = replayed

    def acts(self) -> Guard:
        return {"users": in_private(self._users), "audit": in_private(self._audit)}

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        presses = {"people": self._page, "person": self._person, "role": self._role, "admit": self._admit}
        return [pressable(self._db, self._screen, self._locales, self._replayed, presses)]

    async def _users(self, asked: Asked) -> str | None:
        words = " ".join(asked.args).strip()
        panel = await self._db.aread(_found, words, asked.user, asked.locale)
        if panel is None:
            return text(asked.locale, "refusal.unknown_user")
        await put(self._screen, asked.spot, panel)
        return None

    async def _audit(self, asked: Asked) -> str:
        return await self._db.aread(_entries, asked.locale)

    async def _page(self, pushed: Pushed) -> Panel:
        return await self._db.aread(_page, _id(pushed), pushed.locale)

    async def _person(self, pushed: Pushed) -> Panel | str:
        return await self._db.aread(_card, _id(pushed), pushed.user, pushed.locale)

    async def _role(self, pushed: Pushed) -> Panel | str:
        if pushed.press.choice not in set(Role) - {Role.OWNER}:
            return text(pushed.locale, "refusal.stale_button")
        how: dict[str, Any] = {"by_user_id": pushed.user.id, "at": now()}
        result = await self._db.awrite(people.set_role, _id(pushed), Role(pushed.press.choice), **how)
        return await self._shown(pushed, result)

    async def _admit(self, pushed: Pushed) -> Panel | str:
        return await self._shown(
            pushed, await self._db.awrite(people.admit, _id(pushed), by_user_id=pushed.user.id, at=now())
        )

    async def _shown(self, pushed: Pushed, result: User | Refusal) -> Panel | str:
        if isinstance(result, Refusal):
            return refused(result, pushed.locale)
        return await self._db.aread(_card, result.id, pushed.user, pushed.locale)


def _id(pushed: Pushed) -> int:
    return pushed.press.ids[0] if pushed.press.ids else 0


def _name(user: User) -> str:
    return user.name.strip()[:NAME_CHARACTERS] or user.external_id


def _found(session: Session, words: str, by: User, locale: str) -> Panel | None:
    """The one of that name or id, or a choice among several; without words, everybody."""
    if not words:
        return _page(session, 0, locale)
    found = users.named(session, words, FOUND)
    if len(found) == 1:
        card = _card(session, found[0].id, by, locale)
        return card if isinstance(card, Panel) else None
    return Panel(text(locale, "people.which"), tuple(_line(each, locale) for each in found)) if found else None


def _page(session: Session, page: int, locale: str) -> Panel:
    known = users.count(session)
    pages = max(1, -(-known // PAGE))
    page = min(page, pages - 1)
    lines = tuple(_line(each, locale) for each in users.by_activity(session, PAGE, page * PAGE))
    before = (("◀", f"people:{page - 1}"),) if page > 0 else ()
    after = (("▶", f"people:{page + 1}"),) if page + 1 < pages else ()
    words = text(locale, "people.page", people=known, page=page + 1, pages=pages)
    return Panel(words, (*lines, (*before, *after)))


def _line(user: User, locale: str) -> tuple[tuple[str, str], ...]:
    return ((f"{_name(user)} · {told(locale, 'role', user.role)}", f"person:{user.id}"),)


def _card(session: Session, user_id: int, by: User, locale: str) -> Panel | str:
    user = users.find_by_id(session, user_id)
    if user is None:
        return text(locale, "refusal.unknown_user")
    today, _ = admission.day(now())
    lines = [
        f"{_name(user)} · {told(locale, 'role', user.role)}",
        text(locale, "people.numbers", number=user.id, external=user.external_id, since=time_of(user.created_at)),
        text(locale, "people.asked", today=turns.count_asked(session, user.id, today)),
    ]
    if not access.rules(session).is_open and not user.is_admin:
        lines.append(text(locale, "people.let_in" if user.admitted_at else "people.not_let_in"))
    return Panel("\n".join(lines), (*_buttons(user, by, locale), ((text(locale, "people.back"), "people:0"),)))


def _buttons(user: User, by: User, locale: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What this admin may do to them."""
    choices = {Role.ADMIN: "people.make_admin", Role.USER: "people.make_user", Role.BLOCKED: "people.block"}
    if by.role is not Role.OWNER:
        choices.pop(Role.ADMIN)
        if user.is_admin:
            choices = {}
    if by.id == user.id:
        choices.pop(Role.BLOCKED, None)
    choices.pop(user.role, None)
    if user.role is Role.BLOCKED:
        choices = {Role.USER: "people.unblock"}
    admit = [(text(locale, "people.admit"), f"admit:{user.id}")] if not (user.admitted_at or user.is_admin) else []
    roles = [(text(locale, code), f"role:{user.id}:{role}") for role, code in choices.items()]
    return (tuple(roles), tuple(admit))


def _entries(session: Session, locale: str) -> str:
    found = audit.newest(session, ENTRIES)
    if not found:
        return text(locale, "people.no_audit")
    return "\n".join(
        f"{time_of(each.at)} · {_who(session, each.user_id, locale)} · "
        f"{told(locale, 'act', each.act.replace('.', '_'))}{_details(each.params)}"
        for each in found
    )


def _who(session: Session, user_id: int | None, locale: str) -> str:
    known = users.find_by_id(session, user_id) if user_id is not None else None
    return _name(known) if known else text(locale, "people.program")


def _details(params: Any) -> str:
    told_of = ", ".join(f"{name}={value}" for name, value in params.items() if value is not None)
    return f" ({told_of[:120]})" if told_of else ""
