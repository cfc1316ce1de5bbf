"""What a person sent at once and Telegram brought in several messages: the pieces of a long paste, or an album.

Every update is stored before it is handled, and those of one person in one place are handled in their order: so what
belongs together is found in the database, whichever process received it. Knows nothing of what becomes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from itertools import chain

from telegram import Bot, Message, Update

from bot.places import replied_to
from storage import updates
from storage.db import Database
from storage.records import Update as Stored

LONGEST_UNITS = 4096  # UTF-16 units a message; clients cut a longer text there, or at a better place behind its middle
LOOK_SECONDS = 0.1
APART_SECONDS = 2  # between what was sent at once, by Telegram's clock
MOST_AT_ONCE = 50  # an album has ten pictures, and few send something else in between
REPLAYED_TIMES = 3  # as patient: after a kill, Telegram may bring the rest a little later


class Pastes:
    def __init__(self, db: Database, wait_seconds: float, replayed: Container[int]) -> None:
        """Waits so long for what may follow; `replayed` are ids of updates of an earlier life."""
        self._db = db
        self._wait_seconds = wait_seconds
        self._replayed = replayed

    async def whole(self, update: Update, bot: Bot) -> list[Update]:
        """The update of a new message, with those that belong to it, in their order. What was dropped meanwhile is
        waited for no longer."""
        patience_seconds = self._wait_seconds * (REPLAYED_TIMES if update.update_id in self._replayed else 1)
        found, quiet_seconds = [update], 0.0
        while _may_go_on(found) and quiet_seconds < patience_seconds:
            stored = await self._db.aread(updates.following, update.update_id)
            if stored is None:
                break
            said = _messages_in(stored, bot)
            more = _with_those_that_belong(update, said)
            if len(more) <= len(said):  # something else was said since: they are all there
                return more
            quiet_seconds = 0.0 if len(more) > len(found) else quiet_seconds + LOOK_SECONDS
            found = more
            await asyncio.sleep(LOOK_SECONDS)
        return found

    async def once_more(self, update_id: int, bot: Bot) -> list[Update]:
        """As `whole` found it then. Nothing where it is forgotten."""
        said = _messages_in(await self._db.aread(updates.since, update_id, MOST_AT_ONCE), bot)
        return _with_those_that_belong(said[0], said[1:]) if said and said[0].update_id == update_id else []


def joined(messages: Sequence[Message], said: Sequence[str]) -> str:
    """What was `said` in them, as it was before it was cut: in the middle of a text, or at the end of a line, which
    clients leave out then."""
    ends = ("" if _units(each.text or "") >= LONGEST_UNITS - 1 else "\n" for each in messages[:-1])  # an emoji is 2
    return "".join(chain.from_iterable(zip(said, [*ends, ""], strict=True))).strip()


def _messages_in(stored: Sequence[Stored], bot: Bot) -> list[Update]:
    return [each for each in (Update.de_json(dict(one.body), bot) for one in stored) if each.message]


def _may_go_on(found: Sequence[Update]) -> bool:
    message = found[-1].message
    return message is not None and (_is_in_album(message) or _is_cut(message))


def _with_those_that_belong(first: Update, later: Sequence[Update]) -> list[Update]:
    found = [first]
    for each in later:
        if not _may_go_on(found) or not _belongs(found[-1].message, each.message):
            break
        found.append(each)
    return found


def _belongs(before: Message | None, after: Message | None) -> bool:
    if before is None or after is None or (after.date - before.date).total_seconds() > APART_SECONDS:
        return False
    if _is_in_album(before) or _is_in_album(after):
        return before.media_group_id == after.media_group_id
    is_plain = bool(after.text) and not (after.text or "").startswith("/") and after.forward_origin is None
    return is_plain and (replied_to(after) is None or replied_to(after) == replied_to(before))


def _is_in_album(message: Message) -> bool:
    return message.media_group_id is not None


def _is_cut(message: Message) -> bool:
    return message.forward_origin is None and _units(message.text or "") >= LONGEST_UNITS // 2


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
