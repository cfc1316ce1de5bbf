"""The buttons under an answer as what one person said of it now wants them, and where they are."""

from __future__ import annotations

from telegram import InlineKeyboardMarkup

from bot import keyboards
from bot.screen import Screen
from bot.showing import can_retry
from storage import deliveries, showings
from storage.db import Database, Session
from storage.records import Answer, Rating, Thumb


def asks_why(rating: Rating) -> bool:
    return rating.thumb is Thumb.DOWN and rating.reason is None and rating.correction is None


def marked(answer: Answer, rating: Rating | None, locale: str, *, is_group: bool = False) -> InlineKeyboardMarkup:
    """In a group no thumb is marked: it would be everybody's."""
    return keyboards.under_answer(
        answer.id,
        locale,
        None if is_group or rating is None else rating.thumb,
        reasons=rating is not None and asks_why(rating),
        retry_message_id=answer.message_id if can_retry(answer) else None,
    )


async def mark_private(
    db: Database, screen: Screen, chat_id: int, answer: Answer, known: Rating | None, rating: Rating, locale: str
) -> None:
    """In a private chat, where `known` was said before, without a press that shows which buttons are there."""
    keyboard = marked(answer, rating, locale)
    message = await db.aread(_under, answer)
    if message is not None and keyboard != marked(answer, known, locale):
        await screen.mark(chat_id, int(message), keyboard, None)


def _under(session: Session, answer: Answer) -> str | None:
    """The message that has the answer's buttons, once it is there."""
    showing, parts = showings.find(session, answer.turn_id), deliveries.of_answer(session, answer.id)
    return parts[-1].message if parts and showing is not None and showing.finished_at is not None else None
