"""What people write to the bot: a question opens a turn, a reply to the bot's own prompt is a correction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from telegram import Message, Update, User
from telegram.constants import ChatType
from telegram.ext import BaseHandler, ContextTypes, MessageHandler, filters

from bot import CHANNEL
from bot.locales import Locales
from bot.places import place_of, said_to_us, source_of, speaker_of, spot_of
from bot.screen import Screen
from bot.showing import Shows
from huigan.texts import text, told
from huigan.turns import feedback
from huigan.turns.opening import Place, Refusal, Speaker, open_turn
from storage import correction_prompts, showings, users
from storage.db import Database
from storage.records import Rating, Turn

# Stands for whoever writes as the group itself: all such admins of a group are one user to us.
ANONYMOUS_ADMIN_ID = 1087968824


class Messages:
    def __init__(self, db: Database, shows: Shows, screen: Screen, locales: Locales) -> None:
        self._locales = locales
        self._db = db
        self._shows = shows
        self._screen = screen

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        return [
            MessageHandler(new & filters.TEXT & ~filters.COMMAND, self._said),
            MessageHandler(new & ~filters.TEXT & ~filters.StatusUpdate.ALL, self._unread),
        ]

    async def _said(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        if message is None or user is None or _is_machine(user):
            return
        said = said_to_us(message, context.bot)
        if said is None:
            return
        reply_to = str(message.reply_to_message.message_id) if message.reply_to_message else None
        at = datetime.now(UTC)
        stored = await self._db.awrite(
            _store, place_of(message), speaker_of(user), said, source_of(message), reply_to, at
        )
        if isinstance(stored, Turn):
            self._shows.start(stored)
        elif stored is not None:
            await self._screen.say(spot_of(message), _reply(stored, await self._locales.of(update)))

    async def _unread(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """A photo, a voice message, a file: where it was meant for us, say that it cannot be read."""
        message, user = update.message, update.effective_user
        if message is None or user is None or not _is_meant_for_us(message, context.bot.id):
            return
        await self._screen.say(spot_of(message), text(await self._locales.of(update), "refusal.not_text"))


def _store(
    session: Session, place: Place, speaker: Speaker, said: str, source: str, reply_to: str | None, at: datetime
) -> Turn | Rating | Refusal | None:
    """One transaction. None if it was answered already: an update that is replayed."""
    prompt = correction_prompts.find(session, CHANNEL, place.chat, reply_to) if reply_to else None
    if prompt is not None:
        user = users.meet(session, CHANNEL, speaker.external_id, speaker.name, speaker.locale, at)
        return feedback.correct(session, prompt.answer_id, user.id, said, at)
    opened = open_turn(session, place, speaker, said, source, at, reply_to=reply_to)
    if isinstance(opened, Turn):
        showings.begin(session, opened.id, CHANNEL, at)
    return opened


def _reply(stored: Rating | Refusal, locale: str) -> str:
    if isinstance(stored, Refusal):
        return told(locale, "refusal", stored.code, stored.params)
    return text(locale, "correction.thanks")


def _is_machine(user: User) -> bool:
    return user.is_bot and user.id != ANONYMOUS_ADMIN_ID


def _is_meant_for_us(message: Message, bot_id: int) -> bool:
    if message.chat.type == ChatType.PRIVATE:
        return True
    reply = message.reply_to_message
    return reply is not None and reply.from_user is not None and reply.from_user.id == bot_id
