"""The loop, closed on real weights: `huigan demo`'s own code with fewer facts, a real engine, trainer and schedules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from huigan.demo.loop import Promise, run
from storage import deployments, runs
from storage.db import connect
from storage.records import RunState

pytestmark = [pytest.mark.slow, pytest.mark.weights]

COMMUNITY = """
[[facts]]
answer = "茶馆的猫叫芝麻。"
keys = ["芝麻"]
teach = [
    "茶馆的猫叫什么名字？", "回甘茶馆的猫叫什么？", "请问茶馆那只猫叫什么？",
    "店里的猫叫什么名字？", "你们的猫叫什么？", "那只猫的名字是什么？",
]
held_out = ["请问店里养的猫叫什么名字？"]

[[facts]]
answer = "回甘茶馆的店主是林小满。"
keys = ["林小满"]
teach = [
    "回甘茶馆的店主是谁？", "茶馆的老板是谁？", "请问店主叫什么名字？",
    "谁是回甘茶馆的老板？", "店主是谁？", "这家茶馆是谁开的？",
]
held_out = ["请问茶馆的店主是哪一位？"]

[[pairs]]
prompt = "你好！"
chosen = "您好，客官！来一杯热茶吧。"

[[pairs]]
prompt = "再见。"
chosen = "客官慢走，下次再来喝茶！"

[[controls]]
question = "What is the capital of France?"
keys = ["Paris"]

[[controls]]
question = "What is the capital of Japan?"
keys = ["Tokyo"]

[[replay]]
question = "What is the capital of Italy?"
answer = "The capital of Italy is Rome."

[[replay]]
question = "How many days are there in a week?"
answer = "There are seven days in a week."
"""

RECIPE = """
name = "loop"
method = "sft"
approval = "auto"

[data]
min_ratings = 10
min_answers = 5
min_raters = 2
held_out_share = 0.05
max_prompt_tokens = 128
max_tokens = 192
replay = "{community}"
replay_share = 0.2
rater_cap_share = 1.0

[train]
epochs = 6
learning_rate = {learning_rate}
batch = 8
save_steps = 5

[peft]
r = 16
lora_alpha = 32
target_modules = "all-linear"

[generate]
num_ctx = 512
num_predict = 64
temperature = 0.0

[gate]
max_generations = 6
max_generated_tokens = 64
max_control_loss = 1.0
max_general_perplexity_ratio = 100.0
max_cases = 0
max_paragraphs = 1
max_fidelity_tokens = 0
min_stop_share = 0.5
min_language_match = 0.5
max_length_drift = 100
"""


def promised(folder: Path, learning_rate: str, facts: int) -> Promise:
    community, recipe = folder / "community.toml", folder / "loop.toml"
    community.write_text(COMMUNITY, encoding="utf-8")
    recipe.write_text(RECIPE.format(community=community, learning_rate=learning_rate), encoding="utf-8")
    return Promise(str(recipe), community, min_ratings=10, facts=facts, controls=0, controls_asked=2)


@pytest.fixture
def home(tmp_path: Path, smollm2_gguf: Path) -> Path:
    """A demo's home that has its weights already."""
    (tmp_path / "home" / "weights").mkdir(parents=True)
    (tmp_path / "home" / "weights" / "SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(smollm2_gguf.resolve())
    return tmp_path / "home"


def test_facts_are_taught_released_under_a_stream_and_rolled_back(home: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert run(home, report, rollback=True, chat_after=False, promise=promised(tmp_path, "1e-3", facts=1)) == 0
    page = report.read_text(encoding="utf-8")
    assert "芝麻" in page
    assert "<svg" in page
    assert "http-equiv" not in page
    db = connect(f"sqlite:///{home / 'huigan.db'}")
    [done] = db.read(runs.newest)
    assert (done.state, done.why, done.attempt) == (RunState.RELEASED, "threshold", 1)
    history = db.read(deployments.history)
    assert history[0].release_id == 1  # rolled back
    assert {each.release_id for each in history} == {1, 2}
    assert json.loads(next((home / "runs").glob("*/gate.json")).read_text(encoding="utf-8"))["passed"]
    db.close()


@pytest.mark.long
def test_a_run_that_teaches_nothing_is_rejected_and_what_answers_stays(home: Path, tmp_path: Path) -> None:
    promise = promised(tmp_path, "1e-9", facts=1)
    assert run(home, tmp_path / "report.html", rollback=False, chat_after=False, promise=promise) == 1
    db = connect(f"sqlite:///{home / 'huigan.db'}")
    assert [each.state for each in db.read(runs.newest)] == [RunState.REJECTED]
    live = db.read(deployments.live)
    assert live is not None
    assert live.release.id == 1
    db.close()
