"""Which commands Telegram offers to whom, in which language. The words are in the catalogues, as `command.NAME`."""

from __future__ import annotations

import logging

from telegram import Bot, BotCommand
from telegram.error import TelegramError

from huigan.texts import DEFAULT_LOCALE, text

logger = logging.getLogger(__name__)

FOR_EVERYBODY = ("new", "start", "help", "id")


async def show(bot: Bot) -> None:
    """Commands are offered in Chinese, and in English to whose Telegram is English."""
    try:
        await bot.set_my_commands(_menu(FOR_EVERYBODY, DEFAULT_LOCALE))
        await bot.set_my_commands(_menu(FOR_EVERYBODY, "en"), language_code="en")
    except TelegramError as error:
        logger.warning("the menu of commands was not set: %s", error)


def _menu(names: tuple[str, ...], locale: str) -> list[BotCommand]:
    return [BotCommand(name, text(locale, f"command.{name}")) for name in names]
