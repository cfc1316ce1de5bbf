"""A base that answers, and answers that people rated: what makes a run due."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert

from storage import artefacts, chats, deployments, messages, releases, turns, users
from storage.db import Session
from storage.records import ChatKind, Ended, Thumb
from storage.tables import answer, rating


def add_base(session: Session, at: datetime) -> None:
    values = {"quantisation": "Q4_K_M", "weights": "/w", "template": "t", "system": "s", "parameters": {}}
    artefact = artefacts.add(session, **values, created_at=at)
    deployments.deploy(session, releases.add(session, "huigan:base-0", artefact.id, at).id, "terminal", "base", at)


def rate(session: Session, count: int, at: datetime) -> None:
    """`count` answers, each rated by two people in turn."""
    people = [users.meet(session, "telegram", name, name, None, at) for name in ("a", "b")]
    chat = chats.meet(session, "telegram", "1", ChatKind.PRIVATE, "", at)
    talk = chats.current(session, chat.id, "", people[0].id, at)
    for number in range(count):
        said = messages.add(session, talk.id, people[0].id, "?", f"test:{at.isoformat()}:{number}", at)
        assert said is not None
        turn = turns.wait(session, talk.id, said.id, people[0].id, at)
        values = {"turn_id": turn.id, "message_id": said.id, "conversation_id": talk.id, "text": "!", "tag": "t"}
        seen = {"system": "s", "row_ids": [], "template_digest": "0", "options": {}, "ended": Ended.COMPLETE}
        made = session.execute(insert(answer).values(**values, **seen, answered_at=at).returning(answer.c.id))
        row = {"answer_id": made.scalar_one(), "user_id": people[number % 2].id, "thumb": Thumb.UP, "rated_at": at}
        session.execute(insert(rating).values(**row))
