"""Who is let in: /access, /invite, /invites, /admit, the links' /start, and the gate before every other handler.

Whether somebody is answered is decided where their question is stored; here only who is blocked is kept from the rest.
They are told so once. What keeps, shows and deletes their own data stays theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from typing import Any

from telegram import Update
from telegram.ext import ApplicationHandlerStop, BaseHandler, CommandHandler, ContextTypes, TypeHandler, filters

from bot import CHANNEL, keyboards
from bot.admin import Asked, Guard, refused
from bot.locales import Locales
from bot.panels import Panel, Pushed, now, pressable, put
from bot.places import place_of, speaker_of, spot_of
from bot.screen import Screen
from bot.status import time_of
from huigan.operate import invitations, people
from huigan.operate.invitations import Made
from huigan.operate.refusals import Refusal
from huigan.texts import text
from huigan.turns.opening import Place, Speaker, meet
from storage import access, chats, users
from storage import invitations as invitation_rows
from storage.db import Database, Session
from storage.records import Role, User

LINK = "inv_"
USES, DAYS = 1, 7  # of a link, unless told
THEIR_OWN = ("/privacy", "/export", "/forget")  # also of who is blocked
THEIR_OWN_PRESSES = ("privacy", "export", "forget", "agree", "decline")


class AccessPart:
    def __init__(self, db: Database, screen: Screen, locales: Locales, replayed: Container[int]) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales
        self._replayed = replayed

    def acts(self) -> Guard:
        return {
            "access": in_private(self._access),
            "invite": in_private(self._invite),
            "invites": in_private(self._invites),
            "admit": self._admit,
        }

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        """Register before /start of everybody."""
        link = filters.UpdateType.MESSAGE & filters.ChatType.PRIVATE & filters.Regex(rf"^/start(@\w+)?\s+{LINK}")
        presses = {"uninvite": self._uninvite}
        return [
            CommandHandler("start", self._invited, filters=link),
            pressable(self._db, self._screen, self._locales, self._replayed, presses),
        ]

    def gate(self) -> BaseHandler[Any, Any, Any]:
        """Register in a group before all others."""
        return TypeHandler(Update, self._pass)

    async def _pass(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        user = update.effective_user
        if user is None or _is_their_own(update):
            return
        known = await self._db.aread(users.find, CHANNEL, str(user.id))
        if known is None or known.role is not Role.BLOCKED:
            return
        if update.callback_query is not None and update.update_id not in self._replayed:
            await self._screen.toast(update.callback_query, "")
        elif update.message is not None and await self._db.awrite(people.first_refusal, known.id, now()):
            await self._screen.say(spot_of(update.message), text(await self._locales.of(update), "refusal.blocked"))
        raise ApplicationHandlerStop

    async def _invited(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        locale, spot = await self._locales.of(update), spot_of(message)
        code = "".join(context.args or []).removeprefix(LINK)
        used = await self._db.awrite(_use, place_of(message), speaker_of(user), code)
        if isinstance(used, Refusal):
            await self._screen.say(spot, refused(used, locale))
            return
        welcome = text(locale, "access.welcome_admin" if used.is_admin else "access.welcome")
        words = f"{welcome}\n\n{text(locale, 'bot.start')}\n\n{text(locale, 'bot.consent_ask')}"
        await self._screen.say(spot, words, keyboards.consent(locale))

    async def _access(self, asked: Asked) -> str:
        match asked.args:
            case []:
                pass
            case [access.OPEN | access.INVITED as mode]:
                await self._db.awrite(people.set_mode, mode, by_user_id=asked.user.id, at=now())
            case ["budget", count] if _is_number(count) and int(count) <= people.MOST_ANSWERS:
                await self._db.awrite(people.set_budget, int(count), by_user_id=asked.user.id, at=now())
            case _:
                return text(asked.locale, "refusal.access_usage")
        return await self._db.aread(_told, asked.locale)

    async def _invite(self, asked: Asked) -> str:
        wanted, args = Role.USER, list(asked.args)
        if args[:1] == ["admin"]:
            wanted = Role.ADMIN
            args.pop(0)
        if len(args) > 2 or not all(_is_number(each) for each in args):
            return text(asked.locale, "refusal.invite_usage")
        uses, days = [*(int(each) for each in args), *(USES, DAYS)[len(args) :]]
        made = await self._db.awrite(invitations.make, wanted, uses, days, by_user_id=asked.user.id, at=now())
        if not isinstance(made, Made):
            return refused(made, asked.locale)
        link = f"https://t.me/{asked.message.get_bot().username}?start={LINK}{made.code}"
        code = "access.invited_admin" if wanted is Role.ADMIN else "access.invited"
        return text(asked.locale, code, link=link, uses=uses, until=time_of(made.invitation.expires_at))

    async def _invites(self, asked: Asked) -> None:
        await put(self._screen, asked.spot, await self._db.aread(_links, asked.locale))

    async def _uninvite(self, pushed: Pushed) -> Panel | str:
        gone = await self._db.awrite(
            invitations.withdraw, pushed.press.ids[0] if pushed.press.ids else 0, by_user_id=pushed.user.id, at=now()
        )
        if isinstance(gone, Refusal):
            return refused(gone, pushed.locale)
        return await self._db.aread(_links, pushed.locale)

    async def _admit(self, asked: Asked) -> str:
        if not asked.spot.is_group:
            return text(asked.locale, "refusal.admit_usage")
        await self._db.awrite(_admit_chat, str(asked.spot.chat_id), asked.user.id)
        return text(asked.locale, "access.group_admitted")


def in_private(act: Callable[[Asked], Awaitable[str | None]]) -> Callable[[Asked], Awaitable[str | None]]:
    """What is about other people is not for a group to read."""

    async def only(asked: Asked) -> str | None:
        return text(asked.locale, "refusal.only_private") if asked.spot.is_group else await act(asked)

    return only


def _is_their_own(update: Update) -> bool:
    if update.callback_query is not None:
        return (update.callback_query.data or "").startswith(THEIR_OWN_PRESSES)
    said = update.message.text if update.message is not None else None
    return (said or "").startswith(THEIR_OWN)


def _is_number(written: str) -> bool:
    return written.isascii() and written.isdigit() and len(written) <= 9


def _use(session: Session, place: Place, speaker: Speaker, code: str) -> User | Refusal:
    known, _ = meet(session, place, speaker, now())
    return invitations.use(session, code, known.id, now())


def _told(session: Session, locale: str) -> str:
    rules = access.rules(session)
    known, let_in = users.count(session), users.count_let_in(session)
    mode = "access.is_open" if rules.is_open else "access.is_invited"
    budget = text(locale, "access.budget", budget=rules.budget) if rules.budget else text(locale, "access.no_budget")
    return f"{text(locale, mode, let_in=let_in, others=known - let_in)}\n{budget}\n{text(locale, 'access.how')}"


def _links(session: Session, locale: str) -> Panel:
    usable = invitation_rows.usable(session, now())
    if not usable:
        return Panel(text(locale, "access.no_invites"))
    lines, buttons = [], []
    for each in usable:
        code = "access.invite_line_admin" if each.role is Role.ADMIN else "access.invite_line"
        values = {"number": each.id, "uses": each.uses_left, "until": time_of(each.expires_at)}
        lines.append(text(locale, code, **values))
        buttons.append(((text(locale, "access.withdraw", number=each.id), f"uninvite:{each.id}"),))
    return Panel("\n".join(lines), tuple(buttons))


def _admit_chat(session: Session, chat: str, by_user_id: int) -> None:
    found = chats.find(session, CHANNEL, chat)
    assert found is not None, "whoever asks was met there"
    people.admit_chat(session, found.id, by_user_id=by_user_id, at=now())
