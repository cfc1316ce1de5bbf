"""Ratings, reasons, corrections and comparisons. Each may be repeated without harm; each replaces what one rater
said of one answer before."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from huigan.turns.opening import MAX_MESSAGE_CHARACTERS, Refusal
from storage import answers, chats, comparison_offers, comparisons, ratings, users
from storage.db import Session
from storage.records import WHOLE, Answer, ChatKind, Comparison, OfferedFor, Pick, Rating, Reason, Role, Thumb


def rate(session: Session, answer_id: int, user_id: int, thumb: Thumb, at: datetime) -> Rating | Refusal:
    """👍 or 👎, or a withdrawal. A correction and a reason stay with a repeated 👎 and go with anything else."""
    answer = ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.thumb is thumb:
        return known
    if known is None and thumb is Thumb.WITHDRAWN:
        return Refusal("nothing_to_withdraw")
    return ratings.add(session, answer_id, user_id, thumb, at)


def withdraw(
    session: Session, answer_id: int, user_id: int, thumb: Thumb, at: datetime, *, older_than: timedelta = timedelta(0)
) -> Rating | Refusal:
    """Take back a rating of that thumb, with its reason and correction. What they say now, where it is another one or
    was said less than `older_than` ago: a finger that pressed twice has changed no mind."""
    answer = ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    known = ratings.newest(session, answer_id, user_id)
    if known is None:
        return Refusal("nothing_to_withdraw")
    if known.thumb is not thumb or at - known.rated_at < older_than:
        return known
    return ratings.add(session, answer_id, user_id, Thumb.WITHDRAWN, at)


def toggle(
    session: Session, answer_id: int, user_id: int, thumb: Thumb, at: datetime, *, nervous: timedelta
) -> Rating | Refusal:
    """👍 or 👎 by a button that is everybody's and so shows nobody's thumb: given, and once more later than `nervous`,
    taken back. A correction is not taken back with it: 👎 once more agrees with that."""
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.thumb is Thumb.WITHDRAWN and at - known.rated_at < nervous:
        given = ratings.newest_given(session, answer_id, user_id)
        if given is not None and given.thumb is thumb:
            return known
    if known is not None and known.thumb is thumb and known.correction is None:
        return withdraw(session, answer_id, user_id, thumb, at, older_than=nervous)
    return rate(session, answer_id, user_id, thumb, at)


def give_reason(session: Session, answer_id: int, user_id: int, reason: Reason, at: datetime) -> Rating | Refusal:
    """Why it was 👎."""
    answer = ratable(session, answer_id, user_id)
    if isinstance(answer, Refusal):
        return answer
    known = ratings.newest(session, answer_id, user_id)
    if known is not None and known.reason is reason and known.thumb is Thumb.DOWN:
        return known
    correction = known.correction if known is not None and known.thumb is Thumb.DOWN else None
    return ratings.add(session, answer_id, user_id, Thumb.DOWN, at, reason=reason, correction=correction)


def correct(
    session: Session, answer_id: int, user_id: int, text: str, at: datetime, *, is_edit: bool = False
) -> Rating | Refusal:
    """The answer they wanted: a 👎 with text, that also replaces the answer in what later answers are shown.

    `is_edit`: their message that said so was edited. Channels call it that too where the text stayed the same: then
    whatever they said of the answer since still counts.
    """
    answer = ratable(session, answer_id, user_id)
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
    written = ratings.newest_correction(session, answer_id, user_id) if is_edit else None
    if known is not None and written is not None and written.correction == text:
        return known
    reason = known.reason if known is not None and known.thumb is Thumb.DOWN else None
    return ratings.add(session, answer_id, user_id, Thumb.DOWN, at, reason=reason, correction=text)


def offer(
    session: Session, message_id: int, why: OfferedFor, rng: random.Random, at: datetime
) -> tuple[Answer, Answer] | None:
    """The two newest answers to a message, in the order they are to be shown, which is on record before it is; None
    while there is only one, where one of them is not whole, or where both say the same."""
    given = [answer for answer in answers.of_message(session, message_id) if answer.text][-2:]
    if len(given) < 2 or given[0].text == given[1].text or any(answer.ended not in WHOLE for answer in given):
        return None
    rng.shuffle(given)
    comparison_offers.add(session, message_id, given[0].id, given[1].id, why, at)
    return given[0], given[1]


def compare(
    session: Session, left_id: int, right_id: int, user_id: int, pick: Pick, at: datetime
) -> Comparison | Refusal:
    """Which of two answers was better, `left_id` and `right_id` in the order they were shown: it was asked so, or it is
    no pick of ours."""
    left, right = ratable(session, left_id, user_id), ratable(session, right_id, user_id)
    if isinstance(left, Refusal):
        return left
    if isinstance(right, Refusal):
        return right
    if comparison_offers.find(session, left_id, right_id) is None:
        return Refusal("not_a_pair")
    known = comparisons.newest(session, left_id, right_id, user_id)
    if known is not None and (known.left_answer_id, known.pick) == (left_id, pick):
        return known
    return comparisons.add(session, left.message_id, left_id, right_id, user_id, pick, at)


def ratable(session: Session, answer_id: int, user_id: int) -> Answer | Refusal:
    """The answer, if they may rate it. In a private chat only the one who asked may rate; in a group everybody may."""
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
