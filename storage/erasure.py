"""Takes a person's words, or old conversations, out of every table, in the order in which they point at each other.

Rows that others need lose the link. What data sets and releases hold is `huigan.turns.withdrawal`'s to mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Table, delete, false, or_, select
from sqlalchemy import update as sql_update

from storage import attachments, updates
from storage import tables as t
from storage.db import Session
from storage.records import TurnState


def erase(session: Session, user_id: int, external_id: str) -> Mapping[str, int]:
    """What they said, what was answered to it, and what they said of answers. How many rows of each table went."""
    said = select(t.message.c.id).where(t.message.c.user_id == user_id)
    also = {
        "rating": t.rating.c.user_id == user_id,
        "comparison": t.comparison.c.user_id == user_id,
        "correction_prompt": t.correction_prompt.c.user_id == user_id,
    }
    own: tuple[tuple[Table, ColumnElement[bool]], ...] = (
        (t.run_card, t.run_card.c.user_id == user_id),
        (t.outbox, t.outbox.c.user_id == user_id),
        (t.update, updates.of_person(external_id) & t.update.c.handled_at.is_not(None)),
    )
    gone = _erase_said(session, said, also) | {table.name: _delete(session, table, where) for table, where in own}
    used = select(t.message.c.conversation_id).union(select(t.turn.c.conversation_id))
    _delete(session, t.conversation, (t.conversation.c.user_id == user_id) & t.conversation.c.id.not_in(used))
    held = select(t.conversation.c.chat_id)
    _delete(session, t.chat, (t.chat.c.external_id == external_id) & t.chat.c.id.not_in(held))
    return gone


def expire(session: Session, quiet_before: datetime, limit: int = 100) -> tuple[int, list[str]]:
    """The conversations in which nobody has said anything since then, whole, the oldest first. How many went, and the
    paths of files that nobody's message has any more, to be removed once this is committed."""
    spoken = select(t.message.c.conversation_id).where(t.message.c.sent_at >= quiet_before)
    waiting = select(t.turn.c.conversation_id).where(t.turn.c.state != TurnState.CLOSED)
    is_over = t.conversation.c.started_at < quiet_before
    quiet = select(t.conversation.c.id).where(
        is_over, t.conversation.c.id.not_in(spoken), t.conversation.c.id.not_in(waiting)
    )
    numbers = list(session.scalars(quiet.order_by(t.conversation.c.id).limit(limit)))
    if not numbers:
        return 0, []
    said = select(t.message.c.id).where(t.message.c.conversation_id.in_(numbers))
    paths = attachments.remove(session, session.scalars(said).all())
    _erase_said(session, said, {})
    _delete(session, t.conversation, t.conversation.c.id.in_(numbers))
    return len(numbers), paths


def _erase_said(session: Session, said: Select[tuple[int]], also: Mapping[str, ColumnElement[bool]]) -> dict[str, int]:
    """Messages and all that hangs on them; `also`, by table, what somebody said of others' answers."""
    given = select(t.answer.c.id).where(t.answer.c.message_id.in_(said))
    made = select(t.turn.c.id).where(t.turn.c.message_id.in_(said))
    compared = _any_of(t.comparison.c.left_answer_id, t.comparison.c.right_answer_id, rows=given)
    offered = _any_of(t.comparison_offer.c.left_answer_id, t.comparison_offer.c.right_answer_id, rows=given)
    rated = or_(also.get("rating", false()), t.rating.c.answer_id.in_(given))
    picked = or_(also.get("comparison", false()), compared)
    prompted = or_(also.get("correction_prompt", false()), t.correction_prompt.c.answer_id.in_(given))
    _unlink(session, select(t.rating.c.id).where(rated), select(t.comparison.c.id).where(picked), said, given)
    steps: tuple[tuple[Table, ColumnElement[bool]], ...] = (
        (t.rating, rated),
        (t.comparison, picked),
        (t.comparison_offer, offered),
        (t.delivery, t.delivery.c.answer_id.in_(given)),
        (t.correction_prompt, prompted),
        (t.showing, t.showing.c.turn_id.in_(made)),
        (t.answer, t.answer.c.message_id.in_(said)),
        (t.turn, t.turn.c.message_id.in_(said)),
        (t.attachment, t.attachment.c.message_id.in_(said)),
        (t.message, t.message.c.id.in_(said)),
    )
    return {table.name: _delete(session, table, where) for table, where in steps}


def _any_of(*columns: ColumnElement[int], rows: Select[tuple[int]]) -> ColumnElement[bool]:
    return or_(*(column.in_(rows) for column in columns))


def _unlink(
    session: Session,
    ratings: Select[tuple[int]],
    comparisons: Select[tuple[int]],
    said: Select[tuple[int]],
    given: Select[tuple[int]],
) -> None:
    """What others' rows say of theirs."""
    for table, column, rows in (
        (t.dataset_example, t.dataset_example.c.rating_id, ratings),
        (t.dataset_example, t.dataset_example.c.comparison_id, comparisons),
        (t.message, t.message.c.parent_answer_id, given),
        (t.message, t.message.c.replaces_id, said),
    ):
        session.execute(sql_update(table).where(column.in_(rows)).values({column.name: None}))


def _delete(session: Session, table: Table, where: ColumnElement[bool]) -> int:
    key = next(iter(table.primary_key.columns))
    return len(session.execute(delete(table).where(where).returning(key)).all())
