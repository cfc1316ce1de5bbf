"""The channel messages that show how a run goes, or ask whether to promote what it made. Knows nothing of channels."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy import update as sql_update

from storage.db import Session
from storage.records import CardKind, RunCard
from storage.rows import add_once, every
from storage.tables import run_card


def add(
    session: Session, run_id: int, user_id: int, kind: CardKind, channel: str, chat: str, message: str, at: datetime
) -> RunCard | None:
    """None where that message is a card already."""
    values = {"run_id": run_id, "user_id": user_id, "kind": kind, "channel": channel, "chat": chat, "message": message}
    return add_once(session, RunCard, run_card, **values, made_at=at)


def unfinished(session: Session, channel: str, kind: CardKind) -> list[RunCard]:
    """Those that are still to change, oldest first."""
    query = select(run_card).where(run_card.c.finished_at.is_(None), run_card.c.channel == channel)
    return every(session, RunCard, query.where(run_card.c.kind == kind).order_by(run_card.c.id))


def of_run(session: Session, run_id: int, kind: CardKind) -> list[RunCard]:
    query = select(run_card).where(run_card.c.run_id == run_id, run_card.c.kind == kind)
    return every(session, RunCard, query.order_by(run_card.c.id))


def finish(session: Session, card_id: int, at: datetime) -> None:
    session.execute(sql_update(run_card).where(run_card.c.id == card_id).values(finished_at=at))
