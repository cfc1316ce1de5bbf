"""Second answers that nobody asked for, so that somebody may say which is better: how often, and to whom.

Never two in a row for one person, never while anybody waits, and only to whom it is of use: without their consent
nothing is learnt from what they pick.
"""

from __future__ import annotations

import random
from datetime import datetime

from storage import answers, attachments, audit, chats, deployments, messages, settings, turns, users
from storage.db import Session
from storage.records import WHOLE, ChatKind, Role, Turn, TurnState

KEY = "comparison_rate"


def rate(session: Session) -> float:
    """Of whole answers in private chats, the share that is answered twice. 0 where no admin said otherwise."""
    known = settings.get(session, KEY)
    return 0.0 if known is None else float(known.value)


def set_rate(session: Session, share: float, by_user_id: int | None, at: datetime) -> None:
    """Raises ValueError unless it is a share."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{share} is no share")
    settings.put(session, KEY, share, by_user_id, at)
    audit.record(session, by_user_id, "comparison.rate", at, share=share)


def _canarys(session: Session) -> float:
    """The share of messages that a canary answers as well, where it is judged by comparisons."""
    tried = deployments.canary(session)
    by_comparisons = tried is not None and tried.deployment.why == deployments.COMPARISONS
    return tried.deployment.share if tried is not None and by_comparisons else 0.0


def second_answer(session: Session, turn_id: int, rng: random.Random, at: datetime) -> Turn | None:
    """The turn that is to answer the same message once more, where the dice and all else say so."""
    turn, canarys = turns.get(session, turn_id), _canarys(session)
    if rng.random() >= max(rate(session), canarys) or not _may_be_compared(session, turn):
        return None
    if canarys and attachments.of_messages(session, [turn.message_id]):
        return None  # whether a canary can see the picture is not known here, and its failure nobody asked for
    return turns.wait(session, turn.conversation_id, turn.message_id, turn.user_id, at, again=True, sampled=True)


def _may_be_compared(session: Session, turn: Turn) -> bool:
    answer, user = answers.of_turn(session, turn.id), users.get(session, turn.user_id)
    if turn.again or answer is None or answer.ended not in WHOLE:
        return False
    if user.consented_at is None or user.role is Role.BLOCKED:
        return False
    chat = chats.get(session, chats.conversation_of(session, turn.conversation_id).chat_id)
    if chat.kind is not ChatKind.PRIVATE:
        return False
    if any(each.state is TurnState.WAITING for each in turns.unclosed(session)):
        return False
    before = messages.before(session, turn.message_id, turn.user_id)
    asked = [turn.message_id] if before is None else [turn.message_id, before.id]
    return not any(each.sampled for message_id in asked for each in turns.of_message(session, message_id))
