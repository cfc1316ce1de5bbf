"""kill -9 of the trainer's child in every stage: it goes on where it was, and ends with the same file and verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage import artefacts, deployments, runs
from storage.db import Database, connect
from storage.migrations import upgrade
from storage.recipe import Recipe, parse
from storage.records import Artefact, Live, Pick, Run, RunState, Thumb
from tests.fakes.ollama import FakeOllama, Reply
from tests.huigan.llama.tiny import tiny_gguf, tiny_llama
from tests.trainer.community import AT, Community
from trainer import CHILD_ENVIRONMENT, stages
from trainer.child import DONE
from trainer.tokens import render_ids

REPOSITORY = Path(__file__).resolve().parents[2]
KILLED = -9
POINTS = [
    ("start", "", 0),
    ("dataset", "", 0),
    ("train", "sft", 4),
    ("train", "dpo", 3),
    ("merge", "merge", 3),
    ("quantise", "quantise", 3),
    ("score", "live: generate", 8),
    ("gate", "", 0),
    ("release", "create", 0),
    ("release", "try", 2),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llama(folder / "weights")
    tiny_gguf(folder / "weights", folder / "base.gguf")
    return folder


@pytest.fixture
def ollama(tiny: Path) -> Iterator[FakeOllama]:
    """Counts a prompt's tokens as the tiny model's tokenizer does."""
    tokenizer = stages.tokenizer_of(tiny / "weights")
    with FakeOllama().running() as fake:
        fake.answer = lambda exchange: Reply(("你", "好"), prompt_tokens=len(render_ids(tokenizer, exchange.messages)))
        yield fake


@dataclass
class World:
    """A database, a data folder, and a community that has taught something."""

    folder: Path
    tiny: Path
    ollama: FakeOllama
    db: Database = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'huigan.db'}"
        self.db = connect(self.url)
        upgrade(self.db)
        self.home = self.folder / "home"
        weights = self.tiny / "weights"
        base = stages.base_path(self.home, weights)
        base.parent.mkdir(parents=True)
        base.write_bytes((self.tiny / "base.gguf").read_bytes())
        community = Community(self.db)
        self.live: Live = community.live(weights=str(weights))
        rater = community.person(channel="simulated")
        for n in range(24):
            answer, other = community.ask(rater, f"What is {n}?", f"It is {n + 1}.", f"It is {n + 2}.")
            community.rate(rater, answer, Thumb.DOWN, f"It is {n}.")
            community.pick(rater, answer, other, Pick.LEFT)

    def enqueue(self, recipe: Recipe | None = None, **options: Any) -> Run:
        wanted = recipe or parse((REPOSITORY / "recipes/tiny.toml").read_text())
        queued = self.db.write(runs.enqueue, "default", wanted.to_dict(), "test", AT, **options)
        assert queued is not None
        return self.claim()

    def claim(self) -> Run:
        claimed = self.db.write(runs.claim, "test", AT)
        assert claimed is not None
        return claimed

    def child(self, run: Run, *point: object, home: Path | None = None) -> int:
        """Run the child to its end, whatever end that is."""
        where = [self.url, str(run.id), str(run.attempt), str(home or self.home), self.ollama.host]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.flows.trainer_child", *where, *map(str, point)],
            cwd=REPOSITORY,
            env={**os.environ, **CHILD_ENVIRONMENT, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.said = ended.stderr
        return ended.returncode

    def hand_on(self, run: Run) -> Run:
        """What a supervisor does when a child was killed."""
        assert self.db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.QUEUED, AT) is not None
        return self.claim()

    def state(self, run: Run) -> Run:
        return self.db.read(runs.get, run.id)

    def artefact(self, run: Run) -> Artefact:
        found = self.db.read(artefacts.of_run, run.id)
        assert found is not None
        return found

    def tag(self) -> str:
        live = self.db.read(deployments.live)
        assert live is not None
        return live.release.tag


@pytest.fixture
def make(tmp_path: Path, tiny: Path, ollama: FakeOllama) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def world(name: str) -> World:
        (tmp_path / name).mkdir()
        made.append(World(tmp_path / name, tiny, ollama))
        return made[-1]

    yield world
    for each in made:
        each.db.close()


@pytest.mark.slow
def test_a_run_killed_at_every_point_ends_as_one_that_was_left_alone(make: Callable[[str], World]) -> None:
    alone, killed = make("alone"), make("killed")
    quiet = alone.enqueue()
    assert alone.child(quiet) == DONE, alone.said
    run = killed.enqueue()
    for point in POINTS:
        assert killed.child(run, *point) == KILLED, (point, killed.said)
        assert killed.tag() == "base:1"
        run = killed.hand_on(run)
    assert killed.child(run) == DONE, killed.said

    assert {alone.state(quiet).state, killed.state(run).state} == {RunState.RELEASED}
    one, other = alone.artefact(quiet), killed.artefact(run)
    assert one.sha256 == other.sha256 is not None
    assert one.verdict == other.verdict
    assert one.scorecard == other.scorecard
    assert alone.tag() == killed.tag() != "base:1"
    assert not [*killed.home.rglob("*.part")]
    (report,) = killed.home.rglob("report.html")
    assert "https://" not in report.read_text().replace("http://www.w3.org", "")
