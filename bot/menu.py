"""Which commands Telegram offers to whom, in which language. The words are in the catalogues, as `command.NAME`.

Telegram knows languages by two letters, and for Chinese these stand for the simplified ones. An admin's own chat has a
menu of its own, in the very language they read; it follows their role and language, whoever changed them.
"""

from __future__ import annotations

import logging
import zlib
from datetime import UTC, datetime
from typing import Any

from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
    BotCommandScopeDefault,
)
from telegram.error import NetworkError, RetryAfter, TelegramError

from bot import CHANNEL
from huigan.texts import locale_of, text
from storage import chats, settings, users
from storage.db import Database, Session
from storage.records import ChatKind

logger = logging.getLogger(__name__)

FOR_EVERYBODY = (
    "new",
    "stop",
    "persona",
    "system",
    "why",
    "lang",
    "fix",
    "feedback",
    "privacy",
    "export",
    "forget",
    "start",
    "help",
    "id",
)
IN_GROUPS = ("new", "stop", "persona", "system", "scope", "why", "lang", "fix", "feedback", "help", "id")
FOR_ADMINS = (
    "status", "health", "retrain", "runs", "cancel", "releases", "rollback", "canary", "stats", "while_training",
    "schedule", "settings", "users", "access", "invite", "invites", "broadcast", "models", "audit", "compare_rate",
)  # fmt: skip
LANGUAGES = ((None, "en"), ("zh", "zh-Hans"))  # as is answered whose language has no catalogue
KEY = "menus"  # admins' chats that have a menu of their own, with what is in it


async def show(bot: Bot) -> None:
    """What everybody is offered. A menu that is not set does no harm."""
    scopes = (
        (BotCommandScopeDefault(), FOR_EVERYBODY),
        (BotCommandScopeAllPrivateChats(), FOR_EVERYBODY),
        (BotCommandScopeAllGroupChats(), IN_GROUPS),
    )
    try:
        for scope, names in scopes:
            for language, locale in LANGUAGES:
                await bot.set_my_commands(_menu(names, locale), scope, language)
    except TelegramError as error:
        logger.warning("the menu of commands was not set: %s", error)


class AdminMenus:
    def __init__(self, db: Database, bot: Bot) -> None:
        self._db = db
        self._bot = bot

    async def look(self) -> None:
        """Every few seconds: give what lacks, take what is due no more."""
        wanted, had = await self._db.aread(_wanted), await self._db.aread(_had)
        for chat in sorted(wanted.keys() | had.keys()):
            if wanted.get(chat) == had.get(chat):
                continue
            try:
                await self._set(chat, wanted.get(chat))
            except TelegramError as error:
                logger.warning("the menu of an admin was not set: %s", error)
                if isinstance(error, RetryAfter) or _is_passing(error):
                    return
            had = {each: what for each, what in had.items() if each != chat}
            had |= {chat: wanted[chat]} if chat in wanted else {}
            await self._db.awrite(settings.put, KEY, had, None, datetime.now(UTC))

    async def _set(self, chat: str, menu: str | None) -> None:
        scope = BotCommandScopeChat(int(chat))
        if menu is None:
            await self._bot.delete_my_commands(scope)
        else:
            await self._bot.set_my_commands(_menu((*FOR_EVERYBODY, *FOR_ADMINS), menu.partition(" ")[0]), scope)


def _is_passing(error: TelegramError) -> bool:
    return type(error) is NetworkError


def _wanted(session: Session) -> dict[str, str]:
    """By chat: the language, and which commands there are, in short: a newer version may have others."""
    names = zlib.crc32(" ".join((*FOR_EVERYBODY, *FOR_ADMINS)).encode())
    private = chats.ids_of_kind(session, CHANNEL, ChatKind.PRIVATE)
    return {
        each.external_id: f"{locale_of(each.reads)} {names}"
        for each in users.admins(session)
        if each.channel == CHANNEL and each.external_id in private
    }


def _had(session: Session) -> dict[str, str]:
    kept = settings.get(session, KEY)
    found: dict[str, Any] = kept.value if kept and kept.value else {}
    return dict(found)


def _menu(names: tuple[str, ...], locale: str) -> list[BotCommand]:
    return [BotCommand(name, text(locale, f"command.{name}")) for name in names]
