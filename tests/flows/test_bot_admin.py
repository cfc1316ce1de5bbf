"""The first owner claims the bot, looks at it, trains, promotes and rolls back; notices reach their people, once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot import claim
from huigan.operate import releases as operate_releases
from huigan.operate import runs as operate_runs
from storage import outbox, runs, users
from storage.db import Database
from storage.records import Release, Role, RunState
from tests.bot.running import TAG, World, serve, world
from tests.fakes.ollama import CHATML
from tests.fakes.telegram import Chat, Person


@pytest.fixture
def here(sqlite_db: Database, tmp_path: Path) -> Iterator[World]:
    with world(sqlite_db, tmp_path) as made:
        yield made
        assert made.refused() == []
        assert made.errors() == []


def now() -> datetime:
    return datetime.now(UTC)


def promoted_to_admin(here: World) -> tuple[Person, Chat]:
    """Another admin, who has a chat with the bot."""
    carol = here.telegram.user("Carol")
    chat = here.telegram.private(carol)
    here.says("/status", who=carol, chat=chat)
    here.said("只有管理员能用", chat)
    known = here.db.read(users.find, "telegram", str(carol.id))
    assert known is not None
    here.db.write(users.set_role, known.id, Role.ADMIN)
    return carol, chat


def test_an_owner_claims_looks_trains_promotes_and_rolls_back(here: World) -> None:
    code = here.db.write(claim.issue, now())
    assert code is not None
    here.start()
    here.says("/claim WRONG")
    here.said("认领码不对")
    here.says(f"/start {code.lower()}")
    here.said("你现在是所有者了")
    bob = here.telegram.user("Bob")
    chat = here.telegram.private(bob)
    here.says(f"/claim {code}", who=bob, chat=chat)
    here.said("已经有人认领了", chat)
    assert code not in here.logged()

    here.says("/status")
    assert "第 1 版（huigan:base-1）" in here.said("线上：").text
    here.says("/retrain")
    here.said("没有训练程序在运行")
    here.says("/retrain")
    here.said("已经有一次训练在排队了（第 1 次）")

    second = serve(here.db, "huigan:run1-2")
    here.ollama.add("huigan:run1-2")
    here.says("/releases")
    assert here.said("▶ 第 2 版").text.count("\n") == 1
    here.says("/promote 1")
    here.said("✅ 第 1 版已上线")
    here.says("/promote 1")
    here.said("第 1 版已经在线上了")
    carol, hers = promoted_to_admin(here)
    here.says("/promote 99", who=carol, chat=hers)
    here.said("没有第 99 版", hers)
    here.says("/promote one", who=carol, chat=hers)
    here.said("用法：/promote 编号", hers)
    here.says("/rollback")
    here.said(f"↩️ 已回到第 {second.id} 版")
    here.ollama.tags.pop("huigan:base-1")
    here.says("/promote 1", who=carol, chat=hers)
    here.said("线上版本没有变", hers)
    here.said("管理员回到了第", hers)
    acts = [row["act"] for row in here.rows("audit")]
    assert acts.count("owner.claim") == 1
    assert {"run.enqueue", "release.promote", "release.rollback"} <= set(acts)
    assert not any("由管理员上线" in text for text in here.chat.texts), "who did it was told at once"


def proposed(here: World, tag: str) -> Release:
    """What a trainer makes of the run that waits, where an admin is to decide."""
    run = here.db.write(runs.claim, "trainer", now())
    assert run is not None
    fields = {"quantisation": "Q4_K_M", "weights": "/weights", "template": CHATML, "system": "", "parameters": {}}
    made = here.db.write(operate_releases.propose, run.id, run.attempt, fields, here.ollama.add(tag).name, now())
    assert made is not None
    return made


def asked(here: World, words: str) -> tuple[str, str]:
    """The tag that Ollama was asked for, and the one that the stored answer names."""
    here.says(words)
    here.said(f"You said: {words}")
    [message] = here.rows("message", text=words)
    here.wait(lambda: here.rows("answer", message_id=message["id"]), about="what was shown as it grew is kept")
    return here.ollama.last("/api/chat").tag, here.rows("answer", message_id=message["id"])[0]["tag"]


def test_a_proposal_is_announced_promoted_answers_and_is_rolled_back_and_only_admins_may(here: World) -> None:
    here.start(admins=[here.alice.id])
    bob = here.telegram.user("Bob")
    chat = here.telegram.private(bob)
    commands = ("/status", "/retrain", "/releases", "/promote 2", "/rollback")

    here.says("/retrain")
    assert "huigan trainer" in here.said("第 1 次训练已排队，但现在没有训练程序在运行").text
    assert asked(here, "一") == (TAG, TAG)
    new = proposed(here, "huigan:run1-0123456789ab")
    here.said("第 1 次训练通过了评测，等你批准")
    here.says("/status")
    assert "第 1 次训练：等待批准" in here.said("huigan schedules 还没有检查过").text
    for command in commands:
        here.says(command, who=bob, chat=chat)
    here.wait(lambda: [text for text in chat.texts if "只有管理员能用" in text][4:], about="each is refused")
    assert asked(here, "二") == (TAG, TAG), "a proposal does not answer"

    here.says(f"/promote {new.id}")
    here.said(f"✅ 第 {new.id} 版已上线（{new.tag}）")
    assert asked(here, "三") == (new.tag, new.tag)
    here.says("/rollback")
    here.said("↩️ 已回到第 1 版")
    assert asked(here, "四") == (TAG, TAG)

    done = [(row["act"], row["user_id"]) for row in here.rows("audit") if row["user_id"]]
    assert done == [(act, here.me()) for act in ("run.enqueue", "release.promote", "release.rollback")]
    assert [(row["release_id"], row["by"]) for row in here.rows("deployment")][1:] == [
        (new.id, f"user {here.me()}"),
        (1, f"user {here.me()}"),
    ]


def test_notices_reach_their_admins_once_whatever_fails_and_none_is_tried_for_ever(here: World) -> None:
    here.start(admins=[here.alice.id, 4_000_000_000])  # the second never wrote to the bot
    here.says("/start")
    here.said("会保存什么")
    bob = here.telegram.user("Bob")
    chat = here.telegram.private(bob)
    here.says("/start", who=bob, chat=chat)
    here.said("会保存什么", chat)
    here.telegram.inject("sendMessage", status=502)
    queued = here.db.write(runs.enqueue, "default", {}, "test", now())
    assert queued is not None
    claimed = here.db.write(runs.claim, "w", now())
    assert claimed is not None
    here.db.write(operate_runs.fail, claimed.id, claimed.attempt, {"code": "worker_lost", "attempts": 3}, now())
    assert "失联了 3 次" in here.said("第 1 次训练失败").text
    assert here.db.read(runs.get, claimed.id).state is RunState.FAILED

    known = here.db.read(users.find, "telegram", str(bob.id))
    assert known is not None
    bob.blocks()
    here.db.write(outbox.put, "run_built", {"run": 7}, now(), user_id=known.id)
    here.db.write(outbox.put, "a_code_of_tomorrow", {}, now() - timedelta(days=9))
    here.wait(lambda: all(row["sent_at"] for row in here.rows("outbox")), about="everything is sent or given up")
    here.said("a_code_of_tomorrow")
    assert sum("训练失败" in text for text in here.chat.texts) == 1
    assert not any("数据集已生成" in text for text in chat.texts)
    for call in here.telegram.refusals:
        assert "blocked by the user" in call.description
        call.injected = True  # it was this test that blocked
