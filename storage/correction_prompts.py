"""Which channel messages asked whom for the right answer. Inserted only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from storage.db import Session
from storage.records import CorrectionPrompt
from storage.rows import add_once, first
from storage.tables import correction_prompt


def add(session: Session, answer_id: int, user_id: int, channel: str, chat: str, message: str, at: datetime) -> None:
    values = {"answer_id": answer_id, "user_id": user_id, "channel": channel, "chat": chat, "message": message}
    add_once(session, CorrectionPrompt, correction_prompt, **values, asked_at=at)


def find(session: Session, channel: str, chat: str, message: str) -> CorrectionPrompt | None:
    query = select(correction_prompt).where(
        correction_prompt.c.channel == channel, correction_prompt.c.chat == chat, correction_prompt.c.message == message
    )
    return first(session, CorrectionPrompt, query)
