"""Telegram calls the bot: only with the secret, and told that an update is there only once it is stored. A wrong token
is told with its fix."""

from __future__ import annotations

import contextlib
import json
import operator
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bot.main import MOST_HEADER_BYTES, MOST_UPDATE_BYTES
from bot.secret import Secret
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


def test_whatever_is_posted_to_the_webhook_harms_nothing(here: World) -> None:
    listen = f"127.0.0.1:{free_port()}"
    url, secret = f"http://{listen}/telegram", {"X-Telegram-Bot-Api-Secret-Token": SECRET}
    here.start(webhook={"url": url, "secret": SECRET, "listen": listen})
    json_type = {"Content-Type": "application/json"}
    for guess in ("", SECRET[:-1], SECRET + "x", SECRET.upper(), "é" * len(SECRET)):
        header = {"X-Telegram-Bot-Api-Secret-Token": guess.encode()}
        assert httpx.post(url, content=b"{}", headers=json_type | header).status_code == 403, guess
    assert httpx.post(url, content=b"{}", headers=secret).status_code == 403, "what is no JSON by its own word"
    absurd = (
        b"", b"[", b"null", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"update_id": 1e999}', b'{"update_id": "x"}',
        b'{"update_id": 5, "message": []}', b'{"update_id": 6, "message": {"text": 3}}', b'{"update_id": null}',
        b'{"update_id": 99999999999999999999999}', b'{"update_id": 7, "callback_query": {"id": {}}}',
    )  # fmt: skip
    for content in absurd:
        assert httpx.post(url, content=content, headers=json_type | secret).status_code < 600, content[:40]
    for content, header in ((b" " * (MOST_UPDATE_BYTES + 1), {}), (b"{}", {"X-Long": "x" * MOST_HEADER_BYTES})):
        with contextlib.suppress(httpx.TransportError):  # the connection is closed on it
            answer = httpx.post(url, content=content, headers=json_type | secret | header)
            assert answer.status_code in {400, 413, 431}
    assert here.rows("message") == []
    here.says("还在吗")
    here.said("You said: 还在吗")
    assert here.stop() == 0


@pytest.mark.parametrize("other", ["", "a-secre", "a-secret-", "A-SECRET", "é", "\ud800", None, 3])
def test_a_secret_equals_itself_alone_from_either_side(other: object) -> None:
    secret = Secret("a-secret")
    for one, two in ((secret, other), (other, secret)):
        assert not operator.eq(one, two)
        assert operator.ne(one, two)
    for one, two in ((secret, "a-secret"), ("a-secret", secret)):
        assert operator.eq(one, two)
        assert not operator.ne(one, two)
    assert len({secret, "a-secret"}) == 1


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
