"""/models: the tags in Ollama, with buttons to remove those that nothing needs; /models pull fetches one, in sight."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Container
from typing import Any

from telegram.error import TelegramError
from telegram.ext import BaseHandler

from bot.access import in_private
from bot.admin import Asked, Guard, refused
from bot.locales import Locales
from bot.panels import Panel, Pushed, now, pressable, put
from bot.places import Spot
from bot.render import Piece
from bot.screen import Screen
from huigan.operate import library as operate
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.serving.library import Pulled
from huigan.texts import text, told
from storage.db import Database

logger = logging.getLogger(__name__)

LISTED = 30
GIGABYTE = 1_000_000_000
TAG_CHARACTERS = 120
CLOSING_SECONDS = 5.0


class Library:
    def __init__(
        self,
        db: Database,
        client: Ollama,
        fetcher: AsyncOllama,
        screen: Screen,
        locales: Locales,
        replayed: Container[int],
        progress_seconds: float,
    ) -> None:
        self._db = db
        self._client = client
        self._fetcher = fetcher
        self._screen = screen
        self._locales = locales
        self._replayed = replayed
        self._progress_seconds = progress_seconds
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def acts(self) -> Guard:
        return {"models": in_private(self._models)}

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        presses = {"untag": self._remove, "nopull": self._stop}
        return [pressable(self._db, self._screen, self._locales, self._replayed, presses)]

    async def close(self) -> None:
        """Whoever waits for a pull is told that it ends."""
        self._closing = True
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        if pulls:
            await asyncio.wait(pulls, timeout=CLOSING_SECONDS)

    async def _models(self, asked: Asked) -> str | None:
        match asked.args:
            case []:
                panel = await self._listed(asked.locale)
                if isinstance(panel, str):
                    return panel
                await put(self._screen, asked.spot, panel)
                return None
            case ["pull", tag] if len(tag) <= TAG_CHARACTERS:
                return await self._begin(asked, operate.whole(tag))
            case _:
                return text(asked.locale, "refusal.models_usage")

    async def _listed(self, locale: str) -> Panel | str:
        try:
            return _panel(await asyncio.to_thread(operate.listed, self._db, self._client), locale)
        except ServingError as error:
            return told(locale, "error", error.code, error.params)

    async def _remove(self, pushed: Pushed) -> Panel | str:
        try:
            known = await asyncio.to_thread(library.tags, self._client)
            tag = next((each for each in known if _number(each) in pushed.press.ids), None)
            if tag is not None:
                how: dict[str, Any] = {"by_user_id": pushed.user.id, "at": now()}
                result = await asyncio.to_thread(operate.remove, self._db, self._client, tag, **how)
                if isinstance(result, Refusal):
                    return refused(result, pushed.locale)
        except ServingError as error:
            return told(pushed.locale, "error", error.code, error.params)
        return await self._listed(pushed.locale)

    async def _begin(self, asked: Asked, tag: str) -> str | None:
        if tag in self._pulls:
            return text(asked.locale, "refusal.already_pulling", tag=tag)
        await self._db.awrite(operate.note_pull, tag, asked.user.id, now())
        task = self._pulls[tag] = asyncio.create_task(self._pull(asked, tag), name=f"pull {tag}")
        task.add_done_callback(lambda _: self._pulls.pop(tag, None))
        return None

    async def _stop(self, pushed: Pushed) -> str | None:
        task = next((task for tag, task in self._pulls.items() if _number(tag) in pushed.press.ids), None)
        if task is None:
            return text(pushed.locale, "refusal.stale_button")
        task.cancel()
        return None

    async def _pull(self, asked: Asked, tag: str) -> None:
        try:
            message_id = await put(self._screen, asked.spot, _pulling(Pulled("", 0, 0), tag, asked.locale))
            words, ended = await self._fetched(asked, tag, message_id)
            await self._screen.edit(asked.spot, message_id, Panel(words).piece)
            await self._db.awrite(operate.note_pull, tag, asked.user.id, now(), ended)
        except TelegramError as error:
            logger.warning("how a pull went could not be shown: %s", error)

    async def _fetched(self, asked: Asked, tag: str, message_id: int) -> tuple[str, str]:
        """How it ended: in words, and in one."""
        newest = [Pulled("", 0, 0)]

        def note(pulled: Pulled) -> None:
            newest[0] = pulled

        showing = asyncio.create_task(self._show(asked.spot, message_id, newest, tag, asked.locale))
        try:
            await library.pull(self._fetcher, tag, note)
        except ServingError as error:
            detail = str(error) if error.code in {"refused", "crashed"} else ""
            reason = f"{told(asked.locale, 'error', error.code, error.params)} {detail}".strip()
            return text(asked.locale, "library.pull_failed", tag=tag, reason=reason), error.code
        except asyncio.CancelledError:
            code = "library.pull_cut_off" if self._closing else "library.pull_cancelled"
            return text(asked.locale, code, tag=tag), "cancelled"
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing
        return text(asked.locale, "library.pulled", tag=tag), "done"

    async def _show(self, spot: Spot, message_id: int, newest: list[Pulled], tag: str, locale: str) -> None:
        while True:
            await asyncio.sleep(self._progress_seconds)
            panel = _pulling(newest[0], tag, locale)
            await self._screen.frame(spot, message_id, Piece(panel.words), panel.keyboard)


def _number(tag: str) -> int:
    """A press holds digits, and a tag may be longer than a press."""
    return int(hashlib.sha256(tag.encode()).hexdigest()[:14], 16)


def _pulling(pulled: Pulled, tag: str, locale: str) -> Panel:
    stop = ((text(locale, "button.stop"), f"nopull:{_number(tag)}"),)
    if not pulled.total_bytes:
        return Panel(text(locale, "library.pull_begins", tag=tag), (stop,))
    share, total = pulled.done_bytes / pulled.total_bytes, pulled.total_bytes / GIGABYTE
    return Panel(text(locale, "library.pulling", tag=tag, share=share, total=total), (stop,))


def _panel(kept: list[operate.Kept], locale: str) -> Panel:
    if not kept:
        return Panel(text(locale, "library.empty"))
    lines, buttons = [], []
    for each in kept[:LISTED]:
        marks = [told(locale, "needed", each.needed_for)] if each.needed_for else []
        marks += [text(locale, "library.loaded")] if each.is_loaded else []
        lines.append(" · ".join([each.tag, f"{each.size_bytes / GIGABYTE:.2f} GB", *marks]))
        if each.needed_for is None:
            buttons.append(((text(locale, "library.remove", tag=each.tag), f"untag:{_number(each.tag)}"),))
    if len(kept) > LISTED:
        lines.append(text(locale, "library.more", tags=len(kept) - LISTED))
    return Panel("\n".join(lines), tuple(buttons))
