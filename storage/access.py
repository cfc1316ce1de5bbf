"""Whether everybody may ask or only who was let in, and how many answers a day: what an admin set, else open to all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage import settings
from storage.db import Session

MODE_KEY, BUDGET_KEY = "access_mode", "access_budget"
OPEN, INVITED = "open", "invited"


@dataclass(frozen=True)
class Access:
    is_open: bool
    budget: int  # answers a day and person; 0: no limit


def rules(session: Session) -> Access:
    mode, budget = settings.get(session, MODE_KEY), settings.get(session, BUDGET_KEY)
    return Access(mode is None or mode.value != INVITED, int(budget.value) if budget and budget.value else 0)


def set_mode(session: Session, mode: str, by_user_id: int | None, at: datetime) -> None:
    """`mode` is OPEN or INVITED."""
    settings.put(session, MODE_KEY, mode, by_user_id, at)


def set_budget(session: Session, budget: int, by_user_id: int | None, at: datetime) -> None:
    settings.put(session, BUDGET_KEY, budget, by_user_id, at)
