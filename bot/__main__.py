"""`python -m bot`: the bot as a process of its own. `huigan bot` does the same, and says more when something lacks."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from bot import claim
from bot.main import BadToken, Webhook, run
from huigan import settings
from huigan.operate import recipes
from storage.db import connect


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        where = settings.load()
    except settings.BadSettings as error:
        sys.exit(str(error))
    if where.telegram_bot_token is None:
        sys.exit("TELEGRAM_BOT_TOKEN is missing: get one from @BotFather and put it into .env")
    db = connect(where.database)
    try:
        if not where.admins and (code := db.write(claim.issue, datetime.now(UTC))):
            sys.stderr.write(f"Nobody owns this bot yet. In a private chat with it, send: /claim {code}\n")
        run(
            where.telegram_bot_token.get_secret_value(),
            base_url=where.telegram_base_url,
            base_file_url=where.telegram_base_file_url,
            local_mode=where.telegram_local_mode,
            webhook=_webhook(where),
            db=db,
            ollama_host=where.ollama_host,
            recipe=lambda: recipes.find(db.read(recipes.chosen, where.recipe)),
            admins=where.admins,
        )
    except BadToken as error:
        sys.exit(str(error))
    finally:
        db.close()


def _webhook(where: settings.Settings) -> Webhook | None:
    if where.telegram_webhook_url is None or where.telegram_webhook_secret is None:
        return None
    secret = where.telegram_webhook_secret.get_secret_value()
    return Webhook(where.telegram_webhook_url, secret, where.telegram_webhook_listen)


if __name__ == "__main__":
    main()
