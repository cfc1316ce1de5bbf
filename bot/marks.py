"""The buttons under an answer as what one person said of it now wants them. Knows no database."""

from __future__ import annotations

from telegram import InlineKeyboardMarkup

from bot import keyboards
from bot.showing import can_retry
from storage.records import Answer, Rating, Thumb


def asks_why(rating: Rating) -> bool:
    return rating.thumb is Thumb.DOWN and rating.reason is None and rating.correction is None


def marked(answer: Answer, rating: Rating, locale: str, *, is_group: bool = False) -> InlineKeyboardMarkup:
    """In a group no thumb is marked: it would be everybody's."""
    return keyboards.under_answer(
        answer.id,
        locale,
        None if is_group else rating.thumb,
        reasons=asks_why(rating),
        retry_message_id=answer.message_id if can_retry(answer) else None,
    )
