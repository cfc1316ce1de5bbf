"""Which two answers somebody was asked to choose between, on which sides, and why. Inserted only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from storage.db import Session
from storage.records import ComparisonOffer, OfferedFor
from storage.rows import add as add_row
from storage.rows import first
from storage.tables import comparison_offer


def add(
    session: Session, message_id: int, left_answer_id: int, right_answer_id: int, why: OfferedFor, at: datetime
) -> ComparisonOffer:
    values = {"message_id": message_id, "left_answer_id": left_answer_id, "right_answer_id": right_answer_id}
    return add_row(session, ComparisonOffer, comparison_offer, **values, why=why, offered_at=at)


def find(session: Session, left_answer_id: int, right_answer_id: int) -> ComparisonOffer | None:
    """The newest offer of that pair on those sides."""
    query = select(comparison_offer).where(
        comparison_offer.c.left_answer_id == left_answer_id, comparison_offer.c.right_answer_id == right_answer_id
    )
    return first(session, ComparisonOffer, query.order_by(comparison_offer.c.id.desc()).limit(1))
