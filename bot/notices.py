"""Drains the outbox: notices reach their user, or every admin, once. Knows nothing of how they came about.

Only who has a private chat with the bot can be written to. A notice for admins waits for the first of them who has;
after three days it is news to nobody.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from telegram.error import Forbidden, TelegramError

from bot import CHANNEL
from bot.places import Spot
from bot.screen import Screen, is_passing
from huigan.operate import broadcasts
from huigan.texts import locale_of, told
from storage import chats, outbox, users
from storage.db import Database, Session
from storage.records import Notice, User

logger = logging.getLogger(__name__)

KEPT = timedelta(days=3)
BATCH = 200


class Notices:
    def __init__(self, db: Database, screen: Screen) -> None:
        self._db = db
        self._screen = screen
        self._had: dict[int, set[int]] = defaultdict(set)  # by notice, who has it while others do not

    async def drain(self) -> None:
        for notice, people in await self._db.aread(_addressed):
            at = datetime.now(UTC)
            is_old = notice.created_at is not None and notice.created_at < at - KEPT
            if people is None or await self._deliver(notice, people) or is_old:
                await self._db.awrite(outbox.mark_sent, notice.id, at)
                self._had.pop(notice.id, None)

    async def _deliver(self, notice: Notice, people: list[User]) -> bool:
        """True once everybody has it, or can never have it."""
        for user in people:
            if user.id in self._had[notice.id]:
                continue
            try:
                await self._screen.say(Spot(int(user.external_id)), words(notice, locale_of(user.reads)))
            except TelegramError as error:
                if is_passing(error):
                    logger.warning("notice %d waits: %s", notice.id, error)
                    return False
                logger.info("user %d cannot be told of notice %d: %s", user.id, notice.id, error)
                if notice.user_id is not None:
                    why = "blocked" if isinstance(error, Forbidden) else "refused"
                    await self._db.awrite(outbox.give_up, notice.id, why, datetime.now(UTC))
            self._had[notice.id].add(user.id)
        return bool(people)


def words(notice: Notice, locale: str) -> str:
    params: dict[str, Any] = dict(notice.params)
    error = params.get("error")
    if isinstance(error, Mapping):
        params["reason"] = told(locale, "error", str(error.get("code", "internal")), error)
    elif isinstance(error, str):
        params["reason"] = told(locale, "error", error)
    if condition := params.get("condition"):
        params["what"] = told(locale, "condition", str(condition), params)
        params["name"] = told(locale, "condition", f"{condition}_name", params)
    if "reasons" in params:
        found = params["reasons"]
        params["reason"] = "\n".join(told(locale, "canary", each["code"], each["params"]) for each in found)
    passed_over = [told(locale, "passed_over", each["code"], each) for each in params.get("passed_over", ())]
    return "\n".join([told(locale, "notice", notice.code, params), *passed_over])


def _addressed(session: Session) -> list[tuple[Notice, list[User] | None]]:
    return [(notice, _people(session, notice)) for notice in outbox.unsent(session, BATCH, but=(broadcasts.CODE,))]


def _people(session: Session, notice: Notice) -> list[User] | None:
    """Whom it can be told; None if it is news to nobody: whoever did it was told at once."""
    meant = users.admins(session) if notice.user_id is None else [users.get(session, notice.user_id)]
    others = [each for each in meant if each.id != notice.params.get("by_user")]
    if meant and not others:
        return None
    return [each for each in others if can_be_written_to(session, each)]


def can_be_written_to(session: Session, user: User) -> bool:
    """Whoever has a private chat with the bot: Telegram lets it begin none."""
    return user.channel == CHANNEL and chats.find(session, CHANNEL, user.external_id) is not None
