"""Ratings, reasons, corrections and comparisons. Each may be repeated without harm; each replaces what one rater
said of one answer before."""

from __future__ import annotations

import random
from datetime import datetime

from sqlalchemy.orm import Session

from huigan.turns.opening import MAX_MESSAGE_CHARACTERS, Refusal
from storage import answers, chats, comparisons, ratings, users
from storage.records import Answer, ChatKind, Comparison, Pick, Rating, Reason, Role, Thumb


def rate(session: Session, answer_id: int, user_id: int, thumb: Thumb, at: datetime) -> Rating | Refusal:
    """👍 or 👎, or a withdrawal. A correction and a reason stay with a repeated 👎 and go with anything else."""
    answer = _ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.thumb is thumb:
        return known
    if known is None and thumb is Thumb.WITHDRAWN:
        return Refusal("nothing_to_withdraw")
    return ratings.add(session, answer_id, user_id, thumb, at)


def give_reason(session: Session, answer_id: int, user_id: int, reason: Reason, at: datetime) -> Rating | Refusal:
    """Why it was 👎."""
    answer = _ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.reason is reason and known.thumb is Thumb.DOWN:
        return known
    correction = known.correction if known is not None and known.thumb is Thumb.DOWN else None
    return ratings.add(session, answer_id, user_id, Thumb.DOWN, at, reason=reason, correction=correction)


def correct(session: Session, answer_id: int, user_id: int, text: str, at: datetime) -> Rating | Refusal:
    """The answer they wanted: a 👎 with text, that also replaces the answer in what later answers are shown."""
    answer = _ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    text = text.strip()
    if not text:
        return Refusal("empty_correction")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        return Refusal("message_too_long")
    if text == answer.text.strip():
        return Refusal("correction_is_the_answer")
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.thumb is Thumb.DOWN and known.correction == text:
        return known
    reason = known.reason if known is not None and known.thumb is Thumb.DOWN else None
    return ratings.add(session, answer_id, user_id, Thumb.DOWN, at, reason=reason, correction=text)


def offer(session: Session, message_id: int, rng: random.Random) -> tuple[Answer, Answer] | None:
    """The two newest answers to a message, in the order they are to be shown; None while there is only one, or
    where both say the same."""
    given = [answer for answer in answers.of_message(session, message_id) if answer.text][-2:]
    if len(given) < 2 or given[0].text == given[1].text:
        return None
    rng.shuffle(given)
    return given[0], given[1]


def compare(
    session: Session, left_id: int, right_id: int, user_id: int, pick: Pick, at: datetime
) -> Comparison | Refusal:
    """Which of two answers was better, `left_id` and `right_id` in the order they were shown."""
    left, right = _ratable(session, left_id, user_id), _ratable(session, right_id, user_id)
    if isinstance(left, Refusal):
        return left
    if isinstance(right, Refusal):
        return right
    if left.message_id != right.message_id or left.id == right.id:
        return Refusal("not_a_pair")
    known = comparisons.newest(session, left_id, right_id, user_id)
    if known is not None and (known.left_answer_id, known.pick) == (left_id, pick):
        return known
    return comparisons.add(session, left.message_id, left_id, right_id, user_id, pick, at)


def _ratable(session: Session, answer_id: int, user_id: int) -> Answer | Refusal:
    """In a private chat only the one who asked may rate; in a group everybody may."""
    answer = answers.find(session, answer_id)
    if answer is None or not answer.text:
        return Refusal("no_such_answer")
    if users.get(session, user_id).role is Role.BLOCKED:
        return Refusal("blocked")
    conversation = chats.conversation_of(session, answer.conversation_id)
    private = chats.get(session, conversation.chat_id).kind is not ChatKind.GROUP
    if private and conversation.user_id != user_id:
        return Refusal("not_yours")
    return answer
