"""`base add`: what is served becomes release 1, once, under a tag that nobody moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from huigan.operate import bases
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import Refused, ServingError, UnknownTag
from storage import audit, deployments, releases
from storage.db import Database
from tests.fakes.ollama import CHATML, DISK_FULL_LINE, EOF, OUT_OF_MEMORY, FakeOllama
from tests.huigan.operate.conftest import AT


def add(db: Database, client: Ollama, source: str | Path, **how: object) -> bases.Registered | Refusal:
    return bases.register(db, client, source, "/weights", by_user_id=None, at=AT, **how)  # type: ignore[arg-type]


def test_a_tag_becomes_release_one_with_what_it_was_served_with(db: Database, fake: FakeOllama, client: Ollama) -> None:
    fake.add("llama3:8b", system="You are kind.", parameters={"stop": ["<|im_end|>"], "num_ctx": 2048})
    registered = add(db, client, "llama3:8b")
    assert isinstance(registered, bases.Registered)
    live = db.read(deployments.live)
    assert live is not None
    assert (live.release.id, live.release, live.artefact.weights) == (1, registered.release, "/weights")
    assert (live.artefact.template, live.artefact.system) == (CHATML, "You are kind.")
    assert live.artefact.parameters == {"stop": ["<|im_end|>"], "num_ctx": 2048}
    assert live.release.tag in fake.tags
    assert live.release.tag in fake.loaded
    assert [entry.act for entry in db.read(audit.newest)] == ["base.add"]


def test_the_users_own_tag_may_be_moved_without_moving_the_release(
    db: Database, fake: FakeOllama, client: Ollama
) -> None:
    fake.add("llama3:8b")
    registered = add(db, client, "llama3:8b")
    assert isinstance(registered, bases.Registered)
    before = fake.tags[registered.release.tag]
    fake.add("other:1")
    client.copy("other:1", "llama3:8b")
    assert fake.tags[registered.release.tag] == before


def test_a_file_is_tried_out_and_kept_under_a_tag_of_its_own(
    db: Database, fake: FakeOllama, client: Ollama, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    registered = add(db, client, file)
    assert isinstance(registered, bases.Registered)
    live = db.read(deployments.live)
    assert live is not None
    assert (live.artefact.path, live.artefact.size_bytes) == (str(file), 13)
    assert live.artefact.system == "You are a helpful assistant."  # never left to Ollama
    assert sorted(fake.tags) == sorted({registered.release.tag, "huigan:live"})
    assert fake.last("/api/chat").messages[0] == {"role": "system", "content": "You are a helpful assistant."}


def test_registering_twice_changes_nothing(db: Database, fake: FakeOllama, client: Ollama, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    first, second = add(db, client, file), add(db, client, file)
    assert isinstance(first, bases.Registered)
    assert second == bases.Registered(first.release, is_new=False)
    assert len(db.read(deployments.history)) == 1


def test_the_same_file_with_another_system_text_is_another_release(
    db: Database, fake: FakeOllama, client: Ollama
) -> None:
    fake.add("llama3:8b")
    add(db, client, "llama3:8b")
    add(db, client, "llama3:8b", serving=bases.Serving(system="请用中文回答。"))
    assert [each.id for each in db.read(releases.newest)] == [2, 1]


@pytest.mark.parametrize(("content", "code"), [(None, "no_such_file"), (b"PK\x03\x04", "not_gguf"), (b"", "not_gguf")])
def test_a_file_that_is_no_gguf_is_refused_before_it_is_uploaded(
    db: Database, fake: FakeOllama, client: Ollama, tmp_path: Path, content: bytes | None, code: str
) -> None:
    file = tmp_path / "m.gguf"
    if content is not None:
        file.write_bytes(content)
    assert add(db, client, file) == Refusal(code, {"path": str(file)})
    assert fake.exchanges == []


def test_a_template_that_ollama_could_not_guess_is_asked_for(db: Database, fake: FakeOllama, client: Ollama) -> None:
    fake.add("raw:1", template="{{ .Prompt }}")
    assert add(db, client, "raw:1") == Refusal("no_template", {"source": "raw:1"})
    assert isinstance(add(db, client, "raw:1", serving=bases.Serving(template=CHATML)), bases.Registered)


def test_an_unknown_tag_is_never_pulled_from_the_internet(db: Database, fake: FakeOllama, client: Ollama) -> None:
    with pytest.raises(UnknownTag):
        add(db, client, "nope:1")
    assert fake.of("/api/create") == []


@pytest.mark.parametrize(
    ("path", "fault"),
    [("/api/create", DISK_FULL_LINE), ("/api/generate", OUT_OF_MEMORY), ("/api/chat", OUT_OF_MEMORY)],
)
def test_nothing_is_registered_unless_it_was_seen_to_answer(
    db: Database, fake: FakeOllama, client: Ollama, path: str, fault: tuple[int, str]
) -> None:
    fake.add("llama3:8b")
    fake.inject(path, *fault)
    with pytest.raises(ServingError):
        add(db, client, "llama3:8b")
    assert db.read(deployments.live) is None


def test_a_base_that_says_nothing_is_not_registered(db: Database, fake: FakeOllama, client: Ollama) -> None:
    fake.add("llama3:8b")
    fake.reply("  ")
    with pytest.raises(Refused, match="template"):
        add(db, client, "llama3:8b")
    assert db.read(deployments.live) is None


def test_the_alias_is_for_others_and_its_failure_harms_nothing(
    db: Database, fake: FakeOllama, client: Ollama, caplog: pytest.LogCaptureFixture
) -> None:
    fake.add("llama3:8b")
    fake.inject("/api/copy", 500, "disk on fire")
    assert isinstance(add(db, client, "llama3:8b"), bases.Registered)
    assert "huigan:live" not in fake.tags
    assert "disk on fire" in caplog.text


def test_the_alias_is_tried_again_where_ollama_answers_eof(db: Database, fake: FakeOllama, client: Ollama) -> None:
    fake.add("llama3:8b")
    fake.inject("/api/copy", *EOF, times=2)
    registered = add(db, client, "llama3:8b")
    assert isinstance(registered, bases.Registered)
    assert fake.tags["huigan:live"].digest == fake.tags[registered.release.tag].digest
    assert len(fake.of("/api/copy")) == 3
