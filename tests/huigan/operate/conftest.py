"""A fake Ollama, a base that answers, and runs that are as far as a test needs them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from huigan.operate import bases, releases
from huigan.serving.client import Ollama
from storage import runs
from storage.db import Database
from storage.recipe import Recipe
from storage.records import Release, Run
from tests.fakes.ollama import CHATML, FakeOllama

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RECIPE = Recipe(name="test")
ARTEFACT: dict[str, Any] = {
    "path": None,
    "sha256": "0" * 64,
    "quantisation": "Q4_K_M",
    "size_bytes": 8,
    "weights": "/weights",
    "template": CHATML,
    "system": "Be kind.",
    "parameters": {"stop": ["<|im_end|>"]},
    "scorecard": {},
    "verdict": {"passed": True},
}


def minutes(count: float) -> datetime:
    return AT + timedelta(minutes=count)


@pytest.fixture(scope="session")
def ollama_running() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        yield running


@pytest.fixture
def fake(ollama_running: FakeOllama) -> FakeOllama:
    ollama_running.reset()
    return ollama_running


@pytest.fixture
def client(fake: FakeOllama) -> Ollama:
    return Ollama(fake.host, timeout_seconds=10)


@pytest.fixture
def base(db: Database, fake: FakeOllama, client: Ollama) -> Release:
    """Release 1, which answers."""
    fake.add("llama3:8b", system="You are kind.")
    registered = bases.register(db, client, "llama3:8b", "/weights", by_user_id=None, at=AT)
    assert isinstance(registered, bases.Registered)
    return registered.release


class Desk:
    """Runs made in one line each."""

    def __init__(self, db: Database, fake: FakeOllama) -> None:
        self.db, self.fake, self.count = db, fake, 0

    def running(self, lane: str = "default") -> Run:
        self.db.write(runs.enqueue, lane, RECIPE.to_dict(), "test", AT)
        claimed = self.db.write(runs.claim, "worker", AT)
        assert claimed is not None
        return claimed

    def proposed(self, lane: str = "default") -> Release:
        run = self.running(lane)
        made = self.db.write(releases.propose, run.id, run.attempt, ARTEFACT, self.tag(run), AT)
        assert made is not None
        return made

    def published(self) -> Release:
        run = self.running()
        done = self.db.write(releases.publish, run.id, run.attempt, ARTEFACT, self.tag(run), AT)
        assert done is not None
        return done.release

    def tag(self, run: Run) -> str:
        return self.fake.add(f"huigan:run{run.id}-0123456789ab").name


@pytest.fixture
def desk(db: Database, fake: FakeOllama, base: Release) -> Desk:
    return Desk(db, fake)
