"""/broadcast: one message to everybody, confirmed first, sent beside everything else, its progress in one message.

It takes a third of what Telegram allows over all, so answers and notices go on. Nobody has it twice: each is noted
before it is sent, and of those that a kill met in between the card says that nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterator, Sequence
from typing import Any

from telegram import MessageEntity
from telegram.error import Forbidden, TelegramError
from telegram.ext import BaseHandler
from telegramify_markdown import utf16_len

from bot import CHANNEL
from bot.access import in_private
from bot.admin import Asked, Guard, refused
from bot.locales import Locales
from bot.panels import Panel, Pushed, now, pressable, put
from bot.places import Spot
from bot.render import MAX_UNITS, Piece
from bot.screen import Screen, is_passing
from huigan.operate import broadcasts
from huigan.operate.broadcasts import Broadcast, Progress
from huigan.operate.refusals import Refusal
from huigan.texts import locale_of, text
from storage import chats, outbox, users
from storage.db import Database, Session
from storage.records import ChatKind, Notice, Role

logger = logging.getLogger(__name__)

BATCH = 100
AT_ONCE = 8
CLOSING_SECONDS = 3.0


class Broadcasts:
    def __init__(
        self, db: Database, screen: Screen, locales: Locales, replayed: Container[int], per_second: float
    ) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales
        self._replayed = replayed
        self._gap_seconds = 1 / per_second
        self._sending: dict[int, asyncio.Task[None]] = {}  # by notice
        self._shown: tuple[int, Progress] | None = None

    def acts(self) -> Guard:
        return {"broadcast": in_private(self._broadcast)}

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        presses = {"bcast": self._confirm, "nobcast": self._cancel}
        return [pressable(self._db, self._screen, self._locales, self._replayed, presses)]

    async def _broadcast(self, asked: Asked) -> str | None:
        if asked.args == ["cancel"]:
            result = await self._db.awrite(broadcasts.cancel, by_user_id=asked.user.id, at=now())
            return refused(result, asked.locale) if isinstance(result, Refusal) else text(asked.locale, "broadcast.off")
        said, entities = _wanted(asked)
        if not said:
            is_other = asked.message.reply_to_message is not None and not asked.args
            return text(asked.locale, "refusal.broadcast_no_text" if is_other else "refusal.broadcast_usage")
        if utf16_len(said) > MAX_UNITS:
            return text(asked.locale, "refusal.broadcast_too_long", units=utf16_len(said), most=MAX_UNITS)
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": now()}
        result = await self._db.awrite(broadcasts.propose, said, entities, **how)
        if isinstance(result, Refusal):
            return refused(result, asked.locale)
        people = await self._db.aread(_recipients)
        await self._screen.send(asked.spot, Piece(said, tuple(entities)))
        go = (text(asked.locale, "broadcast.go", people=len(people)), f"bcast:{result.number}")
        stop = (text(asked.locale, "broadcast.stop"), f"nobcast:{result.number}")
        await put(
            self._screen, asked.spot, Panel(text(asked.locale, "broadcast.ask", people=len(people)), ((go, stop),))
        )
        return None

    async def _confirm(self, pushed: Pushed) -> Panel | str:
        card = (str(pushed.spot.chat_id), str(pushed.message_id))
        result = await self._db.awrite(_begin, pushed.press.ids[0] if pushed.press.ids else 0, card, pushed.user.id)
        if isinstance(result, Refusal):
            return refused(result, pushed.locale)
        return _card(result, await self._db.aread(broadcasts.progress, result.number), pushed.locale)

    async def _cancel(self, pushed: Pushed) -> Panel | str:
        newest = await self._db.aread(broadcasts.newest)
        if newest is None or newest.number not in pushed.press.ids:
            return text(pushed.locale, "refusal.stale_button")
        result = await self._db.awrite(broadcasts.cancel, by_user_id=pushed.user.id, at=now())
        if isinstance(result, Refusal):
            return refused(result, pushed.locale)
        return _card(result, await self._db.aread(broadcasts.progress, result.number), pushed.locale)

    async def drain(self) -> None:
        """Send what is unsent of it, a little at a time."""
        newest, notices = await self._db.aread(broadcasts.due, BATCH)
        if newest is None or (newest.state != broadcasts.SENDING and not self._is_to_be_shown(newest)):
            return
        try:
            for notice in notices:
                if notice.id not in self._sending:
                    await self._start(notice, newest)
        except asyncio.CancelledError:
            if self._sending:
                await asyncio.wait(self._sending.values(), timeout=CLOSING_SECONDS)
            raise
        await self._show(newest.number)

    async def _start(self, notice: Notice, broadcast: Broadcast) -> None:
        while len(self._sending) >= AT_ONCE:  # a chat in its penalty holds one place, not all
            await asyncio.wait(self._sending.values(), return_when=asyncio.FIRST_COMPLETED)
        task = self._sending[notice.id] = asyncio.create_task(self._send(notice, broadcast))
        task.add_done_callback(lambda _: self._sending.pop(notice.id, None))
        await asyncio.sleep(self._gap_seconds)

    async def _send(self, notice: Notice, broadcast: Broadcast) -> None:
        assert notice.user_id is not None
        spot = await self._db.awrite(_take, notice.id, notice.user_id)
        if spot is None:
            return
        try:
            await self._screen.send(spot, Piece(broadcast.text, tuple(broadcast.entities)))
        except TelegramError as error:
            if is_passing(error):
                logger.warning("announcement %d to user %d waits: %s", broadcast.number, notice.user_id, error)
                await self._db.awrite(broadcasts.put_back, notice.id, broadcast.number, now())
                return
            why = "blocked" if isinstance(error, Forbidden) else "refused"
            logger.info("announcement %d does not reach user %d: %s", broadcast.number, notice.user_id, error)
            await self._db.awrite(outbox.give_up, notice.id, why, now())
            return
        await self._db.awrite(outbox.mark_reached, notice.id, now())

    def _is_to_be_shown(self, broadcast: Broadcast) -> bool:
        """It was cancelled while its card told how far it was."""
        return broadcast.state == broadcasts.CANCELLED and self._shown is not None and bool(broadcast.card)

    async def _show(self, number: int) -> None:
        at, newest = await self._db.aread(broadcasts.progress, number), await self._db.aread(broadcasts.newest)
        if newest is None or newest.number != number:
            return
        if newest.state == broadcasts.SENDING and at.unsent == 0 and not self._sending:
            await self._db.awrite(broadcasts.finish, number, now())
            newest = await self._db.aread(broadcasts.newest)
        is_over = newest is not None and newest.state != broadcasts.SENDING
        if newest is None or newest.card is None or (self._shown == (number, at) and not is_over):
            return
        self._shown = None if is_over else (number, at)
        by = await self._db.aread(users.get, newest.by_user_id)
        panel = _card(newest, at, locale_of(by.reads))
        await self._screen.edit(Spot(int(newest.card[0])), int(newest.card[1]), panel.piece, panel.keyboard)


def _wanted(asked: Asked) -> tuple[str, list[dict[str, Any]]]:
    """What is replied to, with its formatting; else what stands after the command."""
    replied = asked.message.reply_to_message
    if replied is not None and not asked.args:
        return replied.text or "", [each.to_dict() for each in replied.entities]
    whole = asked.message.text or ""
    words = "".join(whole.split(maxsplit=1)[1:])
    before = utf16_len(whole.removesuffix(words))
    return words.rstrip(), list(_moved(asked.message.entities, before, before + utf16_len(words.rstrip())))


def _moved(entities: Sequence[MessageEntity], start: int, end: int) -> Iterator[dict[str, Any]]:
    """Those between, as they stand in what is between; in UTF-16 units."""
    for each in entities:
        first, last = max(each.offset, start), min(each.offset + each.length, end)
        if first < last:
            yield each.to_dict() | {"offset": first - start, "length": last - first}


def _card(broadcast: Broadcast, at: Progress, locale: str) -> Panel:
    code = f"broadcast.{broadcast.state}"
    words = text(locale, code, sent=at.sent, total=at.total, unreached=at.unreached)
    if at.unsure and broadcast.state != broadcasts.SENDING:
        words += "\n" + text(locale, "broadcast.unsure", unsure=at.unsure)
    stop = ((text(locale, "broadcast.stop"), f"nobcast:{broadcast.number}"),)
    return Panel(words, (stop,) if broadcast.state == broadcasts.SENDING else ())


def _recipients(session: Session) -> list[int]:
    """Who opened a private chat with us and is not blocked."""
    private = chats.ids_of_kind(session, CHANNEL, ChatKind.PRIVATE)
    known = users.of_channel(session, CHANNEL)
    return [each.id for each in known if each.role is not Role.BLOCKED and each.external_id in private]


def _begin(session: Session, number: int, card: tuple[str, str], by_user_id: int) -> Broadcast | Refusal:
    return broadcasts.confirm(session, number, _recipients(session), card, by_user_id=by_user_id, at=now())


def _take(session: Session, notice_id: int, user_id: int) -> Spot | None:
    """None if it was cancelled, or sent, meanwhile, or they were blocked."""
    user = users.get(session, user_id)
    if user.role is Role.BLOCKED:
        outbox.give_up(session, notice_id, "blocked", now())
        return None
    return Spot(int(user.external_id)) if outbox.take(session, notice_id, broadcasts.UNSURE, now()) else None
