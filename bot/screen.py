"""What stands on people's screens: sent, edited, and known, so that nothing is shown twice the same.

What has to arrive is tried again until Telegram took it: a lost connection does not tell whether it had, and a part of
an answer seen twice is better than one that is lost. Knows no answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from telegram import (
    Bot,
    CallbackQuery,
    ForceReply,
    InlineKeyboardMarkup,
    InputFile,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)
from telegram.constants import ChatAction
from telegram.error import BadRequest, InvalidToken, NetworkError, TelegramError

from bot.pace import FRAME, Pace
from bot.places import Spot
from bot.render import Piece, plain
from bot.toasts import Toasts

logger = logging.getLogger(__name__)

T = TypeVar("T")
Keyboard = InlineKeyboardMarkup | None

RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
REMEMBERED_MESSAGES = 4096
# Since Bot API 10.3; a server that does not know them takes them without a word.
_STOPPABLE = {"can_stop": True, "keep_on_stop": True}
_NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class Screen:
    def __init__(self, bot: Bot, pace: Pace, toasts: Toasts, *, drafts: bool = False) -> None:
        self._bot = bot
        self.pace = pace
        self._toasts = toasts
        self.takes_drafts = drafts  # until the server says that it takes none: then never again in this process
        self._shown: OrderedDict[tuple[int, int], tuple[Piece | None, Keyboard]] = OrderedDict()
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._marking: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()

    async def send(self, spot: Spot, piece: Piece, keyboard: InlineKeyboardMarkup | ForceReply | None = None) -> int:
        """A new message; its id. Raises TelegramError where Telegram will never take it, or long cannot."""
        reply = ReplyParameters(spot.reply_to, allow_sending_without_reply=True) if spot.reply_to else None

        def call(shown: Piece) -> Awaitable[object]:
            return self._bot.send_message(
                spot.chat_id,
                shown.text,
                entities=_entities(shown, self._bot),
                reply_markup=keyboard,
                message_thread_id=spot.thread_id,
                reply_parameters=reply,
                link_preview_options=_NO_PREVIEW,
            )

        sent = await _insist(lambda: _rich_or_plain(call, piece))
        message_id = int(sent.message_id)  # type: ignore[attr-defined]
        self._sent_at[spot.chat_id] = time.monotonic()
        self._sent_at.move_to_end(spot.chat_id)
        if len(self._sent_at) > REMEMBERED_MESSAGES:
            self._sent_at.popitem(last=False)
        self._remember(
            spot.chat_id, message_id, piece, keyboard if isinstance(keyboard, InlineKeyboardMarkup) else None
        )
        return message_id

    def sent_at(self, chat_id: int) -> float:
        """When a message was last sent there, by the monotonic clock: it takes the place of all drafts."""
        return self._sent_at.get(chat_id, float("-inf"))

    async def send_document(self, spot: Spot, content: bytes, name: str, caption: str) -> None:
        reply = ReplyParameters(spot.reply_to, allow_sending_without_reply=True) if spot.reply_to else None
        await _insist(
            lambda: self._bot.send_document(
                spot.chat_id,
                InputFile(content, filename=name),
                caption=caption,
                message_thread_id=spot.thread_id,
                reply_parameters=reply,
            )
        )

    async def say(self, spot: Spot, words: str, keyboard: Keyboard = None) -> None:
        """Words of ours."""
        parts = plain(words)
        for part in parts:
            await self.send(spot, part, keyboard if part is parts[-1] else None)

    async def photo(self, spot: Spot, png: bytes, caption: str) -> int:
        """A picture with its words, of at most 1024 UTF-16 units. Raises as `send` does."""
        reply = ReplyParameters(spot.reply_to, allow_sending_without_reply=True) if spot.reply_to else None
        how: dict[str, Any] = {"message_thread_id": spot.thread_id, "reply_parameters": reply, "filename": "chart.png"}
        sent = await _insist(lambda: self._bot.send_photo(spot.chat_id, png, caption, **how))
        return int(sent.message_id)

    async def edit(self, spot: Spot, message_id: int, piece: Piece, keyboard: Keyboard = None) -> int:
        """Let a message show this; the id of the one that does: a new one where somebody deleted the old."""
        if self._shown.get((spot.chat_id, message_id)) == (piece, keyboard):
            return message_id
        try:
            await _insist(lambda: _rich_or_plain(lambda shown: self._edit(spot, message_id, shown, keyboard), piece))
        except BadRequest as error:
            if _is_gone(error):
                return await self.send(spot, piece, keyboard)
            if not _is_the_same(error):
                raise
        self._remember(spot.chat_id, message_id, piece, keyboard)
        return message_id

    async def correct(self, spot: Spot, message_id: int, piece: Piece) -> None:
        """Let a message without buttons, that was to stay as it is, show this; nothing where it is known to, or not
        known what it shows."""
        shown, _ = self._shown.get((spot.chat_id, message_id), (None, None))
        if shown is not None and shown != piece:
            await self.edit(spot, message_id, piece)

    async def frame(self, spot: Spot, message_id: int, piece: Piece, keyboard: Keyboard) -> bool:
        """Show a passing state, if there is room for it now. False once that is of no use in this message."""
        if self._shown.get((spot.chat_id, message_id)) == (piece, keyboard):
            return True
        try:
            await self._edit(spot, message_id, piece, keyboard, pace=FRAME)
        except BadRequest as error:
            return _is_the_same(error)
        except TelegramError as error:
            logger.debug("a frame was dropped: %s", error)
            return True
        self._remember(spot.chat_id, message_id, piece, keyboard)
        return True

    async def draft(self, spot: Spot, draft_id: int, piece: Piece) -> bool | None:
        """Show a passing state where the next message will stand, for half a minute. False if it was dropped; None
        where drafts are of no use."""
        try:
            return await self._bot.send_message_draft(
                spot.chat_id,
                draft_id,
                piece.text,
                message_thread_id=spot.thread_id,
                entities=_entities(piece, self._bot),
                api_kwargs=_STOPPABLE,
            )
        except InvalidToken:
            # A method that a server does not know looks to the library like a wrong token, whose text is the token's.
            logger.warning("the server takes no drafts: answers grow in messages that are edited")
            self.takes_drafts = False
            return None
        except BadRequest as error:
            logger.warning("a draft was refused, its answer grows in a message: %s", error)
            return None
        except TelegramError as error:
            logger.debug("a draft was dropped: %s", error)
            return False

    async def typing(self, spot: Spot) -> None:
        try:
            await self._bot.send_chat_action(spot.chat_id, ChatAction.TYPING, message_thread_id=spot.thread_id)
        except TelegramError as error:
            logger.debug("typing was not shown: %s", error)

    async def mark(self, chat_id: int, message_id: int, keyboard: Keyboard, seen: Keyboard) -> None:
        """Other buttons under a message, which had those that were `seen` there. Where two people press at once, the
        second mark is compared with what the first has left."""
        async with self._marking.setdefault((chat_id, message_id), asyncio.Lock()):
            piece, shown = self._shown.get((chat_id, message_id), (None, seen))
            if shown == keyboard:
                return
            try:
                await _insist(lambda: self._bot.edit_message_reply_markup(chat_id, message_id, reply_markup=keyboard))
            except BadRequest as error:
                if not (_is_gone(error) or _is_the_same(error)):
                    raise
            self._remember(chat_id, message_id, piece, keyboard)

    async def toast(self, query: CallbackQuery, words: str) -> bool:
        """Answer a press, unless it is answered already. Whether the words are seen."""
        return await self._toasts.say(query, words)

    async def _edit(
        self, spot: Spot, message_id: int, piece: Piece, keyboard: Keyboard, pace: str | None = None
    ) -> object:
        return await self._bot.edit_message_text(  # type: ignore[call-arg] # ExtBot's, for its rate limiter
            piece.text,
            spot.chat_id,
            message_id,
            entities=_entities(piece, self._bot),
            reply_markup=keyboard,
            link_preview_options=_NO_PREVIEW,
            rate_limit_args=pace,
        )

    def _remember(self, chat_id: int, message_id: int, piece: Piece | None, keyboard: Keyboard) -> None:
        self._shown[chat_id, message_id] = (piece, keyboard)
        self._shown.move_to_end((chat_id, message_id))
        if len(self._shown) > REMEMBERED_MESSAGES:
            self._shown.popitem(last=False)


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    for wait_seconds in RETRY_SECONDS:
        try:
            return await call()
        except TelegramError as error:
            if not is_passing(error):
                raise
            logger.warning("Telegram did not answer, again in %.1f s: %s", wait_seconds, error)
        await asyncio.sleep(wait_seconds)
    return await call()


async def _rich_or_plain(call: Callable[[Piece], Awaitable[T]], piece: Piece) -> T:
    """As it is, or without formatting where Telegram does not like that."""
    try:
        return await call(piece)
    except BadRequest as error:
        if not piece.entities or "entit" not in str(error).lower():
            raise
        logger.warning("Telegram refused entities, sending plain text: %s", error)
        return await call(Piece(piece.text))


def _entities(piece: Piece, bot: Bot) -> list[MessageEntity]:
    return [MessageEntity.de_json(dict(each), bot) for each in piece.entities]


def is_passing(error: TelegramError) -> bool:
    """Whether the same call may be taken later. A refusal is a NetworkError too, to python-telegram-bot."""
    return isinstance(error, NetworkError) and not isinstance(error, BadRequest)


def _is_the_same(error: BadRequest) -> bool:
    return "not modified" in str(error)


def _is_gone(error: BadRequest) -> bool:
    return any(words in str(error).lower() for words in ("message to edit not found", "message can't be edited"))
