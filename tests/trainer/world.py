"""A data folder with a database, a tiny base and a community that has taught something: what a run starts from."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from storage import artefacts, deployments, runs
from storage.db import Database, connect
from storage.migrations import upgrade
from storage.recipe import Recipe, parse
from storage.records import Artefact, Live, Pick, Run, RunState, Thumb
from tests.fakes.ollama import FakeOllama, Reply
from tests.huigan.llama.tiny import tiny_gguf, tiny_llama
from tests.trainer.community import AT, Community
from trainer import CHILD_ENVIRONMENT, stages
from trainer.tokens import render_ids

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class Away:
    """Refuses the next `times` transactions of a database, as one does that is away for a while."""

    def __init__(self, db: Database, times: int = 0) -> None:
        self.times = times
        event.listen(db.engine, "begin", self.refuse, insert=True)

    def refuse(self, _connection: Connection) -> None:
        if self.times > 0:
            self.times -= 1
            raise OperationalError("BEGIN", {}, sqlite3.OperationalError("database is locked"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size, mounted there. Skips the test where nothing may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        # Lazily: what failed to write may still hold its file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def tiny_base(folder: Path) -> Path:
    """`weights/`, the Hugging Face folder, and `base.gguf`, the same in 16 bits."""
    tiny_llama(folder / "weights")
    tiny_gguf(folder / "weights", folder / "base.gguf")
    return folder


@contextmanager
def counting_ollama(tiny: Path) -> Iterator[FakeOllama]:
    """Counts a prompt's tokens as the tiny model's tokenizer does."""
    tokenizer = stages.tokenizer_of(tiny / "weights")
    with FakeOllama().running() as fake:
        fake.answer = lambda exchange: Reply(("你", "好"), prompt_tokens=len(render_ids(tokenizer, exchange.messages)))
        yield fake


def tiny_recipe(**changes: Any) -> Recipe:
    """recipes/tiny.toml, with tables changed key by key."""
    raw = parse((REPOSITORY / "recipes/tiny.toml").read_text()).to_dict()
    for name, value in changes.items():
        raw[name] = {**raw[name], **value} if isinstance(value, Mapping) else value
    return Recipe.from_dict(raw)


@dataclass
class World:
    """A database, a data folder, and a community that has taught something."""

    folder: Path
    tiny: Path
    ollama: FakeOllama
    taught: int = 24
    from_gguf: bool = False  # the base's weights are a GGUF file, of which a 16-bit one is yet to be made
    db: Database = field(init=False)
    live: Live = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'huigan.db'}"
        self.home = self.folder / "home"
        is_new = not self.home.exists()
        self.home.mkdir(parents=True, exist_ok=True)
        self.db = connect(self.url)
        upgrade(self.db)
        if is_new:
            self.begin()
        live = self.db.read(deployments.live)
        assert live is not None
        self.live = live

    def begin(self) -> None:
        weights = self.tiny / ("base.gguf" if self.from_gguf else "weights")
        if not self.from_gguf:
            base = stages.base_path(self.home, weights)
            base.parent.mkdir(parents=True)
            base.write_bytes((self.tiny / "base.gguf").read_bytes())
        community = Community(self.db)
        community.live(weights=str(weights))
        rater = community.person(channel="simulated")
        for n in range(self.taught):
            answer, other = community.ask(rater, f"What is {n}?", f"It is {n + 1}.", f"It is {n + 2}.")
            community.rate(rater, answer, Thumb.DOWN, f"It is {n}.")
            community.pick(rater, answer, other, Pick.LEFT)

    def enqueue(self, recipe: Recipe | None = None, **options: Any) -> Run:
        self.queue(recipe, **options)
        return self.claim()

    def queue(self, recipe: Recipe | None = None, **options: Any) -> Run:
        wanted = (recipe or tiny_recipe()).to_dict()
        queued = self.db.write(runs.enqueue, "default", wanted, "test", AT, **options)
        assert queued is not None
        return queued

    def claim(self) -> Run:
        claimed = self.db.write(runs.claim, "test", AT)
        assert claimed is not None
        return claimed

    def child(self, run: Run, *point: object, home: Path | None = None) -> int:
        """Run the child to its end, whatever end that is; it dies at the point, if one is given."""
        where = [self.url, str(run.id), str(run.attempt), str(home or self.home), self.ollama.host]
        act = ["die", *map(str, point)] if point else []
        ended = subprocess.run(
            [sys.executable, "-m", "tests.flows.trainer_child", *where, *act],
            cwd=REPOSITORY,
            env={**os.environ, **CHILD_ENVIRONMENT, **ENVIRONMENT},
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
