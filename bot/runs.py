"""Admins' commands about runs: /retrain /runs /run /cancel, and the one message in which each run's asker sees it go.

A card is a row: after a restart it is gone on with. Its text changes only where the run has, and the last word is
always said. What may be started or cancelled is huigan.operate's to decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from telegram.error import TelegramError
from telegramify_markdown import utf16_len

from bot import CHANNEL, pictures, progress
from bot.admin import Asked, Guard, number_of, refused
from bot.places import Spot
from bot.progress import Account, account
from bot.render import Piece, clipped
from bot.screen import Screen, is_passing
from huigan.operate import runs as operate
from huigan.operate.recipes import NoSuchRecipe
from huigan.operate.refusals import Refusal
from huigan.texts import locale_of, text
from storage import run_cards, runs, users
from storage.db import Database, Session
from storage.recipe import BadRecipe, Recipe
from storage.records import CardKind, Run, RunCard, RunState, User

logger = logging.getLogger(__name__)

METHODS = ("auto", "sft", "dpo", "kto", "orpo")
LISTED = 10
CAPTION_UNITS = 1024
MIN_POINTS = 2
ROOM_SECONDS = 1.0


class Runs:
    def __init__(self, db: Database, recipe: Callable[[], Recipe], screen: Screen) -> None:
        """`recipe` reads the recipe anew for each run; it may raise BadRecipe, NoSuchRecipe or OSError."""
        self._db = db
        self._recipe = recipe
        self._screen = screen
        self._shown: dict[int, str] = {}  # by card, what this process knows or takes to stand there

    def acts(self) -> Guard:
        return {"retrain": self._retrain, "runs": self._runs, "run": self._run, "cancel": self._cancel}

    async def look(self) -> None:
        """Bring every card up to date. Call every few seconds."""
        for card, user, known in await self._db.aread(_going_on, datetime.now(UTC)):
            try:
                await self._refresh(card, user, known)
            except TelegramError as error:
                logger.warning("card %d of run %d waits: %s", card.id, card.run_id, error)
                if not is_passing(error):
                    await self._finish(card)

    async def _refresh(self, card: RunCard, user: User, known: Account) -> None:
        words = progress.progress(known, locale_of(user.reads), datetime.now(UTC))
        spot = Spot(int(card.chat))
        if known.is_over:
            await self._screen.edit(spot, int(card.message), Piece(clipped(words, 4000)))
            await self._finish(card)
        elif card.id not in self._shown and known.run.state is RunState.QUEUED:
            self._shown[card.id] = words  # an earlier process showed it; the same once more would be refused
        elif words != self._shown.get(card.id) and await self._has_room(spot):
            self._shown[card.id] = words
            # With the time, so that it differs also from what an earlier process showed.
            stamped = f"{words}\n🕒 {datetime.now(UTC):%H:%M:%S} UTC"
            if not await self._screen.frame(spot, int(card.message), Piece(stamped), None):
                await self._finish(card)

    async def _has_room(self, spot: Spot) -> bool:
        """Whether an edit may go there now; else the next look will have newer words."""
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await self._screen.pace.frame_room(spot.chat_id)
        except TimeoutError:
            return False
        return True

    async def _finish(self, card: RunCard) -> None:
        await self._db.awrite(run_cards.finish, card.id, datetime.now(UTC))
        self._shown.pop(card.id, None)

    async def _begin(self, asked: Asked, run: Run, words: str) -> None:
        """A message that will show how the run goes."""
        message_id = await self._screen.send(asked.spot, Piece(words))
        where = (CHANNEL, str(asked.spot.chat_id), str(message_id))
        at = datetime.now(UTC)
        card = await self._db.awrite(run_cards.add, run.id, asked.user.id, CardKind.PROGRESS, *where, at)
        if card is not None:
            self._shown[card.id] = words

    async def _retrain(self, asked: Asked) -> str | None:
        chosen = _chosen(asked.args)
        if chosen is None:
            return text(asked.locale, "refusal.retrain_usage")
        method, is_dry = chosen
        try:
            recipe = await asyncio.to_thread(self._recipe)
            if method is not None:
                recipe = Recipe.from_dict({**recipe.to_dict(), "method": method})
        except (BadRecipe, NoSuchRecipe, OSError) as error:
            return text(asked.locale, "refusal.retrain_unavailable", detail=str(error))
        how: dict[str, Any] = {
            "why": "command",
            "by_user_id": asked.user.id,
            "at": datetime.now(UTC),
            "dataset_only": is_dry,
        }
        result = await asyncio.to_thread(operate.enqueue, self._db, recipe, **how)
        if isinstance(result, Refusal):
            return refused(result, asked.locale)
        await self._begin(asked, result.run, progress.queued(result.run, result.trainer_lives, asked.locale))
        return None

    async def _runs(self, asked: Asked) -> str:
        newest = await self._db.aread(runs.newest, LISTED)
        return "\n".join(progress.line(each, asked.locale) for each in newest) or text(asked.locale, "admin.no_runs")

    async def _run(self, asked: Asked) -> str | None:
        number = await self._db.aread(_meant, asked.args, None)
        if isinstance(number, Refusal):
            return refused(number, asked.locale)
        at = datetime.now(UTC)
        known = await self._db.aread(account, number, at)
        words = progress.whole(known, asked.locale, at)
        if not known.is_over and not await self._db.aread(_is_watched, number, asked.user.id):
            await self._begin(asked, known.run, progress.progress(known, asked.locale, at))
        if len(known.points) < MIN_POINTS:
            return words
        picture = await asyncio.to_thread(pictures.curves, known.points)
        fits = utf16_len(words) <= CAPTION_UNITS
        await self._screen.photo(asked.spot, picture, words if fits else progress.head(known.run, asked.locale))
        return None if fits else words

    async def _cancel(self, asked: Asked) -> str:
        number = await self._db.aread(_meant, asked.args, progress.ACTIVE)
        if isinstance(number, Refusal):
            return refused(number, asked.locale)
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": datetime.now(UTC)}
        result = await asyncio.to_thread(operate.cancel, self._db, number, **how)
        if isinstance(result, Refusal):
            return refused(result, asked.locale)
        is_ended = result.run.state is RunState.CANCELLED
        return text(asked.locale, "admin.cancelled" if is_ended else "admin.cancel_asked", run=number)


def _chosen(args: list[str]) -> tuple[str | None, bool] | None:
    """(method, whether it is to end with the data set), in any order; None for what is neither."""
    words = [each.lower() for each in args]
    methods = [each for each in words if each in METHODS]
    dry = [each for each in words if each == "dry"]
    if len(methods) > 1 or len(dry) > 1 or len(methods) + len(dry) < len(words):
        return None
    return (methods[0] if methods else None), bool(dry)


def _meant(session: Session, args: list[str], states: frozenset[RunState] | None) -> int | Refusal:
    """The run that is named, else the newest one in these states; a running one before one that waits."""
    if args:
        number = number_of(args)
        if number is None:
            return Refusal("run_usage")
    else:
        found = runs.newest(session, states=states)
        if not found:
            return Refusal("no_such_run")
        number = next((each.id for each in found if each.state is RunState.RUNNING), found[0].id)
    try:
        return runs.get(session, number).id
    except LookupError:
        return Refusal("unknown_run", {"run": number})


def _is_watched(session: Session, run_id: int, user_id: int) -> bool:
    """Whether they have a message that shows how it goes: one is enough."""
    cards = run_cards.of_run(session, run_id, CardKind.PROGRESS)
    return any(card.user_id == user_id and card.finished_at is None for card in cards)


def _going_on(session: Session, at: datetime) -> list[tuple[RunCard, User, Account]]:
    cards = run_cards.unfinished(session, CHANNEL, CardKind.PROGRESS)
    known = {run_id: account(session, run_id, at) for run_id in {card.run_id for card in cards}}
    return [(card, users.get(session, card.user_id), known[card.run_id]) for card in cards]
