"""/canary: the release on trial, what was seen of it, and an admin's say: stop, share, try."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from bot.admin import Asked, Guard, number_of, refused
from bot.panels import now
from bot.status import on_trial
from huigan.operate import canaries
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from huigan.texts import text, told
from storage.db import Database, Session


class CanaryPart:
    def __init__(self, db: Database, library: Ollama) -> None:
        self._db = db
        self._library = library

    def acts(self) -> Guard:
        return {"canary": self._canary}

    async def _canary(self, asked: Asked) -> str:
        match asked.args:
            case []:
                return await self._db.aread(_told, asked.locale, now())
            case ["stop"]:
                stopped = await self._db.awrite(canaries.stop, asked.user.id, now())
                if isinstance(stopped, Refusal):
                    return refused(stopped, asked.locale)
                return text(asked.locale, "canary.stopped", release=stopped.release.id)
            case ["share", written] if (share := _share(written)) is not None:
                changed = await self._db.awrite(canaries.set_share, share, asked.user.id, now())
                if isinstance(changed, Refusal):
                    return refused(changed, asked.locale)
                return text(asked.locale, "canary.shared", release=changed.release_id, share=changed.share)
            case ["try", number] if (release := number_of([number])) is not None:
                return await self._begin(asked, release)
            case _:
                return text(asked.locale, "refusal.canary_usage")

    async def _begin(self, asked: Asked, number: int) -> str:
        await asked.say(text(asked.locale, "admin.working"))
        how: dict[str, Any] = {"by_user_id": asked.user.id, "at": now()}
        try:
            begun = await asyncio.to_thread(canaries.begin, self._db, self._library, number, **how)
        except ServingError as error:
            reason = told(asked.locale, "error", error.code, error.params)
            return text(asked.locale, "admin.not_swapped", reason=reason)
        if isinstance(begun, Refusal):
            return refused(begun, asked.locale)
        return text(asked.locale, "canary.begun", release=begun.release_id, share=begun.share)


def _told(session: Session, locale: str, at: datetime) -> str:
    found = canaries.standing(session, at)
    if found is None:
        return text(locale, "canary.none")
    lines = [
        *on_trial(session, locale),
        *(f"· {told(locale, 'canary', each.code, each.params)}" for each in found.judgement.reasons),
        text(locale, "canary.how", release=found.tried.candidate.release.id),
    ]
    return "\n".join(lines)


def _share(written: str) -> float | None:
    try:
        share = float(written)
    except ValueError:
        return None
    return share if 0.0 <= share <= 1.0 else None
