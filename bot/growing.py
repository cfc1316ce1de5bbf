"""A turn on the screen while it is being answered: waiting, thinking, and the answer as it grows.

In a private chat it grows in a draft, which becomes nothing by itself and needs no message; in groups, and where the
server takes no drafts, in a message that is edited. What outgrows a message is shown for good as soon as its last form
is known, and the rest grows in the next. How a turn ends is not shown here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bot import keyboards
from bot.places import Spot
from bot.render import MAX_UNITS, Piece, finished, growing, growing_plain, thinking
from bot.screen import Screen
from bot.standing import MOST_CHARACTERS, Standing, folded
from huigan.texts import text
from huigan.turns.answering import Phase, View
from huigan.turns.desk import Watched

T = TypeVar("T")

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1.0  # between looks, where nothing changes
TYPING_SECONDS = 4.5  # Telegram shows it for five
COLD_SECONDS = 3.0  # without a first word for so long, the model is being loaded
FINISHED_CHARACTERS = MAX_UNITS // 2  # below, a text cannot have outgrown a message, whatever its signs are

Keep = Callable[[Standing, str], Awaitable[None]]


class Growing:
    def __init__(self, screen: Screen, spot: Spot, locale: str, turn_id: int, standing: Standing, keep: Keep) -> None:
        """`standing` is on the screen already; `keep` keeps what will be, and the text that it shows."""
        self._screen = screen
        self._spot = spot
        self._locale = locale
        self._turn_id = turn_id
        self._standing = standing
        self._keep = keep
        self._in_draft = screen.takes_drafts and not spot.is_group and standing.growing is None
        self._is_adopted = standing.growing is not None
        self._framed: Piece | None = None
        self._loading_since: float | None = None
        self._drafted: Piece | None = None
        self._drafted_at = float("-inf")

    async def follow(self, watched: Watched, begin: Callable[[], Awaitable[None]]) -> None:
        """Until it is answered. `begin` returns when it may have its place among the messages: drafts take none."""
        beside = [asyncio.create_task(self._type(watched))]
        try:
            changed = asyncio.Event()
            beside.append(asyncio.create_task(_note_changes(watched, changed)))
            is_of_use = True
            while is_of_use and not (self._is_placed() and watched.view.phase is Phase.CLOSED):
                changed.clear()
                is_of_use = await self._show(watched, begin)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULSE_SECONDS):
                        await changed.wait()
                await self._room(watched)
            await watched.closed()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _is_placed(self) -> bool:
        return self._in_draft or self._standing.growing is not None

    async def _room(self, watched: Watched) -> None:
        """Until there is room for a frame, or no need of one any more."""
        room = asyncio.create_task(self._screen.pace.frame_room(self._spot.chat_id, draft=self._in_draft))
        closed = asyncio.create_task(watched.closed())
        try:
            await asyncio.wait({room, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()
            closed.cancel()

    async def _show(self, watched: Watched, begin: Callable[[], Awaitable[None]]) -> bool:
        """False once frames are of no use."""
        await self._finish(watched.view, begin)
        if self._in_draft:
            await self._draft(self._frame(watched.view))
        if self._in_draft:  # no longer, where the server has just refused one
            return True
        keyboard = keyboards.stop(self._turn_id, self._locale)
        if self._standing.growing is None:
            if not self._standing.done:
                await begin()
            self._framed = self._frame(watched.view)
            await self._stand(self._standing.grown(await self._screen.send(self._spot, self._framed, keyboard)))
            return True
        view = watched.view
        piece, has_begun = self._frame(view), bool(view.text.strip() or view.thinking.strip())
        # What was sent once may stand there though no answer came, or an earlier process put it there: the same once
        # more would be refused.
        if piece == self._framed or (self._is_adopted and not has_begun):
            return True
        self._framed = piece
        return await self._screen.frame(self._spot, self._standing.growing, piece, keyboard)

    async def _finish(self, view: View, begin: Callable[[], Awaitable[None]]) -> None:
        """Show for good what has its last form. At the end all of it has: that is not shown here."""
        if view.phase is not Phase.ANSWERING or len(view.text) + len(view.thinking) < FINISHED_CHARACTERS:
            return
        thought = folded(self._locale, view.thinking)
        found: list[Piece] = formatted(lambda: finished(view.text, thought), list)
        for piece in found[len(self._standing.done) :]:
            if len(str(self._standing)) > MOST_CHARACTERS:  # no room to note one more: it waits for the end
                return
            if not self._standing.done:
                await begin()
            # First the text: what is shown for good, a kill must not take back.
            await self._stand(self._standing, view.text)
            if self._standing.growing is None:
                message_id = await self._screen.send(self._spot, piece)
            else:
                message_id = await self._screen.edit(self._spot, self._standing.growing, piece)
            await self._stand(self._standing.finished(message_id, thought))
            self._drafted = self._framed = None
            self._is_adopted = False

    async def _stand(self, standing: Standing, words: str = "") -> None:
        self._standing = standing
        await self._keep(standing, words)

    async def _draft(self, piece: Piece) -> None:
        now = time.monotonic()
        is_there = self._screen.sent_at(self._spot.chat_id) < self._drafted_at > now - self._screen.pace.draft_seconds
        if piece == self._drafted and is_there:
            return
        taken = await self._screen.draft(self._spot, self._turn_id, piece)
        if taken is None:
            self._in_draft = False
        elif taken:
            self._drafted, self._drafted_at = piece, now

    def _frame(self, view: View) -> Piece:
        if view.text.strip():
            thought, done = folded(self._locale, view.thinking), len(self._standing.done)
            return formatted(lambda: growing(view.text, thought, done), lambda: growing_plain(view.text, done))
        if view.thinking.strip():
            return thinking(text(self._locale, "phase.thinking"), view.thinking)
        words = self._waiting(view)
        # There may be no button beside a draft.
        return Piece(f"{words}\n{text(self._locale, 'phase.stop')}" if self._in_draft else words)

    def _waiting(self, view: View) -> str:
        if view.phase is Phase.QUEUED and "card_minutes" in view.params:
            minutes = view.params["card_minutes"]
            if minutes is None:
                return text(self._locale, "phase.card_held_unknown")
            return text(self._locale, "phase.card_held", minutes=minutes)
        if view.phase is Phase.QUEUED and view.position:
            return text(self._locale, "phase.queued", position=view.position)
        return text(self._locale, "phase.loading" if self._is_cold(view) else "phase.thinking")

    def _is_cold(self, view: View) -> bool:
        if view.phase is not Phase.LOADING:
            return False
        now = time.monotonic()
        self._loading_since = self._loading_since or now
        return now - self._loading_since > COLD_SECONDS

    async def _type(self, watched: Watched) -> None:
        """Until the first word is there."""
        while watched.view.phase in {Phase.QUEUED, Phase.LOADING} and not watched.view.text:
            await self._screen.typing(self._spot)
            await asyncio.sleep(TYPING_SECONDS)


def formatted(rich: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """The Markdown library is not ours, and a release may write anything: the answer is shown all the same."""
    try:
        return rich()
    except Exception:
        logger.exception("an answer could not be formatted")
        return otherwise()


async def _note_changes(watched: Watched, changed: asyncio.Event) -> None:
    async for _ in watched.watch():
        changed.set()
