"""What people send to the bot: a question opens a turn, with its files; a reply to the bot's own prompt is a
correction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from telegram import Bot, Message, Update, User
from telegram.ext import BaseHandler, ContextTypes, MessageHandler, filters

from bot import CHANNEL
from bot.files import Files, Read, Unread
from bot.locales import Locales
from bot.pastes import Pastes, joined
from bot.places import place_of, said_to_us, source_of, speaker_of, spot_of
from bot.screen import Screen
from bot.showing import Shows
from huigan.texts import text, told
from huigan.turns import feedback
from huigan.turns.opening import Place, Refusal, Speaker, open_turn, refused
from storage import correction_prompts, showings, updates, users
from storage.db import Database
from storage.records import Rating, Turn

# Stands for whoever writes as the group itself: all such admins of a group are one user to us.
ANONYMOUS_ADMIN_ID = 1087968824


class Messages:
    def __init__(
        self, db: Database, shows: Shows, screen: Screen, locales: Locales, pastes: Pastes, files: Files
    ) -> None:
        self._locales = locales
        self._db = db
        self._shows = shows
        self._screen = screen
        self._pastes = pastes
        self._files = files

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        return [MessageHandler(new & ~filters.COMMAND & ~filters.StatusUpdate.ALL, self._said)]

    async def _said(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        if message is None or user is None or is_machine(user):
            return
        whole = await self._pastes.whole(update, context.bot)
        ids = [each.update_id for each in whole]
        parts = [each.message for each in whole if each.message is not None]
        said = _said_at_once(parts, context.bot)
        if said is not None:
            await self._answer(update, parts, said, ids, context.bot)
        if len(ids) > 1:
            await self._db.awrite(_handled, ids, datetime.now(UTC))

    async def _answer(self, update: Update, parts: list[Message], said: str, ids: list[int], bot: Bot) -> None:
        message, user = parts[0], update.effective_user
        assert user is not None
        locale, place, speaker = await self._locales.of(update), place_of(message), speaker_of(user)
        if not message.text:
            kept_out = await self._db.awrite(refused, place, speaker, datetime.now(UTC))
            if kept_out is not None:  # nothing is fetched for them
                await self._screen.say(spot_of(message), _reply(kept_out, locale))
                return
        read = await self._files.read(parts, said, locale, bot)
        if isinstance(read, Unread):
            await self._screen.say(spot_of(message), told(locale, "file", read.code, read.params))
            return
        reply_to = str(message.reply_to_message.message_id) if message.reply_to_message else None
        at = datetime.now(UTC)
        stored = await self._db.awrite(_store, place, speaker, read, source_of(message), reply_to, ids, at)
        if read.note:
            await self._screen.say(spot_of(message), read.note)
        if isinstance(stored, Turn):
            self._shows.start(stored)
        elif stored is not None:
            await self._screen.say(spot_of(message), _reply(stored, locale))


def _said_at_once(parts: list[Message], bot: Bot) -> str | None:
    """None if none of them was said to us."""
    to_us = [said_to_us(each, bot) for each in parts]
    if all(each is None for each in to_us):
        return None
    said = [
        (each.text or each.caption or "") if words is None else words for each, words in zip(parts, to_us, strict=True)
    ]
    return joined(parts, said) if parts[0].text else "\n".join(filter(None, said))


def _store(
    session: Session,
    place: Place,
    speaker: Speaker,
    read: Read,
    source: str,
    reply_to: str | None,
    update_ids: list[int],
    at: datetime,
) -> Turn | Rating | Refusal | None:
    """One transaction: the question and that what brought it is handled, so that a kill neither splits nor loses it.
    None if it was answered already: an update that is replayed."""
    prompt = correction_prompts.find(session, CHANNEL, place.chat, reply_to) if reply_to else None
    if prompt is not None:
        user = users.meet(session, CHANNEL, speaker.external_id, speaker.name, speaker.locale, at)
        return feedback.correct(session, prompt.answer_id, user.id, read.text, at)
    how: dict[str, Any] = {"reply_to": reply_to, "enclosed": read.enclosed}
    opened = open_turn(session, place, speaker, read.text, source, at, **how)
    if isinstance(opened, Turn):
        showings.begin(session, opened.id, CHANNEL, at)
        _handled(session, update_ids, at)
    return opened


def _handled(session: Session, update_ids: list[int], at: datetime) -> None:
    for each in update_ids:
        updates.mark_handled(session, each, at)


def _reply(stored: Rating | Refusal, locale: str) -> str:
    if isinstance(stored, Refusal):
        return told(locale, "refusal", stored.code, stored.params)
    return text(locale, "correction.thanks")


def is_machine(user: User) -> bool:
    return user.is_bot and user.id != ANONYMOUS_ADMIN_ID
