"""Ollama keeps the tags of the newest releases, whatever answers or may, and everything that is nobody's of ours."""

from __future__ import annotations

from huigan.operate import library
from huigan.serving.client import Ollama
from storage import deployments
from storage.db import Database
from tests.fakes.ollama import FakeOllama
from tests.huigan.operate.conftest import AT, Desk, minutes


def test_old_tags_go_but_those_that_are_needed_and_those_of_others(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    tried, *others = (desk.published() for _ in range(5))
    awaiting = desk.proposed()
    db.write(deployments.deploy, tried.id, "test", "conversations", AT, share=0.1)
    fake.add("qwen3:8b")
    said = library.prune(db, client, 1, minutes(1), dry=True)
    before = set(fake.tags)
    assert {each.thing.name for each in said.going} == {others[0].tag, others[1].tag}
    library.prune(db, client, 1, minutes(1))
    assert before - set(fake.tags) == {others[0].tag, others[1].tag}
    assert {"qwen3:8b", "llama3:8b", tried.tag, others[2].tag, others[3].tag, awaiting.tag} <= set(fake.tags)
    assert library.prune(db, client, 1, minutes(2)).going == ()


def test_what_is_kept_for_good_is_never_asked_about(db: Database, desk: Desk, client: Ollama) -> None:
    for _ in range(4):
        desk.published()
    assert library.prune(db, client, None, minutes(1)).going == ()
