"""The right answer, in the rater's own words: asked for by a prompt, told by /fix in reply to an answer, or changed by
editing the message that told it. The newest text counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from telegram import ForceReply, Message, Update, User
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, MessageHandler, filters

from bot import CHANNEL
from bot.locales import Locales
from bot.marks import mark_private
from bot.places import Spot, is_machine, place_of, speaker_of, spot_of
from bot.render import Piece
from bot.screen import Screen
from huigan.texts import text, told
from huigan.turns import feedback
from huigan.turns.opening import Place, Refusal, Speaker
from storage import answers, correction_prompts, deliveries, ratings, users
from storage.db import Database, Session
from storage.records import Answer, Rating

PROMPT_NAME_CHARACTERS = 64


@dataclass(frozen=True)
class Corrected:
    """A correction, with what the same person said of the answer before."""

    answer: Answer
    known: Rating | None
    rating: Rating


class Corrections:
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        new, edited = filters.UpdateType.MESSAGE, filters.UpdateType.EDITED_MESSAGE
        return [
            CommandHandler("fix", self._fix, filters=new | edited),
            MessageHandler(edited & filters.REPLY & filters.TEXT & ~filters.COMMAND, self._edited),
        ]

    async def _fix(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.effective_message, update.effective_user
        if message is None or user is None or is_machine(user):
            return
        locale, spot = await self._locales.of(update), spot_of(message)
        answer_id = await self._db.aread(_meant, place_of(message), _replied_to(message))
        said = _after_command(message)
        is_edit = update.edited_message is not None
        if answer_id is None:
            if not is_edit:
                await self._screen.say(spot, text(locale, "refusal.fix_usage"))
        elif said or is_edit:
            await self._correct(message, user, answer_id, said, locale, is_edit=is_edit)
        else:
            known = await self._db.awrite(_met, speaker_of(user), datetime.now(UTC))
            await ask_for_correction(self._db, self._screen, spot, answer_id, user, known, locale)

    async def _edited(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Of a reply to a prompt; what else is edited is no correction."""
        message, user = update.edited_message, update.effective_user
        if message is None or user is None or is_machine(user):
            return
        answer_id = await self._db.aread(_asked, place_of(message), _replied_to(message))
        if answer_id is not None:
            locale = await self._locales.of(update)
            await self._correct(message, user, answer_id, message.text or "", locale, is_edit=True)

    async def _correct(
        self, message: Message, user: User, answer_id: int, said: str, locale: str, *, is_edit: bool
    ) -> None:
        at, spot = datetime.now(UTC), spot_of(message)
        result = await self._db.awrite(correct, answer_id, speaker_of(user), said, at, is_edit=is_edit)
        if isinstance(result, Refusal):
            await self._screen.say(spot, told(locale, "refusal", result.code, result.params))
            return
        await tell_corrected(self._db, self._screen, spot, result, locale)


async def tell_corrected(db: Database, screen: Screen, spot: Spot, corrected: Corrected, locale: str) -> None:
    """Nothing where it says nothing new."""
    if corrected.rating == corrected.known:
        return
    await screen.say(spot, text(locale, "correction.thanks"))
    if not spot.is_group:
        await mark_private(db, screen, spot.chat_id, corrected.answer, corrected.known, corrected.rating, locale)


async def ask_for_correction(
    db: Database, screen: Screen, spot: Spot, answer_id: int, user: User, user_id: int, locale: str
) -> None:
    """Whether they may correct it is decided when they do."""
    force = ForceReply(selective=True, input_field_placeholder=text(locale, "correction.placeholder"))
    message_id = await screen.send(spot, _prompt(user, locale, is_group=spot.is_group), force)
    where = (CHANNEL, str(spot.chat_id), str(message_id))
    await db.awrite(correction_prompts.add, answer_id, user_id, *where, datetime.now(UTC))


def _prompt(user: User, locale: str, *, is_group: bool) -> Piece:
    """In a group it names the person, so that their client opens the reply."""
    if not is_group:
        return Piece(text(locale, "correction.prompt"))
    name = (user.full_name or str(user.id))[:PROMPT_NAME_CHARACTERS].strip() or str(user.id)
    words = text(locale, "correction.prompt_of", name=name)
    before = words[: words.index(name)]
    units = [len(part.encode("utf-16-le")) // 2 for part in (before, name)]
    mention = {"type": "text_mention", "offset": units[0], "length": units[1], "user": user.to_dict()}
    return Piece(words, (mention,))


def _replied_to(message: Message) -> str | None:
    return str(message.reply_to_message.message_id) if message.reply_to_message else None


def _after_command(message: Message) -> str:
    """With its line breaks, which a list of arguments has lost."""
    return (message.text or "")[message.entities[0].length :].strip()


# What happens in the database


def _asked(session: Session, place: Place, reply_to: str | None) -> int | None:
    prompt = correction_prompts.find(session, CHANNEL, place.chat, reply_to) if reply_to else None
    return prompt.answer_id if prompt else None


def _meant(session: Session, place: Place, reply_to: str | None) -> int | None:
    """The answer that a message replies to, itself or by way of a prompt."""
    shown = deliveries.find(session, CHANNEL, place.chat, reply_to) if reply_to else None
    return shown.answer_id if shown else _asked(session, place, reply_to)


def _met(session: Session, speaker: Speaker, at: datetime) -> int:
    return users.meet(session, CHANNEL, speaker.external_id, speaker.name, speaker.locale, at).id


def correct(
    session: Session, answer_id: int, speaker: Speaker, said: str, at: datetime, *, is_edit: bool = False
) -> Corrected | Refusal:
    user_id = _met(session, speaker, at)
    known = ratings.newest(session, answer_id, user_id)
    rating = feedback.correct(session, answer_id, user_id, said, at, is_edit=is_edit)
    if isinstance(rating, Refusal):
        return rating
    return Corrected(answers.get(session, answer_id), known, rating)
