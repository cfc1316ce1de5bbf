"""A simulated day: 200 people in private chats, groups and topics write 2,000 messages to the bot, between a strict
fake of Telegram and one of Ollama that both fail now and then; the bot is killed once and told to end once.

    python -m benchmarks.day [--users 200] [--messages 2000] [--seed 7] [--no-drafts]

Prints what was done and every trouble found (see tests/bot/day.py); ends with 1 where there is one. `pytest
tests/flows/test_bot_day.py` is a tenth of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from storage.db import connect
from storage.migrations import upgrade
from tests.bot.day import SPEED, Day
from tests.bot.running import world


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    drafts = argparse.BooleanOptionalAction
    parser.add_argument("--drafts", action=drafts, default=True, help="answers grow in drafts in private chats")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = connect(f"sqlite:///{folder}/huigan.db")
        upgrade(db)
        begun = time.monotonic()
        with world(db, Path(folder), SPEED, overall=SPEED, context_tokens=30_000) as here:
            here.settings["drafts"] = told.drafts
            day = Day(here, told.users, told.messages, told.seed)
            day.live()
            troubles = day.troubles()
            print(day.summary())
            print(f"{time.monotonic() - begun:.0f} s, {len(troubles)} troubles", *troubles, sep="\n")
        db.close()
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
