"""Everybody's commands: /start, /help, /id, /new, and /claim for the first owner."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from telegram import Message, Update, User
from telegram.constants import ChatType
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, MessageHandler, filters

from bot import claim, keyboards
from bot.locales import Locales
from bot.places import place_of, speaker_of, spot_of
from bot.rights import is_admin
from bot.screen import Screen
from huigan.texts import text, told
from huigan.turns.opening import Place, Refusal, Speaker, meet, start_over
from storage.db import Database, Session


class Commands:
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._locales = locales
        self._db = db
        self._screen = screen

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        named = {"start": self._start, "help": self._help, "id": self._id, "new": self._new, "claim": self._claim}
        return [CommandHandler(name, callback, filters=new) for name, callback in named.items()]

    def unknown(self) -> BaseHandler[Any, Any, Any]:
        """Register last: a command that nobody knows is answered with those that are known."""
        return MessageHandler(filters.UpdateType.MESSAGE & filters.COMMAND & filters.ChatType.PRIVATE, self._help)

    async def _start(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = _of(update)
        if message.chat.type != ChatType.PRIVATE:
            await self._help(update, context)
        elif context.args and await self._claim_is_open():
            await self._claim(update, context)
        else:
            await self._db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC))
            locale = await self._locales.of(update)
            words = f"{text(locale, 'bot.start')}\n\n{text(locale, 'bot.consent_ask')}"
            await self._screen.say(spot_of(message), words, keyboards.consent(locale))

    async def _claim_is_open(self) -> bool:
        return await self._db.aread(claim.is_open)

    async def _help(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = _of(update)
        locale = await self._locales.of(update)
        words = text(locale, "bot.help", username=context.bot.username)
        if await self._db.awrite(_is_admin, place_of(message), speaker_of(user), datetime.now(UTC)):
            words += f"\n\n{text(locale, 'bot.help_admin')}"
        await self._screen.say(spot_of(message), words)

    async def _id(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = _of(update)
        words = text(await self._locales.of(update), "bot.id", user=user.id, chat=message.chat.id)
        await self._screen.say(spot_of(message), words)

    async def _new(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = _of(update)
        await self._db.awrite(start_over, place_of(message), speaker_of(user), datetime.now(UTC))
        await self._screen.say(spot_of(message), text(await self._locales.of(update), "bot.new"))

    async def _claim(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = _of(update)
        locale, code = await self._locales.of(update), "".join(context.args or [])
        if message.chat.type != ChatType.PRIVATE:
            words = text(locale, "refusal.claim_private")
        else:
            result = await self._db.awrite(claim.claim, speaker_of(user), code, datetime.now(UTC))
            words = told(locale, "refusal", result.code) if isinstance(result, Refusal) else text(locale, "bot.claimed")
        await self._screen.say(spot_of(message), words)


def _of(update: Update) -> tuple[Message, User]:
    """Commands come in new messages of people: the handlers' filters see to it."""
    assert update.message is not None
    assert update.effective_user is not None
    return update.message, update.effective_user


def _is_admin(session: Session, place: Place, speaker: Speaker, at: datetime) -> bool:
    return is_admin(meet(session, place, speaker, at)[0])
