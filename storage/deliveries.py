"""Which channel message shows which answer, so that presses, reactions and replies find it. Inserted only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from storage.db import Session
from storage.records import Delivery
from storage.rows import add_once, every, first
from storage.tables import delivery


def add(
    session: Session, answer_id: int, channel: str, chat: str, messages: Sequence[str], at: datetime
) -> list[Delivery]:
    """One row a channel message, in order; a message that is known already is left as it is."""
    added = (
        add_once(
            session,
            Delivery,
            delivery,
            answer_id=answer_id,
            channel=channel,
            chat=chat,
            message=message,
            part=part,
            delivered_at=at,
        )
        for part, message in enumerate(messages)
    )
    return [row for row in added if row is not None]


def find(session: Session, channel: str, chat: str, message: str) -> Delivery | None:
    query = select(delivery).where(
        delivery.c.channel == channel, delivery.c.chat == chat, delivery.c.message == message
    )
    return first(session, Delivery, query)


def of_answer(session: Session, answer_id: int) -> list[Delivery]:
    return every(session, Delivery, select(delivery).where(delivery.c.answer_id == answer_id).order_by(delivery.c.part))
