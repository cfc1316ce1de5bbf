"""What concerns one person: their language, what is kept of them and what it may be used for, and who answered them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from telegram import Message, Update
from telegram.constants import ChatType
from telegram.ext import BaseHandler, CallbackQueryHandler, CommandHandler, ContextTypes, filters

from bot import CHANNEL, keyboards
from bot.locales import Locales
from bot.places import place_of, place_under, replied_to, speaker_of, spot_of
from bot.rights import may_configure
from bot.screen import Screen
from bot.status import time_of
from huigan.texts import LOCALES, text, told
from huigan.turns import why
from huigan.turns.erasure import Forgotten, forget
from huigan.turns.export import own_data
from huigan.turns.opening import Place, Speaker, meet
from huigan.turns.refusals import Refusal
from storage import answers, audit, chats, deliveries, users
from storage.db import Database, Session
from storage.records import ChatKind, User

logger = logging.getLogger(__name__)

# As buttons name them: a press has room for small letters.
CHOICES = {"hans": "zh-Hans", "hant": "zh-Hant", "en": "en", "auto": None}
assert set(LOCALES) < set(CHOICES.values())


class Personal:
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new = filters.UpdateType.MESSAGE
        named = {
            "lang": self._lang,
            "privacy": self._privacy,
            "export": self._export,
            "forget": self._forget,
            "why": self._why,
        }
        return [
            *(CommandHandler(name, callback, filters=new) for name, callback in named.items()),
            CallbackQueryHandler(self._lang_chosen, pattern=r"^lang:[a-z]+$"),
            CallbackQueryHandler(self._forget_confirmed, pattern=r"^forget:(yes|no)$"),
        ]

    async def _lang(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        await self._screen.say(spot_of(message), text(locale, "personal.lang_ask"), keyboards.languages(locale))

    async def _lang_chosen(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        assert query is not None
        choice = str(query.data).partition(":")[2]
        if choice not in CHOICES or query.message is None:
            await self._screen.toast(query, text(await self._locales.of(update), "refusal.stale_button"))
            return
        if not await may_configure(update, context.bot, self._db):
            await self._screen.toast(query, text(await self._locales.of(update), "refusal.not_chat_admin"))
            return
        place, speaker = place_under(query.message), speaker_of(query.from_user)
        await self._db.awrite(_choose, place, speaker, CHOICES[choice], datetime.now(UTC))
        locale = await self._locales.of(update)
        await self._screen.toast(query, text(locale, "personal.lang_chosen"))
        await self._screen.say(spot_of(query.message), text(locale, "personal.lang_chosen"))

    async def _privacy(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        user = await self._met(update)
        words = f"{text(locale, 'personal.privacy')}\n\n{text(locale, _training(user))}"
        await self._screen.say(spot_of(message), words, keyboards.consent(locale))

    async def _export(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        if message.chat.type != ChatType.PRIVATE:
            await self._screen.say(spot_of(message), text(locale, "refusal.private_only"))
            return
        user = await self._met(update)
        kept = await self._db.aread(own_data, user.id, datetime.now(UTC))
        document = json.dumps(kept, ensure_ascii=False, indent=2).encode("utf-8", errors="replace")
        await self._screen.send_document(
            spot_of(message), document, f"huigan-{user.external_id}.json", text(locale, "personal.export_caption")
        )

    async def _forget(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        if message.chat.type != ChatType.PRIVATE:
            await self._screen.say(spot_of(message), text(locale, "refusal.private_only"))
            return
        await self._screen.say(spot_of(message), text(locale, "personal.forget_ask"), keyboards.forget(locale))

    async def _forget_confirmed(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        assert query is not None
        locale = await self._locales.of(update)
        if query.message is None or query.message.chat.type != ChatType.PRIVATE:
            await self._screen.toast(query, text(locale, "refusal.stale_button"))
            return
        await self._screen.toast(query, "")
        if query.data == "forget:no":
            words = text(locale, "personal.forget_kept")
        else:
            words = await self._forgotten(str(query.from_user.id), locale)
        await self._screen.say(spot_of(query.message), words)

    async def _forgotten(self, external_id: str, locale: str) -> str:
        gone = await self._db.awrite(_forgotten, external_id, datetime.now(UTC))
        if isinstance(gone, Refusal):
            return told(locale, "refusal", gone.code, gone.params)
        await asyncio.to_thread(_remove, gone.paths)
        counts = {"messages": gone.messages, "answers": gone.answers, "ratings": gone.ratings}
        return text(locale, "personal.forgotten", **counts)

    async def _why(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, locale = _message(update), await self._locales.of(update)
        replied, user = replied_to(message), update.effective_user
        reply = str(replied.message_id) if replied else None
        assert user is not None
        origin = await self._db.awrite(_origin, place_of(message), speaker_of(user), reply, datetime.now(UTC))
        words = text(locale, "personal.why_nothing") if origin is None else _told_origin(origin, locale)
        await self._screen.say(spot_of(message), words)

    async def _met(self, update: Update) -> User:
        message, user = _message(update), update.effective_user
        assert user is not None
        return (await self._db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC)))[0]


def _message(update: Update) -> Message:
    """Commands come in new messages: the handlers' filters see to it."""
    assert update.message is not None
    return update.message


def _training(user: User) -> str:
    if user.consented_at is not None:
        return "personal.training_yes"
    return "personal.training_unasked" if user.declined_at is None else "personal.training_no"


def _told_origin(origin: why.Origin, locale: str) -> str:
    answer, lines = origin.answer, []
    if origin.release is None:
        lines.append(text(locale, "personal.why_tag", tag=answer.tag))
    else:
        lines.append(text(locale, "personal.why_release", release=origin.release.id, tag=origin.release.tag))
    if origin.run_id is not None:
        lines.append(text(locale, "personal.why_run", run=origin.run_id))
    if origin.deployment is not None:
        lines.append(text(locale, "personal.why_since", since=time_of(origin.deployment.since_at)))
    seen, dropped = len(answer.seen.row_ids), answer.seen.dropped
    lines.append(text(locale, "personal.why_seen", seen=seen, dropped=dropped))
    if answer.total_seconds is not None:
        tokens = answer.answer_tokens if answer.answer_tokens is not None else "?"
        lines.append(text(locale, "personal.why_cost", tokens=tokens, seconds=f"{answer.total_seconds:.1f}"))
    return "\n".join(lines)


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            logger.error("an attachment could not be removed: %s", error.strerror)


# What happens in the database, each one transaction


def _choose(session: Session, place: Place, speaker: Speaker, locale: str | None, at: datetime) -> None:
    """For oneself in a private chat, for everybody in a group."""
    user = users.meet(session, place.channel, speaker.external_id, speaker.name, speaker.locale, at)
    if place.kind is ChatKind.PRIVATE:
        users.choose_locale(session, user.id, locale)
    else:
        chats.set_locale(
            session, chats.meet(session, place.channel, place.chat, place.kind, place.title, at).id, locale
        )
        audit.record(session, user.id, "chat.locale", at, chat=place.chat, locale=locale)


def _forgotten(session: Session, external_id: str, at: datetime) -> Forgotten | Refusal:
    user = users.find(session, CHANNEL, external_id)
    if user is None:
        return Forgotten(0, 0, 0, ())
    gone = forget(session, user.id, at)
    if isinstance(gone, Forgotten):
        audit.record(session, user.id, "user.forget", at)
    return gone


def _origin(session: Session, place: Place, speaker: Speaker, reply_to: str | None, at: datetime) -> why.Origin | None:
    """Of the answer replied to, else of the newest one in the speaker's conversation."""
    if reply_to is not None:
        shown = deliveries.find(session, place.channel, place.chat, reply_to)
        return why.of_answer(session, shown.answer_id) if shown else None
    _, conversation = meet(session, place, speaker, at)
    newest = answers.newest_of_conversation(session, conversation.id)
    return why.of_answer(session, newest.id) if newest else None
