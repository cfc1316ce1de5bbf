"""How a chat is answered: a persona or a system prompt of its own, and whether a group shares one conversation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from telegram import MaybeInaccessibleMessage, Message, Update
from telegram.constants import ChatType
from telegram.ext import BaseHandler, CallbackQueryHandler, CommandHandler, ContextTypes, filters

from bot import CHANNEL, keyboards
from bot.locales import Locales
from bot.places import place_of, place_under, speaker_of, spot_of
from bot.rights import is_admin, may_configure
from bot.screen import Screen
from huigan.texts import text
from huigan.turns.opening import Place, Speaker, meet
from storage import audit, chats, settings, users
from storage.db import Database, Session
from storage.records import Scope

MAX_SYSTEM_CHARACTERS = 4000
BUILT_IN = (  # the codes of a name and of a system text
    ("persona.plain", None),  # the release's own
    ("persona.translator", "persona.translator_system"),
    ("persona.coder", "persona.coder_system"),
    ("persona.teacher", "persona.teacher_system"),
    ("persona.writer", "persona.writer_system"),
)
CHOSEN = {Scope.USER: "scope.chosen_user", Scope.THREAD: "scope.chosen_thread"}
PERSONAS_KEY = "personas"  # an admin's own: system text by name


class Personas:
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        named = {"persona": self._persona, "system": self._system, "scope": self._scope}
        return [
            *(CommandHandler(name, callback, filters=new) for name, callback in named.items()),
            CallbackQueryHandler(self._persona_chosen, pattern=r"^persona:\d{1,3}$"),
            CallbackQueryHandler(self._scope_chosen, pattern=r"^scope:(user|thread)$"),
        ]

    async def _persona(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """The list; for the bot's admins also `/persona add NAME TEXT` and `/persona remove NAME`."""
        message, locale = _message(update), await self._locales.of(update)
        args = (message.text or "").split(maxsplit=3)[1:]
        if args and args[0] in {"add", "remove"}:
            words = await self._edited(update, args, locale)
            await self._screen.say(spot_of(message), words)
            return
        names = [name for name, _ in await self._db.aread(_known, locale)]
        await self._screen.say(spot_of(message), text(locale, "persona.ask"), keyboards.personas(names))

    async def _edited(self, update: Update, args: list[str], locale: str) -> str:
        message, user = _message(update), update.effective_user
        assert user is not None
        known, _ = await self._db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC))
        if not is_admin(known):
            return text(locale, "refusal.not_admin")
        words = args[2] if args[0] == "add" and len(args) == 3 else None
        if len(args) < 2 or (args[0] == "add" and words is None):
            return text(locale, "persona.usage")
        if words is not None and len(words) > MAX_SYSTEM_CHARACTERS:
            return text(locale, "persona.too_long", characters=MAX_SYSTEM_CHARACTERS)
        await self._db.awrite(_keep, args[1], words, known.id, datetime.now(UTC))
        return text(locale, "persona.added" if words else "persona.removed", name=args[1])

    async def _persona_chosen(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = await self._allowed_press(update, context)
        if message is None:
            return
        locale, query = await self._locales.of(update), update.callback_query
        assert query is not None
        known, number = await self._db.aread(_known, locale), int(str(query.data).partition(":")[2])
        if number >= len(known):
            await self._screen.say(spot_of(message), text(locale, "refusal.stale_button"))
            return
        name, system = known[number]
        await self._set(message, update, system)
        await self._screen.say(spot_of(message), text(locale, "persona.chosen", name=name))

    async def _system(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        words = (message.text or "").partition(" ")[2].strip()
        if not words:
            system = await self._db.aread(_system, str(message.chat.id))
            shown = text(locale, "persona.system_is", system=system) if system else text(locale, "persona.system_none")
            await self._screen.say(spot_of(message), shown)
        elif not await may_configure(update, context.bot, self._db):
            await self._screen.say(spot_of(message), text(locale, "refusal.not_chat_admin"))
        elif len(words) > MAX_SYSTEM_CHARACTERS:
            too_long = text(locale, "persona.too_long", characters=MAX_SYSTEM_CHARACTERS)
            await self._screen.say(spot_of(message), too_long)
        else:
            is_off = words.lower() == "off"
            await self._set(message, update, None if is_off else words)
            await self._screen.say(spot_of(message), text(locale, "persona.system_off" if is_off else "persona.set"))

    async def _scope(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        if message.chat.type == ChatType.PRIVATE:
            await self._screen.say(spot_of(message), text(locale, "scope.groups_only"))
            return
        await self._screen.say(spot_of(message), text(locale, "scope.ask"), keyboards.scopes(locale))

    async def _scope_chosen(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message = await self._allowed_press(update, context)
        if message is None:
            return
        locale, query = await self._locales.of(update), update.callback_query
        assert query is not None
        scope = Scope(str(query.data).partition(":")[2])
        await self._db.awrite(_set_scope, place_under(message), speaker_of(query.from_user), scope, datetime.now(UTC))
        await self._screen.say(spot_of(message), text(locale, CHOSEN[scope]))

    async def _allowed_press(
        self, update: Update, context: ContextTypes.DEFAULT_TYPE
    ) -> MaybeInaccessibleMessage | None:
        """The message that was pressed under, by somebody who may; else they are told."""
        query = update.callback_query
        assert query is not None
        if query.message is not None and await may_configure(update, context.bot, self._db):
            await self._screen.toast(query, "")
            return query.message
        await self._screen.toast(query, text(await self._locales.of(update), "refusal.not_chat_admin"))
        return None

    async def _set(self, message: MaybeInaccessibleMessage, update: Update, system: str | None) -> None:
        user = update.effective_user
        assert user is not None
        await self._db.awrite(_set_system, place_under(message), speaker_of(user), system, datetime.now(UTC))


def _message(update: Update) -> Message:
    """Commands come in new messages: the handlers' filters see to it."""
    assert update.message is not None
    return update.message


def _known(session: Session, locale: str) -> list[tuple[str, str | None]]:
    """Names and system texts, the release's own first."""
    built_in = [(text(locale, name), text(locale, system) if system else None) for name, system in BUILT_IN]
    kept = settings.get(session, PERSONAS_KEY)
    return [*built_in, *(kept.value if kept and kept.value else {}).items()]


# What happens in the database, each one transaction


def _keep(session: Session, name: str, system: str | None, by_user_id: int, at: datetime) -> None:
    kept = settings.get(session, PERSONAS_KEY)
    known = dict(kept.value) if kept and kept.value else {}
    if system is None:
        known.pop(name, None)
    else:
        known[name] = system
    settings.put(session, PERSONAS_KEY, known, by_user_id, at)
    audit.record(session, by_user_id, "persona.remove" if system is None else "persona.add", at, name=name)


def _system(session: Session, chat: str) -> str | None:
    known = chats.find(session, CHANNEL, chat)
    return known.system if known else None


def _set_system(session: Session, place: Place, speaker: Speaker, system: str | None, at: datetime) -> None:
    user, conversation = meet(session, place, speaker, at)
    chats.set_system(session, conversation.chat_id, system)
    audit.record(session, user.id, "chat.system", at, chat=conversation.chat_id)


def _set_scope(session: Session, place: Place, speaker: Speaker, scope: Scope, at: datetime) -> None:
    """What was said before stays with those who said it: everybody begins afresh here."""
    user = users.meet(session, place.channel, speaker.external_id, speaker.name, speaker.locale, at)
    chat = chats.meet(session, place.channel, place.chat, place.kind, place.title, at)
    if chat.scope is not scope:
        chats.set_scope(session, chat.id, scope)
        chats.begin(session, chat.id, place.thread, user.id, at)
        audit.record(session, user.id, "chat.scope", at, chat=chat.id, scope=scope.value)
