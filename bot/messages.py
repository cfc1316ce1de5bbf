"""What people send to the bot: a question opens a turn, with its files; a reply to the bot's own prompt is a
correction. A file that could not be fetched is fetched once more by a button, from the update as it is stored."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from telegram import Bot, CallbackQuery, Message, Update
from telegram.ext import BaseHandler, CallbackQueryHandler, ContextTypes, MessageHandler, filters

from bot import CHANNEL, keyboards
from bot.corrections import Corrected, correct, tell_corrected
from bot.files import Files, Read, Unread
from bot.locales import Locales
from bot.pastes import Pastes, joined
from bot.places import is_machine, place_of, replied_to, said_to_us, source_of, speaker_of, spot_of
from bot.screen import Screen
from bot.showing import Shows
from huigan.texts import text, told
from huigan.turns.opening import Place, Refusal, Speaker, answering, open_turn, refused
from storage import correction_prompts, messages, showings, updates
from storage.db import Database, Session
from storage.records import Turn

# Stands for whoever writes as the group itself: all such admins of a group are one user to us.
LOOK_SECONDS = 0.5  # between looks whether what is being fetched was dropped by /stop


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
        return [
            MessageHandler(new & ~filters.COMMAND & ~filters.StatusUpdate.ALL, self._said),
            CallbackQueryHandler(self._fetch_again, pattern=r"^refetch:"),
        ]

    async def _said(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        if message is None or user is None or is_machine(user):
            return
        whole = await self._pastes.whole(update, context.bot)
        ids = [each.update_id for each in whole]
        unread = await self._answer(whole, ids, context.bot)
        if unread is not None:
            locale = await self._locales.of(update)
            retry = keyboards.fetch_again(update.update_id, locale) if unread.code == "lost" else None
            await self._screen.say(spot_of(message), told(locale, "file", unread.code, unread.params), retry)
        if len(ids) > 1:
            await self._db.awrite(_handled, ids, datetime.now(UTC))

    async def _fetch_again(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        assert query is not None
        whole, locale = await self._lost(query, context.bot), await self._locales.of(update)
        words = told(locale, "refusal", whole.code) if isinstance(whole, Refusal) else text(locale, "file.again")
        await self._screen.toast(query, words)
        shown = query.message
        if isinstance(whole, Refusal) or not isinstance(shown, Message):
            return
        where = (shown.chat.id, shown.message_id)
        await self._screen.mark(*where, None, shown.reply_markup)
        unread = await self._answer(whole, [update.update_id], context.bot)
        if unread is None:
            return
        if unread.code == "lost":
            await self._screen.mark(*where, shown.reply_markup, None)
        else:
            await self._screen.say(spot_of(shown), told(locale, "file", unread.code, unread.params))

    async def _lost(self, query: CallbackQuery, bot: Bot) -> list[Update] | Refusal:
        """What is to be fetched again. A press may be forged, or come twice: it is of who asked, there, and once."""
        press = keyboards.parse(query.data)
        whole = await self._pastes.once_more(press.ids[0], bot) if press is not None and len(press.ids) == 1 else []
        first = whole[0].message if whole else None
        if first is None or query.message is None or first.chat.id != query.message.chat.id:
            return Refusal("stale_button")
        if first.from_user != query.from_user:
            return Refusal("not_yours")
        known = await self._db.aread(messages.by_source, source_of(first))
        return whole if known is None else Refusal("stale_button")

    async def _answer(self, whole: list[Update], ids: list[int], bot: Bot) -> Unread | None:
        """What could not be read, and is still to be told. `ids` are the updates that are handled with the question."""
        parts = [each.message for each in whole if each.message is not None]
        message, user, said = parts[0], whole[0].effective_user, _said_at_once(parts, bot)
        assert user is not None
        if said is None:
            return None
        locale, place, speaker = await self._locales.of(whole[0]), place_of(message), speaker_of(user)
        if not message.text:
            kept_out = await self._db.awrite(refused, place, speaker, datetime.now(UTC))
            if kept_out is not None:  # nothing is fetched for them
                await self._screen.say(spot_of(message), _reply(kept_out, locale))
                return None
        replied = replied_to(message)
        reply_to = str(replied.message_id) if replied else None
        by = functools.partial(answering, place=place, speaker=speaker, reply_to=reply_to)
        read = await self._unless_dropped(ids[0], self._files.read(parts, said, locale, bot, by))
        if read is None or isinstance(read, Unread):
            return read
        at = datetime.now(UTC)
        stored = await self._db.awrite(_store, place, speaker, read, source_of(message), reply_to, ids, at)
        if read.note and isinstance(stored, Turn | Corrected):
            await self._screen.say(spot_of(message), read.note)
        if isinstance(stored, Turn):
            self._shows.start(stored)
        elif isinstance(stored, Corrected):
            await tell_corrected(self._db, self._screen, spot_of(message), stored, locale)
        elif stored is not None:
            await self._screen.say(spot_of(message), _reply(stored, locale))
        return None

    async def _unless_dropped(
        self, update_id: int, reading: Coroutine[Any, Any, Read | Unread]
    ) -> Read | Unread | None:
        """None as soon as nobody waits for it any more."""
        task = asyncio.create_task(reading)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
                if not await self._db.aread(updates.is_open, update_id):
                    return None
            return task.result()
        finally:
            task.cancel()


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
) -> Turn | Corrected | Refusal | None:
    """One transaction: the question and that what brought it is handled, so that a kill neither splits nor loses it.
    None if it was answered already, an update that is replayed; or dropped while it was read."""
    if not updates.is_open(session, update_ids[0]):
        return None
    prompt = correction_prompts.find(session, CHANNEL, place.chat, reply_to) if reply_to else None
    if prompt is not None:
        return correct(session, prompt.answer_id, speaker, read.text, at)
    how: dict[str, Any] = {"reply_to": reply_to, "enclosed": read.enclosed}
    opened = open_turn(session, place, speaker, read.text, source, at, **how)
    if isinstance(opened, Turn):
        showings.begin(session, opened.id, CHANNEL, at)
        _handled(session, update_ids, at)
    return opened


def _handled(session: Session, update_ids: list[int], at: datetime) -> None:
    for each in update_ids:
        updates.mark_handled(session, each, at)


def _reply(refusal: Refusal, locale: str) -> str:
    return told(locale, "refusal", refusal.code, refusal.params)
