"""One message to everybody: proposed, confirmed, sent a little at a time, cancelled. One at a time.

What is sent stands in the database, a row a person: a kill loses nothing, and what was sent is not sent again. Knows no
channel: who can be written to is told by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from huigan.operate.refusals import Refusal
from storage import audit, outbox, settings
from storage.db import Session
from storage.records import Notice

CODE = "broadcast"  # of its notices
KEY = "broadcast"
ASKED, SENDING, DONE, CANCELLED = "asked", "sending", "done", "cancelled"
UNSURE = "unsure"  # of a notice: it is on its way, or was when the process ended, and nobody knows whether it arrived


@dataclass(frozen=True)
class Broadcast:
    number: int
    state: str
    text: str
    entities: Sequence[Mapping[str, Any]]
    by_user_id: int
    card: tuple[str, str] | None = None  # the chat and the message that show how far it is


@dataclass(frozen=True)
class Progress:
    sent: int
    unsent: int
    unreached: int  # who blocked the bot, or is gone
    unsure: int = 0

    @property
    def total(self) -> int:
        return self.sent + self.unsent + self.unreached + self.unsure


def newest(session: Session) -> Broadcast | None:
    kept = settings.get(session, KEY)
    if kept is None or kept.value is None:
        return None
    card = kept.value["card"]
    return Broadcast(**kept.value | {"card": tuple(card) if card else None})


def propose(
    session: Session, text: str, entities: Sequence[Mapping[str, Any]], *, by_user_id: int, at: datetime
) -> Broadcast | Refusal:
    """It takes the place of one that nobody confirmed. Refused: `broadcast_under_way`."""
    last = newest(session)
    if last is not None and last.state == SENDING:
        return Refusal("broadcast_under_way")
    number = last.number + 1 if last else 1
    return _keep(session, Broadcast(number, ASKED, text, list(entities), by_user_id), at)


def confirm(
    session: Session, number: int, to: Iterable[int], card: tuple[str, str], *, by_user_id: int, at: datetime
) -> Broadcast | Refusal:
    """Put a row for each of these users. Refused: `stale_button` where it is not the one to be confirmed."""
    asked = newest(session)
    if asked is None or asked.number != number or asked.state != ASKED:
        return Refusal("stale_button")
    keys = {user_id: f"{_prefix(number)}{user_id}" for user_id in to}
    outbox.put_to_each(session, CODE, {"broadcast": number}, at, keys)
    audit.record(session, by_user_id, "broadcast.send", at, broadcast=number, people=len(keys))
    return _keep(session, replace(asked, state=SENDING, card=card, by_user_id=by_user_id), at)


def cancel(session: Session, *, by_user_id: int, at: datetime) -> Broadcast | Refusal:
    """Who has it has it; nobody else gets it. Refused: `no_broadcast` where none is asked for or sent."""
    last = newest(session)
    if last is None or last.state not in {ASKED, SENDING}:
        return Refusal("no_broadcast")
    left = outbox.withdraw(session, _prefix(last.number), CANCELLED, at)
    audit.record(session, by_user_id, "broadcast.cancel", at, broadcast=last.number, left=left)
    return _keep(session, replace(last, state=CANCELLED), at)


def due(session: Session, limit: int) -> tuple[Broadcast | None, list[Notice]]:
    """The newest, and some of what is unsent of it."""
    last = newest(session)
    if last is None or last.state != SENDING:
        return last, []
    return last, [each for each in outbox.unsent(session, limit, only=CODE) if each.params["broadcast"] == last.number]


def put_back(session: Session, notice_id: int, number: int, at: datetime) -> None:
    """It was taken to be sent, and could not be yet: it is sent later, unless it was cancelled meanwhile."""
    last = newest(session)
    if last is not None and last.number == number and last.state == SENDING:
        outbox.put_back(session, notice_id)
    else:
        outbox.give_up(session, notice_id, CANCELLED, at)


def finish(session: Session, number: int, at: datetime) -> None:
    last = newest(session)
    if last is not None and last.number == number and last.state == SENDING:
        _keep(session, replace(last, state=DONE), at)


def progress(session: Session, number: int) -> Progress:
    fates = outbox.count_by_fate(session, _prefix(number))
    left_out = fates.pop(CANCELLED, 0)
    sent, unsent, unsure = (fates.pop(fate, 0) for fate in ("sent", "unsent", UNSURE))
    return Progress(sent, unsent + left_out, sum(fates.values()), unsure)


def _prefix(number: int) -> str:
    return f"broadcast:{number}:"


def _keep(session: Session, broadcast: Broadcast, at: datetime) -> Broadcast:
    settings.put(session, KEY, asdict(broadcast), broadcast.by_user_id, at)
    return broadcast
