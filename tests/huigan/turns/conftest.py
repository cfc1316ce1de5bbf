"""A desk over a fake Ollama and a real database, and people who speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from huigan.serving.client import AsyncOllama
from huigan.turns.desk import Desk
from huigan.turns.opening import Place, Refusal, Speaker, open_turn
from storage import artefacts, deployments, releases
from storage.db import Database, Session
from storage.records import ChatKind, Live, Turn
from tests.fakes.ollama import CHATML, FakeOllama

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SYSTEM = "你是回甘。"


def deploy(db: Database, tag: str, **parameters: object) -> Live:
    """As `huigan base add` would leave it."""

    def put(session: Session) -> Live:
        artefact = artefacts.add(
            session,
            run_id=None,
            path=None,
            sha256=None,
            quantisation="Q4_K_M",
            size_bytes=None,
            weights=None,
            template=CHATML,
            system=SYSTEM,
            parameters={"num_ctx": 2048, "num_predict": 256} | parameters,
            scorecard=None,
            verdict=None,
            created_at=AT,
        )
        release = releases.add(session, tag, artefact.id, AT)
        deployments.deploy(session, release.id, "test", "test", AT)
        live = deployments.live(session)
        assert live is not None
        return live

    return db.write(put)


def says(
    db: Database,
    text: str,
    who: str = "ann",
    *,
    source: str | None = None,
    reply_to: str | None = None,
    chat: str = "",
) -> Turn:
    place = Place("terminal", chat or who, ChatKind.GROUP if chat else ChatKind.PRIVATE)
    named = source or f"terminal:{who}:{text}"
    turn = db.write(open_turn, place, Speaker(who, who), text, named, AT, reply_to=reply_to)
    assert turn is not None
    assert not isinstance(turn, Refusal), turn
    return turn


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("base:v1")
        yield running


@pytest.fixture
async def desk(sqlite_db: Database, fake: FakeOllama) -> AsyncIterator[Desk]:
    deploy(sqlite_db, "base:v1")
    async with Desk(sqlite_db, AsyncOllama(fake.host), streams=2, waiting=8) as opened:
        yield opened
