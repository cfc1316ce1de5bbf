"""Stopping what is being answered: /stop, and the button that Telegram has beside a draft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session
from telegram import Update
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, filters

from bot import CHANNEL
from bot.locales import Locales
from bot.places import spot_of
from bot.screen import Screen
from huigan.texts import text
from huigan.turns.desk import Desk
from storage import chats, turns, users
from storage.db import Database

STOPPED = "stopped_message_generation"  # the kind of update; python-telegram-bot does not know it


class Stopping:
    def __init__(self, db: Database, desk: Desk, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._desk = desk
        self._screen = screen
        self._locales = locales

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        return [CommandHandler("stop", self._stop, filters=new), _DraftStopped(self._stop_draft)]

    async def _stop(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """What the asker waits for in this chat ends, each with its own words."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        asked = await self._db.aread(_asked, str(user.id), str(message.chat.id))
        for turn_id, user_id in asked:
            await self._desk.stop(turn_id, user_id)
        if not asked:
            await self._screen.say(spot_of(message), text(await self._locales.of(update), "bot.nothing_to_stop"))

    async def _stop_draft(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A draft has the number of its turn, and drafts are in private chats: the chat is the person."""
        stopped = update.api_kwargs[STOPPED]
        user = await self._db.aread(users.find, CHANNEL, str(stopped["chat"]["id"]))
        if user is not None:
            await self._desk.stop(int(stopped["draft_id"]), user.id)


class _DraftStopped(BaseHandler[Update, ContextTypes.DEFAULT_TYPE, None]):
    def __init__(self, callback: Callable[[Update, ContextTypes.DEFAULT_TYPE], Any]) -> None:
        super().__init__(callback)

    def check_update(self, update: object) -> bool:
        return isinstance(update, Update) and STOPPED in update.api_kwargs


def _asked(session: Session, user: str, chat: str) -> list[tuple[int, int]]:
    """The turns of theirs that wait or stream there, with their number."""
    asker, place = users.find(session, CHANNEL, user), chats.find(session, CHANNEL, chat)
    if asker is None or place is None:
        return []
    return [
        (each.id, asker.id)
        for each in turns.unclosed(session)
        if each.user_id == asker.id and chats.conversation_of(session, each.conversation_id).chat_id == place.id
    ]
