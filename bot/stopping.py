"""Stopping what is being answered, or still collected: /stop, and the button that Telegram has beside a draft."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from telegram import Bot, Message, Update
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, filters

from bot import CHANNEL, keyboards
from bot.locales import Locales
from bot.places import message_id_in, said_to_us, spot_of
from bot.screen import Screen
from bot.updates import STOPPED, keys_like
from huigan.texts import text
from huigan.turns.desk import Desk
from storage import chats, messages, turns, updates, users
from storage.db import Database, Session


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
        """What the asker said in this chat before is dropped where it is not a question yet; what they wait for ends,
        each with its own words. What they say afterwards is handled at the same time, and stays."""
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        dropped, asked = await self._db.awrite(_reached, update, context.bot, datetime.now(UTC))
        for turn_id, user_id in asked:
            await self._desk.stop(turn_id, user_id)
        if dropped or not asked:
            code = "bot.dropped" if dropped else "bot.nothing_to_stop"
            await self._screen.say(spot_of(message), text(await self._locales.of(update), code))

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


def _reached(session: Session, update: Update, bot: Bot, at: datetime) -> tuple[bool, list[tuple[int, int]]]:
    """Whether something was dropped, and the turns that are to be stopped, with their asker's number."""
    message = update.message
    assert message is not None
    assert message.from_user is not None
    keys = keys_like(message.chat.id, message.from_user.id)
    said = [Update.de_json(dict(each.body), bot) for each in updates.before(session, update.update_id, keys)]
    dropped = [each for each in said if _asks(each)]
    for each in dropped:
        updates.mark_handled(session, each.update_id, at)
    is_told = any(each.message is None or said_to_us(each.message, bot) is not None for each in dropped)
    return is_told, _asked(session, message)


def _asks(update: Update) -> bool:
    """Commands were heard, and so were presses, but for one that has a file fetched once more."""
    if update.message is not None:
        return not filters.COMMAND.check_update(update) and not filters.StatusUpdate.ALL.check_update(update)
    press = keyboards.parse(update.callback_query.data) if update.callback_query else None
    return press is not None and press.act == "refetch"


def _asked(session: Session, stop: Message) -> list[tuple[int, int]]:
    """The turns of theirs that wait or stream there, with their number; not of what they said after that."""
    assert stop.from_user is not None
    asker, place = (
        users.find(session, CHANNEL, str(stop.from_user.id)),
        chats.find(session, CHANNEL, str(stop.chat.id)),
    )
    if asker is None or place is None:
        return []
    return [
        (each.id, asker.id)
        for each in turns.unclosed(session)
        if each.user_id == asker.id
        and chats.conversation_of(session, each.conversation_id).chat_id == place.id
        and message_id_in(messages.get(session, each.message_id).source) < stop.message_id
    ]
