"""Admins' commands: /status /releases /promote /reject /rollback /while_training, and the guard before all of them.

What they may do is huigan.operate's to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from telegram import Message, Update
from telegram.ext import BaseHandler, CommandHandler, ContextTypes, filters

from bot.locales import Locales
from bot.places import Spot, place_of, speaker_of, spot_of
from bot.rights import is_admin
from bot.screen import Screen
from bot.status import marked, status, time_of
from huigan.operate import releases as operate_releases
from huigan.operate import rollbacks
from huigan.operate import runs as operate_runs
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from huigan.texts import text, told
from huigan.turns.opening import meet
from storage import artefacts, deployments, gpu, holdings, releases, runs, settings
from storage.db import Database, Session
from storage.records import Release, RunState, User

LISTED_RELEASES = 15


@dataclass(frozen=True)
class Asked:
    """A command of an admin's."""

    user: User
    locale: str
    spot: Spot
    args: list[str]
    say: Callable[[str], Awaitable[None]]  # beside it, before the answer
    message: Message


Act = Callable[[Asked], Awaitable[str | None]]  # the answer in words; None: it has been given
Guard = Mapping[str, Act]  # by the name of the command


def guarded(db: Database, screen: Screen, locales: Locales, acts: Guard) -> list[BaseHandler[Any, Any, Any]]:
    """Handlers that let nobody but admins act."""
    new = filters.UpdateType.MESSAGE
    return [CommandHandler(name, _guarded(db, screen, locales, act), filters=new) for name, act in acts.items()]


def _guarded(
    db: Database, screen: Screen, locales: Locales, act: Act
) -> Callable[[Update, ContextTypes.DEFAULT_TYPE], Coroutine[Any, Any, None]]:
    async def handle(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        message, user = update.message, update.effective_user
        assert message is not None
        assert user is not None
        locale, spot = await locales.of(update), spot_of(message)
        known, _ = await db.awrite(meet, place_of(message), speaker_of(user), datetime.now(UTC))

        async def say(words: str) -> None:
            await screen.say(spot, words)

        if not is_admin(known):
            await say(text(locale, "refusal.not_admin"))
            return
        words = await act(Asked(known, locale, spot, list(context.args or []), say, message))
        if words is not None:
            await say(words)

    return handle


def refused(refusal: Refusal, locale: str) -> str:
    params = dict(refusal.params)
    if params.get("state"):
        params["state"] = told(locale, "state", str(params["state"]))
    return told(locale, "refusal", refusal.code, params)


class Admin:
    def __init__(self, db: Database, library: Ollama) -> None:
        self._db = db
        self._library = library

    def acts(self) -> Guard:
        return {
            "status": self._status,
            "releases": self._releases,
            "promote": self._promote,
            "reject": self._reject,
            "rollback": self._rollback,
            "while_training": self._while_training,
        }

    async def _status(self, asked: Asked) -> str:
        return await self._db.aread(status, asked.locale, datetime.now(UTC))

    async def _releases(self, asked: Asked) -> str:
        return await self._db.aread(_releases, asked.locale)

    async def _promote(self, asked: Asked) -> str:
        number = number_of(asked.args)
        if number is None:
            return text(asked.locale, "refusal.promote_usage")
        await asked.say(text(asked.locale, "admin.working"))
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": datetime.now(UTC)}
        return await self._swapped(
            asked.locale, "admin.promoted", lambda: operate_releases.promote(self._db, self._library, number, **how)
        )

    async def _reject(self, asked: Asked) -> str:
        number = number_of(asked.args[:1])
        if number is None:
            return text(asked.locale, "refusal.reject_usage")
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": datetime.now(UTC)}
        why = " ".join(asked.args[1:])
        result = await asyncio.to_thread(operate_releases.reject, self._db, number, why=why, **how)
        if isinstance(result, Refusal):
            return refused(result, asked.locale)
        return text(asked.locale, "admin.rejected", release=number)

    async def _rollback(self, asked: Asked) -> str:
        await asked.say(text(asked.locale, "admin.working"))
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": datetime.now(UTC)}
        return await self._swapped(
            asked.locale, "admin.rolled_back", lambda: rollbacks.rollback(self._db, self._library, **how)
        )

    async def _while_training(self, asked: Asked) -> str:
        """Shown without an argument; `recipe` leaves it to each run's."""
        wanted = asked.args[0].lower() if len(asked.args) == 1 else ""
        if not asked.args:
            setting = await self._db.aread(settings.get, gpu.SETTING)
            wanted = str(setting.value) if setting is not None and setting.value else "recipe"
        elif wanted in {*gpu.CHOICES, "recipe"}:
            way = None if wanted == "recipe" else cast("gpu.WhileTraining", wanted)
            how: dict[str, Any] = {"by_user_id": asked.user.id, "at": datetime.now(UTC)}
            await asyncio.to_thread(operate_runs.answer_while_training, self._db, way, **how)
        else:
            return text(asked.locale, "refusal.while_training_usage")
        return told(asked.locale, "while_training", wanted)

    async def _swapped(self, locale: str, done: str, swap: Callable[[], operate_releases.Promoted | Refusal]) -> str:
        """Loading what is to answer takes a while: in a thread, so that everybody else is answered meanwhile."""
        try:
            result = await asyncio.to_thread(swap)
        except ServingError as error:
            return text(locale, "admin.not_swapped", reason=told(locale, "error", error.code, error.params))
        if isinstance(result, Refusal):
            return refused(result, locale)
        words = text(locale, done, release=result.release.id, tag=result.release.tag)
        return "\n".join(
            [words, *(told(locale, "passed_over", each.code, asdict(each)) for each in result.passed_over)]
        )


def number_of(args: list[str]) -> int | None:
    """Of a run or a release, where nothing else is said; small enough for a database."""
    is_one = len(args) == 1 and args[0].isascii() and args[0].isdigit() and len(args[0]) <= 18
    return int(args[0]) if is_one else None


def _releases(session: Session, locale: str) -> str:
    known = releases.newest(session, LISTED_RELEASES)
    if not known:
        return text(locale, "admin.no_releases")
    live, tried = deployments.live(session), deployments.canary(session)
    before = rollbacks.way_back(session)
    lines = []
    for each in known:
        code = "admin.release_line"
        if live is not None and each.id == live.release.id:
            code = "admin.release_line_live"
        elif tried is not None and each.id == tried.release.id:
            code = "admin.release_line_tried"
        elif _awaits(session, each):
            code = "admin.release_line_awaiting"
        elif each.id == before:
            code = "admin.release_line_before"
        line = text(locale, code, release=each.id, tag=each.tag, made=time_of(each.created_at))
        mark = marked(holdings.of_release(session, each.id), locale)
        lines.append(f"{line} · {mark}" if mark else line)
    return "\n".join(lines)


def _awaits(session: Session, release: Release) -> bool:
    run_id = artefacts.get(session, release.artefact_id).run_id
    return run_id is not None and runs.get(session, run_id).state is RunState.AWAITING_APPROVAL
