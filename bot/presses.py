"""Presses of the buttons under our messages. Whatever is pressed, late, twice, by whom it is not for or by a forged
client, does no harm: a press names rows, and what may be done to them is decided where it is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from telegram import CallbackQuery, InlineKeyboardMarkup, Message, Update
from telegram.ext import BaseHandler, CallbackQueryHandler, ContextTypes

from bot import CHANNEL, keyboards
from bot.corrections import ask_for_correction
from bot.keyboards import Press, parse
from bot.locales import Locales
from bot.marks import asks_why, marked
from bot.places import Spot, speaker_of, spot_of
from bot.screen import Screen
from bot.showing import Shows
from huigan.texts import text, told
from huigan.turns import feedback, withdrawal
from huigan.turns.desk import Desk
from huigan.turns.opening import Refusal, Speaker, answer_again
from storage import answers, chats, messages, showings, updates, users
from storage.db import Database, Session
from storage.records import Answer, Pick, Rating, Reason, Thumb, Turn, User

FindMessage = Callable[[Session, int], int | None]

# A second press so soon meant the thumb, not the ✓ that came to be there. What counts is when presses came: one that
# waited, or that an earlier life of the process has carried out already, says nothing new.
NERVOUS = timedelta(seconds=1.5)


@dataclass(frozen=True)
class Done:
    """What the person is told at once, and what is still to be done on the screen."""

    words: str = ""
    then: Callable[[], Awaitable[object]] | None = None


@dataclass(frozen=True)
class Pressed:
    """A press with all that is known of where and by whom."""

    press: Press
    query: CallbackQuery
    update_id: int
    spot: Spot
    message_id: int
    keyboard: InlineKeyboardMarkup | None  # under the message; None also where Telegram shows it to us no more
    locale: str

    @property
    def speaker(self) -> Speaker:
        return speaker_of(self.query.from_user)

    @property
    def chat(self) -> str:
        return str(self.spot.chat_id)


class Presses:
    def __init__(self, db: Database, desk: Desk, shows: Shows, screen: Screen, locales: Locales) -> None:
        self._locales = locales
        self._db = db
        self._desk = desk
        self._shows = shows
        self._screen = screen

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        return [CallbackQueryHandler(self._pressed)]

    async def _pressed(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query = update.callback_query
        assert query is not None
        locale = await self._locales.of(update)
        pressed = _pressed(query, update.update_id, locale)
        if pressed is None:
            await self._screen.toast(query, text(locale, "refusal.stale_button"))
            return
        done = await self._act(pressed)
        await self._screen.toast(query, done.words)
        if done.then is not None:
            await done.then()

    async def _act(self, pressed: Pressed) -> Done:
        match pressed.press:
            case Press("up" | "down" as thumb, (answer_id,), ""):
                return await self._rate(pressed, answer_id, Thumb(thumb))
            case Press("undo", (answer_id,), "up" | "down" as thumb):
                return await self._withdraw(pressed, answer_id, Thumb(thumb))
            case Press("why", (answer_id,), reason) if reason in set(Reason):
                return await self._give_reason(pressed, answer_id, Reason(reason))
            case Press("fix", (answer_id,), ""):
                return await self._ask_for_correction(pressed, answer_id)
            case Press("again", (answer_id,), ""):
                return await self._answer_again(pressed, _message_of_answer, answer_id)
            case Press("retry", (message_id,), ""):
                return await self._answer_again(pressed, _message, message_id)
            case Press("stop", (turn_id,), ""):
                return await self._stop(pressed, turn_id)
            case Press("pick", (left_id, right_id), pick) if pick in set(Pick):
                return await self._compare(pressed, left_id, right_id, Pick(pick))
            case Press("agree" | "decline" as choice, (), ""):
                return await self._consent(pressed, choice)
            case _:
                return _told(Refusal("stale_button"), pressed)

    async def _rate(self, pressed: Pressed, answer_id: int, thumb: Thumb) -> Done:
        result = await self._db.awrite(_rated, pressed, answer_id, thumb, datetime.now(UTC))
        if isinstance(result, Refusal):
            return _told(result, pressed)
        user, answer, rating = result
        return Done(_thanks(pressed, user, rating), lambda: self._mark_rated(pressed, answer, rating))

    async def _withdraw(self, pressed: Pressed, answer_id: int, thumb: Thumb) -> Done:
        result = await self._db.awrite(_withdrawn, pressed, answer_id, thumb, datetime.now(UTC))
        if isinstance(result, Refusal):
            return _told(result, pressed)
        _, answer, rating = result
        code = "rating.withdrawn" if rating.thumb is Thumb.WITHDRAWN else f"rating.{rating.thumb}"
        return Done(text(pressed.locale, code), lambda: self._mark_rated(pressed, answer, rating))

    async def _give_reason(self, pressed: Pressed, answer_id: int, reason: Reason) -> Done:
        result = await self._db.awrite(_reasoned, pressed, answer_id, reason, datetime.now(UTC))
        if isinstance(result, Refusal):
            return _told(result, pressed)
        _, answer, rating = result
        return Done(text(pressed.locale, "reason.thanks"), lambda: self._mark_rated(pressed, answer, rating))

    async def _mark_rated(self, pressed: Pressed, answer: Answer, rating: Rating) -> None:
        """In a private chat the thumb is marked. In a group several may rate, and edits are dear: only the reasons
        appear there."""
        if pressed.spot.is_group and not asks_why(rating):
            return
        await self._mark(pressed, marked(answer, rating, pressed.locale, is_group=pressed.spot.is_group))

    async def _ask_for_correction(self, pressed: Pressed, answer_id: int) -> Done:
        user = await self._db.awrite(_may_correct, pressed, answer_id, datetime.now(UTC))
        if isinstance(user, Refusal):
            return _told(user, pressed)
        spot = Spot(pressed.spot.chat_id, pressed.spot.thread_id, pressed.message_id)
        who = (pressed.query.from_user, user.id)
        return Done(then=lambda: ask_for_correction(self._db, self._screen, spot, answer_id, *who, pressed.locale))

    async def _answer_again(self, pressed: Pressed, find: FindMessage, row_id: int) -> Done:
        turn = await self._db.awrite(_again, pressed, find, row_id, datetime.now(UTC))
        if isinstance(turn, Refusal):
            return _told(turn, pressed)
        self._shows.start(turn)
        is_retry = pressed.press.act == "retry"
        return Done(
            then=(lambda: self._mark(pressed, _without(pressed.keyboard, pressed.query.data))) if is_retry else None
        )

    async def _stop(self, pressed: Pressed, turn_id: int) -> Done:
        user = await self._db.aread(users.find, CHANNEL, pressed.speaker.external_id)
        refused = await self._desk.stop(turn_id, user.id if user else None)
        return _told(refused, pressed) if refused else Done()

    async def _compare(self, pressed: Pressed, left_id: int, right_id: int, pick: Pick) -> Done:
        result = await self._db.awrite(_compared, pressed, left_id, right_id, pick, datetime.now(UTC))
        if isinstance(result, Refusal):
            return _told(result, pressed)
        picked = keyboards.which_is_better(left_id, right_id, pressed.locale, pick)
        then = None if pressed.spot.is_group else lambda: self._mark(pressed, picked)
        return Done(text(pressed.locale, "comparison.thanks"), then)

    async def _consent(self, pressed: Pressed, choice: str) -> Done:
        await self._db.awrite(_decided, pressed, choice == "agree", datetime.now(UTC))
        words = text(pressed.locale, "bot.consent_agreed" if choice == "agree" else "bot.consent_declined")
        return Done(then=lambda: self._screen.say(pressed.spot, words))

    async def _mark(self, pressed: Pressed, keyboard: InlineKeyboardMarkup | None) -> None:
        if pressed.keyboard is not None:
            await self._screen.mark(pressed.spot.chat_id, pressed.message_id, keyboard, pressed.keyboard)


def _pressed(query: CallbackQuery, update_id: int, locale: str) -> Pressed | None:
    """None if it is no press of ours: a button that was not there when it was pressed is forged, or gone meanwhile."""
    message, press = query.message, parse(query.data)
    if message is None or press is None:
        return None
    keyboard = message.reply_markup if isinstance(message, Message) else None
    if isinstance(message, Message) and not _has(keyboard, query.data):
        return None
    return Pressed(press, query, update_id, spot_of(message), message.message_id, keyboard, locale)


def _has(keyboard: InlineKeyboardMarkup | None, data: str | None) -> bool:
    rows = keyboard.inline_keyboard if keyboard else ()
    return any(button.callback_data == data for row in rows for button in row)


def _without(keyboard: InlineKeyboardMarkup | None, data: str | None) -> InlineKeyboardMarkup | None:
    rows = keyboard.inline_keyboard if keyboard else ()
    kept = [[button for button in row if button.callback_data != data] for row in rows]
    return InlineKeyboardMarkup([row for row in kept if row]) if any(kept) else None


def _thanks(pressed: Pressed, user: User, rating: Rating) -> str:
    """What became of a thumb. In a group its button does not show it, nor how to take it back."""
    if rating.thumb is Thumb.WITHDRAWN:
        return text(pressed.locale, "rating.withdrawn")
    code = "rating.up" if rating.thumb is Thumb.UP else "rating.down"
    if user.consented_at is None and user.declined_at is None:
        code = "rating.kept_only"
    words = [text(pressed.locale, code)]
    if pressed.spot.is_group and rating.correction is None:
        words.append(text(pressed.locale, "rating.once_more"))
    return "\n".join(words)


def _told(refusal: Refusal, pressed: Pressed) -> Done:
    return Done(told(pressed.locale, "refusal", refusal.code, refusal.params))


# What happens in the database, each one transaction


def _user(session: Session, pressed: Pressed, at: datetime) -> User:
    who = pressed.speaker
    return users.meet(session, CHANNEL, who.external_id, who.name, who.locale, at)


def _is_here(session: Session, pressed: Pressed, conversation_id: int) -> bool:
    """Whether that conversation is held in the chat of the press."""
    chat = chats.get(session, chats.conversation_of(session, conversation_id).chat_id)
    return (chat.channel, chat.external_id) == (CHANNEL, pressed.chat)


def _answer_here(session: Session, pressed: Pressed, answer_id: int) -> Answer | Refusal:
    answer = answers.find(session, answer_id)
    if answer is None or not _is_here(session, pressed, answer.conversation_id):
        return Refusal("no_such_answer")
    return answer


def _rated(
    session: Session, pressed: Pressed, answer_id: int, thumb: Thumb, at: datetime
) -> tuple[User, Answer, Rating] | Refusal:
    answer = _answer_here(session, pressed, answer_id)
    if isinstance(answer, Refusal):
        return answer
    user = _user(session, pressed, at)
    if pressed.spot.is_group:
        at = updates.received_at(session, pressed.update_id) or at
        rating = feedback.toggle(session, answer_id, user.id, thumb, at, nervous=NERVOUS)
    else:
        rating = feedback.rate(session, answer_id, user.id, thumb, at)
    return rating if isinstance(rating, Refusal) else (user, answer, rating)


def _withdrawn(
    session: Session, pressed: Pressed, answer_id: int, thumb: Thumb, at: datetime
) -> tuple[User, Answer, Rating] | Refusal:
    answer = _answer_here(session, pressed, answer_id)
    if isinstance(answer, Refusal):
        return answer
    user = _user(session, pressed, at)
    at = updates.received_at(session, pressed.update_id) or at
    rating = feedback.withdraw(session, answer_id, user.id, thumb, at, older_than=NERVOUS)
    return rating if isinstance(rating, Refusal) else (user, answer, rating)


def _reasoned(
    session: Session, pressed: Pressed, answer_id: int, reason: Reason, at: datetime
) -> tuple[User, Answer, Rating] | Refusal:
    answer = _answer_here(session, pressed, answer_id)
    if isinstance(answer, Refusal):
        return answer
    user = _user(session, pressed, at)
    rating = feedback.give_reason(session, answer_id, user.id, reason, at)
    return rating if isinstance(rating, Refusal) else (user, answer, rating)


def _may_correct(session: Session, pressed: Pressed, answer_id: int, at: datetime) -> User | Refusal:
    """It is decided once more when they do."""
    answer = _answer_here(session, pressed, answer_id)
    if isinstance(answer, Refusal):
        return answer
    user = _user(session, pressed, at)
    allowed = feedback.ratable(session, answer_id, user.id)
    return allowed if isinstance(allowed, Refusal) else user


def _message_of_answer(session: Session, answer_id: int) -> int | None:
    answer = answers.find(session, answer_id)
    return answer.message_id if answer else None


def _message(session: Session, message_id: int) -> int | None:
    return message_id if messages.many(session, [message_id]) else None


def _again(session: Session, pressed: Pressed, find: FindMessage, row_id: int, at: datetime) -> Turn | Refusal:
    message_id = find(session, row_id)
    if message_id is None or not _is_here(session, pressed, messages.get(session, message_id).conversation_id):
        return Refusal("no_such_answer")
    turn = answer_again(session, message_id, _user(session, pressed, at).id, at)
    if isinstance(turn, Turn):
        showings.begin(session, turn.id, CHANNEL, at)
    return turn


def _compared(
    session: Session, pressed: Pressed, left_id: int, right_id: int, pick: Pick, at: datetime
) -> object | Refusal:
    for answer_id in (left_id, right_id):
        answer = _answer_here(session, pressed, answer_id)
        if isinstance(answer, Refusal):
            return answer
    return feedback.compare(session, left_id, right_id, _user(session, pressed, at).id, pick, at)


def _decided(session: Session, pressed: Pressed, is_agreed: bool, at: datetime) -> User:
    user = _user(session, pressed, at)
    return users.consent(session, user.id, at) if is_agreed else withdrawal.decline(session, user.id, at)
