"""What Ollama lost is put back by the machine that has the file, over HTTP, and by no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from huigan.operate import releases as operate_releases
from huigan.operate import rollbacks
from huigan.operate.releases import Promoted
from huigan.serving.client import Ollama
from huigan.serving.errors import UnknownTag
from storage import artefacts, audit, deployments, releases
from storage.db import Database, Session
from tests.fakes.ollama import CHATML, FakeOllama
from tests.trainer.community import AT
from trainer import keeper

CONTENT = b"GGUF of the second release"


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("huigan:base-1")
        yield running


def released(session: Session, file: Path, sha256: str) -> None:
    """A base that Ollama had from elsewhere, and a release whose file lies at `file` on the trainer's machine."""
    shape = {
        "quantisation": "Q4_K_M",
        "weights": "/w",
        "template": CHATML,
        "system": "s",
        "parameters": {"stop": ["x"]},
    }
    for tag, path, digest in (("huigan:base-1", None, None), ("huigan:run1-2", str(file), sha256)):
        kept = artefacts.add(session, **shape, path=path, sha256=digest, created_at=AT)
        deployments.deploy(session, releases.add(session, tag, kept.id, AT).id, "test", "test", AT)


@pytest.fixture
def file(db: Database, tmp_path: Path) -> Path:
    made = tmp_path / "candidate.gguf"
    made.write_bytes(CONTENT)
    db.write(released, made, hashlib.sha256(CONTENT).hexdigest())
    return made


def test_a_lost_tag_is_put_back_and_no_path_of_this_machine_reaches_ollama(
    db: Database, fake: FakeOllama, file: Path
) -> None:
    client = Ollama(fake.host, timeout_seconds=10)
    assert keeper.put_back(db, client, AT) == ["huigan:run1-2"]
    assert keeper.put_back(db, client, AT) == [], "it is there now"
    made = fake.tags["huigan:run1-2"]
    assert (made.template, made.system, dict(made.parameters)) == (CHATML, "s", {"stop": ["x"]})
    assert str(file.parent) not in json.dumps([each.json for each in fake.exchanges])
    assert [each.act for each in db.read(audit.newest)] == ["tag.put_back"]


def test_the_bots_machine_has_no_file_and_says_so_until_the_trainers_has_put_it_back(
    db: Database, fake: FakeOllama, file: Path
) -> None:
    """The base answers, and an admin wants the second release, which Ollama has lost."""
    client = Ollama(fake.host, timeout_seconds=10)
    assert keeper.put_back(db, client, AT)
    how = {"by_user_id": None, "at": AT}
    assert isinstance(rollbacks.rollback(db, client, **how), Promoted)  # type: ignore[arg-type]
    fake.tags.pop("huigan:run1-2")
    hidden = file.rename(file.with_name("elsewhere"))
    with pytest.raises(UnknownTag):
        operate_releases.promote(db, client, 2, **how)  # type: ignore[arg-type]
    hidden.rename(file)
    assert isinstance(operate_releases.promote(db, client, 2, **how), Promoted)  # type: ignore[arg-type]


def test_another_file_under_the_same_path_is_never_served_in_its_place(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    file = tmp_path / "candidate.gguf"
    file.write_bytes(b"GGUF of somebody else")
    sqlite_db.write(released, file, hashlib.sha256(CONTENT).hexdigest())
    client = Ollama(fake.host, timeout_seconds=10)
    assert keeper.put_back(sqlite_db, client, AT) == []
    fake.add("huigan:run1-2")
    how = {"by_user_id": None, "at": AT}
    assert isinstance(rollbacks.rollback(sqlite_db, client, **how), Promoted)  # type: ignore[arg-type]
    fake.tags.pop("huigan:run1-2")
    with pytest.raises(UnknownTag):
        operate_releases.promote(sqlite_db, client, 2, **how)  # type: ignore[arg-type]
    assert not [each for each in fake.exchanges if each.path.startswith("/api/blobs")]


def test_an_ollama_that_is_away_is_asked_again_at_the_next_look(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    file = tmp_path / "candidate.gguf"
    file.write_bytes(CONTENT)
    sqlite_db.write(released, file, hashlib.sha256(CONTENT).hexdigest())
    client = Ollama(fake.host, timeout_seconds=10)
    fake.stop()
    assert keeper.put_back(sqlite_db, client, AT) == []
    fake.start()
    assert keeper.put_back(sqlite_db, client, AT) == ["huigan:run1-2"]
