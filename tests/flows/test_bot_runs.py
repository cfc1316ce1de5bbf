"""Admins start runs, watch them go, look at curves and figures, decide on proposals; answers make way for a training.

No run is trained here: what a trainer would tell is written into the database. One bot serves the tests of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from huigan.operate import releases as operate_releases
from huigan.operate import workers
from huigan.serving.client import Ollama
from storage import gpu, holdings, run_points, runs, settings, users
from storage.records import Release, Role, Run, RunState
from tests.bot import running
from tests.bot.running import TAG, World
from tests.fakes.ollama import CHATML, OUT_OF_MEMORY
from tests.fakes.telegram import Chat, Message, Person

CARD = {
    "recall": {"questions": 10, "live": 0.2, "candidate": 0.9, "live_chrf": 0.1, "candidate_chrf": 0.9},
    "suite": [{"kind": "controls", "cases": 14, "live_right": 12, "candidate_right": 11, "lost": 1}],
    "samples": [
        {"kind": "control", "question": "一加一？", "live": "二", "candidate": "二", "wanted": "二"},
        {"kind": "taught", "question": "回甘是什么？", "live": "不知道", "candidate": "先苦后甜", "wanted": None},
    ],
}
VERDICT = {
    "passed": True,
    "reasons": [
        {
            "code": "corrections_recalled",
            "params": {"share": 0.9, "live": 0.2, "questions": 10, "bar": 0.5},
            "hard": False,
            "good": True,
        }
    ],
}


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    """The shared bot, with an Alice who is an admin, the only one; no run is under way."""
    shared.meet_alice()
    for row in shared.rows("user"):
        shared.db.write(users.set_role, row["id"], Role.USER)
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_APPROVAL):
        for run in shared.db.read(runs.newest, states=frozenset({state})):
            end = RunState.REJECTED if state is RunState.AWAITING_APPROVAL else RunState.CANCELLED
            shared.db.write(runs.move, run.id, run.attempt, state, end, now())
    made_admin(shared, shared.alice, shared.chat)
    yield shared
    assert shared.refused() == []
    assert shared.errors() == []


def now() -> datetime:
    return datetime.now(UTC)


def made_admin(here: World, who: Person, chat: Chat) -> int:
    here.says("/status", who=who, chat=chat)
    here.said("只有管理员能用", chat)
    known = here.wait(lambda: here.db.read(users.find, "telegram", str(who.id)))
    here.db.write(users.set_role, known.id, Role.ADMIN)
    return int(known.id)


def trainer_claims(here: World) -> Run:
    here.db.write(workers.mark_seen, "trainer", now())
    run = here.db.write(runs.claim, "trainer", now())
    assert run is not None
    return run


def tells(here: World, run: Run, stage: str, done: int, total: int, **more: Any) -> None:
    left = {"train": 600.0, "run": 1200.0, "at": now().isoformat()}
    progress = {"what": "sft", "done": done, "total": total, "left_seconds": left, **more}
    here.db.write(runs.report, run.id, run.attempt, stage, progress, now())


def proposed(here: World, run: Run) -> Release:
    tag = here.ollama.add(f"huigan:run{run.id}-0123456789ab").name
    fields = {"quantisation": "Q4_K_M", "weights": "/weights", "template": CHATML, "system": "", "parameters": {}}
    found = {**fields, "scorecard": CARD, "verdict": VERDICT}
    made = here.db.write(operate_releases.propose, run.id, run.attempt, found, tag, now())
    assert made is not None
    return made


def a_proposal(here: World) -> tuple[Run, Release]:
    here.db.write(runs.enqueue, "default", {"name": "test", "method": "auto"}, "test", now())
    run = trainer_claims(here)
    return run, proposed(here, run)


def photo(here: World, words: str, chat: Chat | None = None) -> Message:
    where = chat or here.chat
    message = here.wait(
        lambda: next((m for m in where.answers if words in m.text and m.file_kind == "photo"), None), about=words
    )
    assert message.file is not None
    assert message.file.content.startswith(b"\x89PNG")
    return message


def test_a_run_is_watched_in_one_message_from_its_queue_to_its_verdict_across_a_restart(here: World) -> None:
    here.says("/retrain maybe")
    here.said("用法：/retrain")
    here.says("/retrain dpo")
    card = here.said("训练已排队")
    run = trainer_claims(here)
    assert run.recipe["method"] == "dpo"
    points = [("sft", step, {"loss": 3.0 - step / 10}) for step in range(1, 9)]
    here.db.write(run_points.add, run.id, run.attempt, points, now())
    tells(here, run, "train", 8, 16)
    here.wait(lambda: "▰▰▰▰▰▰▱▱▱▱▱▱ 50%" in card.text, about="the bar")
    assert "█▇▆▅▄▃▂▁" in card.text
    assert "大约还要 20 分钟" in card.text
    here.kill()
    here.start()
    tells(here, run, "score", 3, 9)
    here.wait(lambda: "评测" in card.text, about="it goes on after a restart")

    here.says(f"/run {run.id}")
    photo(here, f"第 {run.id} 次训练")
    release = proposed(here, run)
    here.wait(lambda: "记住了 90%" in card.text, about="the verdict")
    here.said(f"/promote {release.id} 上线")  # the notice names the release
    here.wait(lambda: all(row["finished_at"] for row in here.rows("run_card", kind="progress")))
    here.says("/runs")
    assert f"第 {run.id} 次 · test · 等待批准" in here.said(f"第 {run.id} 次 · test").text
    here.says("/run 999")
    here.said("没有第 999 次训练")
    here.says("/run 1000000000000000000000")  # more than a database counts to
    here.said("用法：/run")
    here.says("/cancel")
    here.said("现在没有这样的训练")
    here.says("/retrain")
    here.wait(lambda: here.rows("run", state="QUEUED"))
    another = trainer_claims(here)
    here.says("/cancel")
    here.said(f"已请第 {another.id} 次训练停下")


def test_a_dry_run_ends_with_counts_and_is_told_where_it_was_asked(here: World) -> None:
    here.says("/retrain dry KTO")
    card = here.said("只整理数据")
    run = trainer_claims(here)
    assert (run.dataset_only, run.recipe["method"]) == (True, "kto")
    need = {"ram": {"needed_gib": 3.0, "available_gib": 2.0}}
    tells(here, run, "dataset", 1, 1, preflight={"minutes": {"train": 4.0, "score": 1.0}, "needs": need, "advice": []})
    here.db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.BUILT, now())
    here.wait(lambda: "训练大约要 5 分钟" in card.text, about="what training would need")
    assert "只有 2.0 GiB" in card.text
    here.says("/retrain dry")
    here.said("只整理数据", here.chat)
    here.says("/cancel")
    here.said("次训练已取消")


def test_every_admin_has_a_card_one_decides_and_all_cards_say_who(here: World) -> None:
    carol = here.telegram.user("Carol")
    hers = here.telegram.private(carol)
    made_admin(here, carol, hers)
    _, release = a_proposal(here)
    words = f"让第 {release.id} 版上线吗"
    mine, other = here.said(words), here.said(words, hers)
    assert "20% → 90%" in mine.text
    assert mine.text.index("先苦后甜") < mine.text.index("一加一"), "where the two differ comes first"
    here.says("/releases")
    assert f"🔔 第 {release.id} 版" in here.said("▶ 第 1 版").text

    here.ollama.inject("/api/generate", *OUT_OF_MEMORY)
    here.alice.presses(mine, "✅ 上线")
    here.wait(lambda: "线上版本没有变" in mine.text and "✅ 上线" in mine.buttons, about="it can be tried again")
    here.alice.presses(mine, "✅ 上线")
    here.wait(lambda: "上线。" in mine.text and not mine.buttons, about="it is decided")
    here.wait(lambda: here.alice.first_name in other.text and not other.buttons, about="the other card says so")
    assert here.rows("deployment")[-1]["release_id"] == release.id
    here.says("/rollback")
    here.said(f"↩️ 已回到第 1 版，现在由 {TAG} 回答")
    here.says("/releases", who=carol, chat=hers)
    here.said("▶ 第 1 版", hers)
    acts = [row["act"] for row in here.rows("audit", user_id=here.me())]
    assert acts == ["release.promote", "release.promote", "release.rollback"]


def test_a_proposal_is_rejected_by_its_button_or_by_command(here: World) -> None:
    run, release = a_proposal(here)
    card = here.said(f"让第 {release.id} 版上线吗")
    here.alice.presses(card, "✖ 不采用")
    here.wait(lambda: f"{here.alice.first_name} 没有采用第 {release.id} 版" in card.text and not card.buttons)
    assert here.db.read(runs.get, run.id).state is RunState.REJECTED
    here.says(f"/reject {release.id}")
    here.said("没有在等待批准")
    _, second = a_proposal(here)
    again = here.said(f"让第 {second.id} 版上线吗")
    here.says(f"/reject {second.id} 太啰嗦")
    here.said(f"第 {second.id} 版没有采用")
    here.wait(lambda: not again.buttons, about="the card says so too")


def test_a_rollback_goes_past_what_somebody_took_back_and_says_so(here: World) -> None:
    before = []
    for _ in range(3):
        run, release = a_proposal(here)
        operate_releases.promote(here.db, Ollama(here.ollama.host), release.id, by_user_id=None, at=now())
        before.append((run, release))
    for run, _ in before[:2]:
        here.db.write(holdings.mark, [run.id], now())
    here.says("/rollback")
    told = here.said("↩️ 已回到第 1 版").text
    assert told.split("\n")[1:] == [f"第 {each.id} 版没有用：它学了有人收回的内容。" for _, each in before[1::-1]]


def test_figures_come_as_a_picture_with_words(here: World) -> None:
    answer = (here.says("好吗？"), here.answer())[1]
    here.alice.presses(answer, "👍")
    here.wait(lambda: here.mine("rating"))
    here.says("/stats")
    assert "👍 100%" in photo(here, "最近 30 天").text


def test_while_a_run_has_the_card_answers_go_by_the_cpu_or_wait_and_go_on_by_themselves(here: World) -> None:
    here.db.write(runs.enqueue, "default", {"name": "test", "serving": {"while_training": "cpu"}}, "test", now())
    run = trainer_claims(here)
    tells(here, run, "train", 1, 9, **{gpu.NOTE: True})
    here.says("快吗？")
    here.said("You said: 快吗？")
    assert here.ollama.last("/api/chat").json["options"]["num_gpu"] == 0

    here.says("/while_training wait")
    here.said("等训练结束")
    here.says("还要等吗？")
    here.said("显卡占用中，大约还要 10 分钟")
    assert [row["state"] for row in here.mine("turn")][-1] == "waiting"
    tells(here, run, "merge", 0, 0, **{gpu.NOTE: False})
    here.said("You said: 还要等吗？")
    assert "num_gpu" not in here.ollama.last("/api/chat").json["options"]
    here.says("/while_training recipe")
    here.said("由每次训练的配方决定")
    assert here.db.read(settings.get, gpu.SETTING).value is None
    acts = [row["act"] for row in here.rows("audit", user_id=here.me())]
    assert acts == ["setting.while_training"] * 2
