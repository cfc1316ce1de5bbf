"""Telegram calls the bot: only with the secret, and told that an update is there only once it is stored. A wrong token
is told with its fix."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from storage.db import Database
from tests.bot.running import REPOSITORY, SECRET, World, free_port, world


@pytest.fixture
def here(sqlite_db: Database, tmp_path: Path) -> Iterator[World]:
    with world(sqlite_db, tmp_path, speed=1) as made:
        yield made
        assert made.refused() == []
        assert made.telegram.token not in made.logged()
        assert SECRET not in made.logged()


def test_updates_come_by_webhook_with_the_secret_and_survive_a_kill(here: World) -> None:
    listen = f"127.0.0.1:{free_port()}"
    url = f"http://{listen}/telegram"
    here.start(webhook={"url": url, "secret": SECRET, "listen": listen})
    here.says("你好")
    here.answer()

    forged = {"update_id": 1, "message": here.chat.log[0].as_json(here.telegram.bot)}
    for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "guess"}):
        assert httpx.post(url, json=forged, headers=headers).status_code == 403
    assert [row["update_id"] for row in here.rows("update")] == [here.telegram.updates.delivered[0]["update_id"]]

    here.kill()
    here.says("还在吗")
    here.start()
    here.said("You said: 还在吗")
    assert here.stop() == 0


def test_a_token_that_telegram_does_not_know_ends_the_bot_with_the_fix_and_without_the_token(here: World) -> None:
    wrong = "123456789:a-token-that-nobody-gave-to-anyone"
    told = here.folder / "bot.json"
    told.write_text(json.dumps(here.settings | {"token": wrong}), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bot.entry", str(told)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "copy the whole token that @BotFather gave" in ended.stderr
    assert wrong not in ended.stderr + ended.stdout
    assert "InvalidToken" not in ended.stderr, "it is told in words of ours"
