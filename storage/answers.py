"""What was answered, by which release, and exactly what it was shown. Inserted only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Row, bindparam, select

from storage.db import Session
from storage.records import Answer, Ended, Seen, Turn
from storage.rows import batches, inserting
from storage.tables import answer

OF_ID = select(answer).where(answer.c.id == bindparam("id"))


def add(
    session: Session,
    turn: Turn,
    text: str,
    seen: Seen,
    ended: Ended,
    at: datetime,
    *,
    tag: str,
    thinking: str = "",
    deployment_id: int | None = None,
    release_id: int | None = None,
    prompt_tokens: int | None = None,
    answer_tokens: int | None = None,
    first_token_seconds: float | None = None,
    total_seconds: float | None = None,
) -> Answer:
    values: dict[str, Any] = {
        "turn_id": turn.id,
        "message_id": turn.message_id,
        "conversation_id": turn.conversation_id,
        "text": text,
        "thinking": thinking,
        "deployment_id": deployment_id,
        "release_id": release_id,
        "tag": tag,
        "system": seen.system,
        "row_ids": [list(pair) for pair in seen.row_ids],
        "dropped": seen.dropped,
        "template_digest": seen.template_digest,
        "options": dict(seen.options),
        "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens,
        "first_token_seconds": first_token_seconds,
        "total_seconds": total_seconds,
        "ended": ended,
        "answered_at": at,
    }
    return _answer(session.execute(inserting(answer), values).one())


def find(session: Session, answer_id: int) -> Answer | None:
    row = session.execute(OF_ID, {"id": answer_id}).first()
    return None if row is None else _answer(row)


def get(session: Session, answer_id: int) -> Answer:
    """Raises LookupError."""
    found = find(session, answer_id)
    if found is None:
        raise LookupError(f"answer {answer_id} is unknown")
    return found


def of_turn(session: Session, turn_id: int) -> Answer | None:
    return next(iter(_every(session, select(answer).where(answer.c.turn_id == turn_id))), None)


def of_message(session: Session, message_id: int) -> list[Answer]:
    """Oldest first: the second and later ones were regenerated."""
    return _every(session, select(answer).where(answer.c.message_id == message_id).order_by(answer.c.id))


def of_messages(session: Session, message_ids: Iterable[int]) -> list[Answer]:
    queries = (select(answer).where(answer.c.message_id.in_(ids)) for ids in batches(message_ids))
    return sorted((found for query in queries for found in _every(session, query)), key=lambda each: each.id)


def newest_of_conversation(session: Session, conversation_id: int) -> Answer | None:
    query = select(answer).where(answer.c.conversation_id == conversation_id).order_by(answer.c.id.desc()).limit(1)
    return next(iter(_every(session, query)), None)


def first_that_dropped(session: Session, conversation_id: int) -> int | None:
    """The id of a conversation's first answer that was not given all that was said before."""
    dropped = select(answer.c.id).where(answer.c.conversation_id == conversation_id, answer.c.dropped > 0)
    return session.scalar(dropped.order_by(answer.c.id).limit(1))


def many(session: Session, answer_ids: Iterable[int]) -> dict[int, Answer]:
    queries = (select(answer).where(answer.c.id.in_(ids)) for ids in batches(answer_ids))
    return {found.id: found for query in queries for found in _every(session, query)}


def _every(session: Session, query: Executable) -> list[Answer]:
    return [_answer(row) for row in session.execute(query)]


def _answer(row: Row[Any]) -> Answer:
    values = dict(row._mapping)
    seen = Seen(**{name: values.pop(name) for name in ("system", "row_ids", "dropped", "template_digest", "options")})
    return Answer(seen=seen, **values)
