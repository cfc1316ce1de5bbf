"""/export: all that is kept of one person, as one JSON document for them: first to be read, then every row as it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from storage import answers, attachments, chats, comparisons, messages, ratings, traces, users
from storage.db import Session
from storage.records import Answer, Comparison, Message, Rating, User


def own_data(session: Session, user_id: int, at: datetime) -> dict[str, Any]:
    """Plain values, times in ISO 8601. Of other people's answers that they rated, only the number is given."""
    user = users.get(session, user_id)
    said = messages.of_user(session, user_id)
    given = answers.of_messages(session, [each.id for each in said])
    files = attachments.of_messages(session, [each.id for each in said])
    return {
        "exported_at": at.isoformat(),
        "user": _user(user),
        "conversations": _conversations(session, said, given, files),
        "ratings": [_rating(each) for each in ratings.of_user(session, user_id)],
        "comparisons": [_comparison(each) for each in comparisons.of_user(session, user_id)],
        "records": traces.of_user(session, user),
    }


def _user(user: User) -> dict[str, Any]:
    return {
        "channel": user.channel,
        "number": user.external_id,
        "name": user.name,
        "role": user.role.value,
        "language": user.reads,
        "training_agreed_at": _time(user.consented_at),
        "training_declined_at": _time(user.declined_at),
        "known_since": _time(user.created_at),
    }


def _conversations(session: Session, said: list[Message], given: list[Answer], files: Any) -> list[dict[str, Any]]:
    by_message: dict[int, list[Answer]] = {}
    for answer in given:
        by_message.setdefault(answer.message_id, []).append(answer)
    grouped: dict[int, list[Message]] = {}
    for message in said:
        grouped.setdefault(message.conversation_id, []).append(message)
    return [
        {
            "chat": chats.get(session, chats.conversation_of(session, number).chat_id).title,
            "messages": [
                {
                    "text": message.text,
                    "sent_at": _time(message.sent_at),
                    "files": [each.name for each in files.get(message.id, [])],
                    "answers": [_answer(each) for each in by_message.get(message.id, [])],
                }
                for message in spoken
            ],
        }
        for number, spoken in grouped.items()
    ]


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "number": answer.id,
        "text": answer.text,
        "release": answer.release_id,
        "ended": answer.ended.value,
        "answered_at": _time(answer.answered_at),
    }


def _rating(rating: Rating) -> dict[str, Any]:
    return {
        "answer": rating.answer_id,
        "thumb": rating.thumb.value,
        "reason": rating.reason.value if rating.reason else None,
        "correction": rating.correction,
        "rated_at": _time(rating.rated_at),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "answers": [comparison.left_answer_id, comparison.right_answer_id],
        "pick": comparison.pick.value,
        "picked_at": _time(comparison.picked_at),
    }


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
