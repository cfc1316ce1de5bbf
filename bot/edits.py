"""A question that its author edits: the new version is kept, and a button offers an answer to it.

One offer a question: a later edit changes it, or where this process does not know it, makes an older one stale.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from telegram import Bot, CallbackQuery, Message, Update
from telegram.ext import BaseHandler, CallbackQueryHandler, ContextTypes, MessageHandler, filters

from bot import CHANNEL, keyboards
from bot.files import Answering, Files, Unread
from bot.locales import Locales
from bot.pastes import LONGEST_UNITS
from bot.places import Spot, edited_source_of, is_machine, place_of, said_to_us, source_of, speaker_of, spot_of
from bot.render import Piece
from bot.screen import Screen
from bot.showing import Shows
from huigan.texts import text, told
from huigan.turns.opening import Refusal, Speaker, answer_edited, edit
from storage import chats, deployments, messages, showings, users
from storage.db import Database, Session
from storage.records import Message as Said
from storage.records import Turn

REMEMBERED_OFFERS = 1024


class Edits:
    def __init__(self, db: Database, shows: Shows, screen: Screen, locales: Locales, files: Files) -> None:
        self._db = db
        self._shows = shows
        self._screen = screen
        self._locales = locales
        self._files = files
        self._offers: OrderedDict[int, int] = OrderedDict()  # the message that offers, by the original question

    def presses(self) -> BaseHandler[Any, Any, Any]:
        return CallbackQueryHandler(self._pressed, pattern=r"^edited:")

    def edits(self) -> BaseHandler[Any, Any, Any]:
        """For a group of handlers of its own: what is edited may be something else as well."""
        what = (filters.TEXT | filters.CAPTION) & ~filters.COMMAND
        return MessageHandler(filters.UpdateType.EDITED_MESSAGE & what, self._edited)

    async def _edited(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.edited_message, update.effective_user
        if message is None or user is None or is_machine(user):
            return
        said = said_to_us(message, context.bot)
        original = await self._db.aread(messages.by_source, source_of(message))
        if said is None or original is None:
            return
        locale = await self._locales.of(update)
        spot = Spot(message.chat.id, spot_of(message).thread_id, message.message_id)
        if message.text and len(original.text.encode("utf-16-le")) // 2 > LONGEST_UNITS:
            if said not in original.text:  # no piece of a paste says what the whole would be now
                await self._screen.say(spot, text(locale, "edit.of_a_piece"))
            return
        answering = functools.partial(deployments.for_turn, conversation_id=original.conversation_id, sampled=False)
        version = await self._version(update, message, said, locale, context.bot, answering)
        if isinstance(version, Said):
            await self._offer(spot, version, locale)
        elif version is not None:
            await self._screen.say(spot, version)

    async def _version(
        self, update: Update, message: Message, said: str, locale: str, bot: Bot, answering: Answering
    ) -> Said | str | None:
        """The version as it is kept, or what to say instead."""
        read = await self._files.read([message], said, locale, bot, answering)
        if isinstance(read, Unread):
            return told(locale, "file", read.code, read.params)
        assert update.effective_user is not None
        who, where = speaker_of(update.effective_user), place_of(message)
        sources = (source_of(message), edited_source_of(message, update.update_id))
        enclosed = None if message.media_group_id else read.enclosed  # of an album, one picture was edited
        version = await self._db.awrite(edit, where, who, read.text, *sources, datetime.now(UTC), enclosed=enclosed)
        if isinstance(version, Refusal):
            return told(locale, "refusal", version.code, version.params)
        return version

    async def _offer(self, spot: Spot, version: Said, locale: str) -> None:
        assert version.replaces_id is not None
        piece, keyboard = Piece(text(locale, "edit.offer")), keyboards.answer_edited(version.id, locale)
        known = self._offers.pop(version.replaces_id, None)
        if known is None:
            known = await self._screen.send(spot, piece, keyboard)
        else:
            known = await self._screen.edit(spot, known, piece, keyboard)
        self._offers[version.replaces_id] = known
        if len(self._offers) > REMEMBERED_OFFERS:
            self._offers.popitem(last=False)

    async def _pressed(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        assert query is not None
        press = keyboards.parse(query.data)
        ids = press.ids if press is not None else ()
        turn: Turn | Refusal = Refusal("stale_button")
        if len(ids) == 1 and query.message is not None:
            turn = await self._db.awrite(
                _opened, ids[0], str(query.message.chat.id), speaker_of(query.from_user), datetime.now(UTC)
            )
        locale = await self._locales.of(update)
        if isinstance(turn, Refusal):
            await self._screen.toast(query, told(locale, "refusal", turn.code, turn.params))
            return
        await self._screen.toast(query, "")
        self._shows.start(turn)
        await self._close(query, turn)

    async def _close(self, query: CallbackQuery, turn: Turn) -> None:
        """The button goes, and the next edit is offered anew."""
        shown = query.message
        version = await self._db.aread(messages.get, turn.message_id)
        self._offers.pop(version.replaces_id or 0, None)
        if isinstance(shown, Message):
            await self._screen.mark(shown.chat.id, shown.message_id, None, shown.reply_markup)


def _opened(session: Session, message_id: int, chat: str, speaker: Speaker, at: datetime) -> Turn | Refusal:
    """A press may be forged: the question must be one of this chat."""
    version = messages.many(session, [message_id]).get(message_id)
    if version is None:
        return Refusal("stale_button")
    held_in = chats.get(session, chats.conversation_of(session, version.conversation_id).chat_id)
    if (held_in.channel, held_in.external_id) != (CHANNEL, chat):
        return Refusal("stale_button")
    user = users.meet(session, CHANNEL, speaker.external_id, speaker.name, speaker.locale, at)
    turn = answer_edited(session, message_id, user.id, at)
    if isinstance(turn, Turn):
        showings.begin(session, turn.id, CHANNEL, at)
    return turn
