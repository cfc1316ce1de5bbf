"""Admins' commands: /status /retrain /releases /promote /rollback. What they may do is huigan.operate's to decide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from telegram import Update
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, filters

from bot.locales import Locales
from bot.places import place_of, speaker_of, spot_of
from bot.screen import Screen
from bot.status import status, time_of
from huigan.operate import releases as operate_releases
from huigan.operate import runs as operate_runs
from huigan.operate.recipes import NoSuchRecipe
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from huigan.texts import text, told
from huigan.turns.opening import meet
from storage import deployments, releases
from storage.db import Database
from storage.recipe import BadRecipe, Recipe
from storage.records import User

LISTED_RELEASES = 15

Act = Callable[[User, str, list[str], Callable[[str], Awaitable[None]]], Awaitable[str]]


class Admin:
    def __init__(
        self, db: Database, library: Ollama, recipe: Callable[[], Recipe], screen: Screen, locales: Locales
    ) -> None:
        """`recipe` reads the recipe anew for each run; it may raise BadRecipe, NoSuchRecipe or OSError."""
        self._locales = locales
        self._db = db
        self._library = library
        self._recipe = recipe
        self._screen = screen

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        acts: dict[str, Act] = {
            "status": self._status,
            "retrain": self._retrain,
            "releases": self._releases,
            "promote": self._promote,
            "rollback": self._rollback,
        }
        new = filters.UpdateType.MESSAGE
        return [CommandHandler(name, self._guarded(act), filters=new) for name, act in acts.items()]

    def _guarded(self, act: Act) -> Callable[[Update, ContextTypes.DEFAULT_TYPE], Coroutine[Any, Any, None]]:
        async def handle(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
            message, user = update.message, update.effective_user
            assert message is not None
            assert user is not None
            locale, spot = await self._locales.of(update), spot_of(message)
            known, _ = await self._db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC))

            async def say(words: str) -> None:
                await self._screen.say(spot, words)

            if known.is_admin:
                await say(await act(known, locale, list(context.args or []), say))
            else:
                await say(text(locale, "refusal.not_admin"))

        return handle

    async def _status(self, user: User, locale: str, args: list[str], say: object) -> str:
        return await self._db.aread(status, locale, datetime.now(UTC))

    async def _releases(self, user: User, locale: str, args: list[str], say: object) -> str:
        return await self._db.aread(_releases, locale)

    async def _retrain(self, user: User, locale: str, args: list[str], say: object) -> str:
        try:
            recipe = self._recipe()
        except (BadRecipe, NoSuchRecipe, OSError) as error:
            return text(locale, "refusal.retrain_unavailable", detail=str(error))
        result = await asyncio.to_thread(
            operate_runs.enqueue, self._db, recipe, why="command", by_user_id=user.id, at=datetime.now(UTC)
        )
        if isinstance(result, Refusal):
            return _refused(result, locale)
        code = "admin.retrain_queued" if result.trainer_lives else "admin.retrain_waits"
        return text(locale, code, run=result.run.id)

    async def _promote(self, user: User, locale: str, args: list[str], say: Callable[[str], Awaitable[None]]) -> str:
        if len(args) != 1 or not (args[0].isascii() and args[0].isdigit()) or len(args[0]) > 18:
            return text(locale, "refusal.promote_usage")
        await say(text(locale, "admin.working"))
        number = int(args[0])
        return await self._swapped(
            locale,
            "admin.promoted",
            lambda: operate_releases.promote(self._db, self._library, number, by_user_id=user.id, at=datetime.now(UTC)),
        )

    async def _rollback(self, user: User, locale: str, args: list[str], say: Callable[[str], Awaitable[None]]) -> str:
        await say(text(locale, "admin.working"))
        return await self._swapped(
            locale,
            "admin.rolled_back",
            lambda: operate_releases.rollback(self._db, self._library, by_user_id=user.id, at=datetime.now(UTC)),
        )

    async def _swapped(self, locale: str, done: str, swap: Callable[[], operate_releases.Promoted | Refusal]) -> str:
        """Loading what is to answer takes a while: in a thread, so that everybody else is answered meanwhile."""
        try:
            result = await asyncio.to_thread(swap)
        except ServingError as error:
            return text(locale, "admin.not_swapped", reason=told(locale, "error", error.code, error.params))
        if isinstance(result, Refusal):
            return _refused(result, locale)
        return text(locale, done, release=result.release.id, tag=result.release.tag)


def _refused(refusal: Refusal, locale: str) -> str:
    params = dict(refusal.params)
    if params.get("state"):
        params["state"] = told(locale, "state", str(params["state"]))
    return told(locale, "refusal", refusal.code, params)


def _releases(session: Session, locale: str) -> str:
    live = deployments.live(session)
    live_id = live.release.id if live else None
    known = releases.newest(session, LISTED_RELEASES)
    if not known:
        return text(locale, "admin.no_releases")
    return "\n".join(
        text(
            locale,
            "admin.release_line_live" if each.id == live_id else "admin.release_line",
            release=each.id,
            tag=each.tag,
            made=time_of(each.created_at),
        )
        for each in known
    )
