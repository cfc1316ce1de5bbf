"""Messages with buttons for admins: pressed, checked, acted on, and changed to how things stand then. Whoever is no
admin any more, or presses what is not there, changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from telegram import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.ext import BaseHandler, CallbackQueryHandler, ContextTypes

from bot import CHANNEL
from bot.keyboards import Press, parse
from bot.locales import Locales
from bot.places import Spot, spot_of
from bot.render import Piece, clipped
from bot.rights import is_admin
from bot.screen import Screen
from huigan.texts import text
from storage import users
from storage.db import Database
from storage.records import User

PANEL_UNITS = 4000


@dataclass(frozen=True)
class Panel:
    words: str
    rows: tuple[tuple[tuple[str, str], ...], ...] = ()  # of buttons: what they say, what their press says

    @property
    def piece(self) -> Piece:
        return Piece(clipped(self.words.strip(), PANEL_UNITS))

    @property
    def keyboard(self) -> InlineKeyboardMarkup | None:
        rows = [[InlineKeyboardButton(said, callback_data=data) for said, data in row] for row in self.rows if row]
        return InlineKeyboardMarkup(rows) if rows else None


@dataclass(frozen=True)
class Pushed:
    user: User
    locale: str
    press: Press
    spot: Spot
    message_id: int


Answer = Panel | str | None  # what the message shows from now on; or words for whoever pressed; or neither
Act = Callable[[Pushed], Awaitable[Answer]]


async def put(screen: Screen, spot: Spot, panel: Panel) -> int:
    return await screen.send(spot, panel.piece, panel.keyboard)


def pressable(
    db: Database, screen: Screen, locales: Locales, replayed: Container[int], acts: Mapping[str, Act]
) -> BaseHandler[Any, Any, Any]:
    """`acts` by what the presses begin with. `replayed`: updates whose presses Telegram has forgotten."""

    async def handle(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query, locale = update.callback_query, await locales.of(update)
        assert query is not None
        pushed = await _pushed(db, update, locale)
        answer: Answer = pushed if isinstance(pushed, str) else await acts[pushed.press.act](pushed)
        if update.update_id not in replayed:
            await tell(screen, query, answer if isinstance(answer, str) else "")
        if isinstance(answer, Panel) and not isinstance(pushed, str):
            await screen.edit(pushed.spot, pushed.message_id, answer.piece, answer.keyboard)

    return CallbackQueryHandler(handle, pattern=rf"^({'|'.join(acts)})(:|$)")


async def tell(screen: Screen, query: CallbackQuery, words: str) -> None:
    """Words for whoever pressed: in a message where the press was answered without them, since it took long."""
    if not await screen.toast(query, words) and words and isinstance(query.message, Message):
        await screen.say(spot_of(query.message), words)


async def _pushed(db: Database, update: Update, locale: str) -> Pushed | str:
    query = update.callback_query
    assert query is not None
    press, message = parse(query.data), query.message
    if press is None or not isinstance(message, Message) or not _shows(message, query.data):
        return text(locale, "refusal.stale_button")
    known = await db.aread(users.find, CHANNEL, str(query.from_user.id))
    if known is None or not is_admin(known):
        return text(locale, "refusal.not_admin")
    return Pushed(known, locale, press, spot_of(message), message.message_id)


def _shows(message: Message, data: str | None) -> bool:
    rows = message.reply_markup.inline_keyboard if message.reply_markup else ()
    return any(button.callback_data == data for row in rows for button in row)


def now() -> datetime:
    return datetime.now(UTC)
