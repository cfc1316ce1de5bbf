"""Runs the bot, by polling or by webhook, until SIGTERM or Ctrl-C. Reads no environment: `huigan bot` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from telegram.error import InvalidToken
from telegram.ext import Application, ApplicationBuilder

from bot.alone import alone
from bot.application import ALLOWED_UPDATES, USUAL, Intervals, build_application
from bot.pace import TELEGRAMS, Limits
from bot.secret import Secret
from huigan.health.signs import Signs
from huigan.logs import WithoutSecrets
from huigan.serving.client import AsyncOllama, Ollama
from storage.db import Database
from storage.recipe import Recipe

logger = logging.getLogger(__name__)

FOR_EVER = -1
MOST_UPDATE_BYTES = 1 << 20  # the longest message with all its entities is a twentieth of that
MOST_HEADER_BYTES = 1 << 14
BODY_SECONDS = 30.0


class BadToken(ValueError):
    """Telegram does not know TELEGRAM_BOT_TOKEN: copy the whole token that @BotFather gave, or ask it for a new one."""


@dataclass(frozen=True)
class Webhook:
    """`url` is what Telegram calls; behind it something with TLS passes calls on to `listen`, ADDRESS:PORT."""

    url: str
    secret: str
    listen: str


def run(
    token: str,
    *,
    base_url: str,
    base_file_url: str,
    local_mode: bool = False,
    webhook: Webhook | None = None,
    db: Database,
    ollama_host: str | None,
    recipe: Callable[[], Recipe],
    home: Path,
    admins: Sequence[int] = (),
    intervals: Intervals = USUAL,
    limits: Limits = TELEGRAMS,
    drafts: bool = True,
    signs: Signs | None = None,
) -> None:
    """Returns when it was told to end and what streamed is recorded. Raises BadToken, AnotherBot. The database stays
    open."""
    _quieten([token, *([webhook.secret] if webhook else [])])
    builder = ApplicationBuilder().token(token).base_url(base_url).base_file_url(base_file_url).local_mode(local_mode)
    application = build_application(
        builder,
        db=db,
        chat=AsyncOllama(ollama_host),
        library=Ollama(ollama_host),
        recipe=recipe,
        home=home,
        admins=admins,
        intervals=intervals,
        limits=limits,
        drafts=drafts,
        signs=signs,
    )
    try:
        with alone(db):
            logger.info("Telegram is asked at %s, again and again where it cannot be reached", base_url)
            _listen(application, webhook)
    except InvalidToken:
        # Its text holds the token.
        raise BadToken(BadToken.__doc__) from None


def _listen(application: Application[Any, Any, Any, Any, Any, Any], webhook: Webhook | None) -> None:
    if webhook is None:
        application.run_polling(allowed_updates=ALLOWED_UPDATES, bootstrap_retries=FOR_EVER)
        return
    host, _, port = webhook.listen.rpartition(":")
    _limit_webhook()
    application.run_webhook(
        listen=host,
        port=int(port),
        url_path=urlsplit(webhook.url).path,
        webhook_url=webhook.url,
        secret_token=Secret(webhook.secret),
        allowed_updates=ALLOWED_UPDATES,
        bootstrap_retries=FOR_EVER,
    )


def _limit_webhook() -> None:
    """A body is read before the library looks for the secret: nobody else's is worth memory or a connection."""
    from tornado.httpserver import HTTPServer

    HTTPServer.configure(
        None, max_body_size=MOST_UPDATE_BYTES, max_header_size=MOST_HEADER_BYTES, body_timeout=BODY_SECONDS
    )


def _quieten(secrets: Sequence[str]) -> None:
    """At INFO httpx logs every URL, and the token is in each; what the other logs is raised as well."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("telegram.request").setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        handler.addFilter(WithoutSecrets(secrets))
