"""The engine is killed while it answers: what was shown is kept, tags survive, the question is answered again."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from huigan.operate import bases
from huigan.serving import library
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.turns.desk import Desk
from huigan.turns.opening import Refusal, answer_again
from huigan.up import Part
from storage import answers, turns
from storage.db import Database
from storage.records import Ended
from tests.huigan.turns.conftest import AT, says

pytestmark = pytest.mark.weights


class Engine:
    """`huigan engine` as a process that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "huigan", "engine", "--port", str(port), "--models", str(folder)]
        self.part = Part("engine", command, environment=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})

    def start(self) -> None:
        self.part.start()
        until = time.monotonic() + 60
        while True:
            try:
                library.version(Ollama(self.host))
                return
            except ServingError:
                assert time.monotonic() < until, "the engine did not start"
                time.sleep(0.1)

    def kill(self) -> None:
        assert self.part.process is not None
        self.part.process.kill()
        self.part.process.wait()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "models")
    made.start()
    yield made
    made.part.stop()


async def test_what_was_shown_is_kept_and_the_question_is_answered_after_a_restart(
    engine: Engine, sqlite_db: Database, smollm2_gguf: Path
) -> None:
    serving = bases.Serving(
        None, "You are a helpful assistant.", {"temperature": 0.0, "num_ctx": 512, "num_predict": 200}
    )
    client = Ollama(engine.host)
    registered = await asyncio.to_thread(
        bases.register, sqlite_db, client, smollm2_gguf, "weights", by_user_id=None, at=AT, serving=serving, alias=None
    )
    assert isinstance(registered, bases.Registered)
    async with Desk(sqlite_db, AsyncOllama(engine.host)) as desk:
        turn = says(sqlite_db, "Write a long story about a tea house.")
        waiting = says(sqlite_db, "What is the capital of France?", "bo")
        watched = desk.hand_in(turn)
        async for view in watched.watch():
            if len(view.text) > 40:
                break
        engine.kill()
        broken = await watched.closed()
        assert (broken.ended, broken.error) == (Ended.BROKEN, "crashed")
        assert broken.answer is not None
        assert len(sqlite_db.read(answers.get, broken.answer.id).text) > 40
        away = await desk.hand_in(waiting).closed()
        assert (away.ended, away.error) == (Ended.FAILED, "not_running")

        await asyncio.to_thread(engine.start)
        assert registered.release.tag in library.tags(client)
        again = sqlite_db.write(answer_again, turn.message_id, turn.user_id, AT)
        assert not isinstance(again, Refusal)
        whole = await desk.hand_in(again).closed()
        assert whole.ended in {Ended.COMPLETE, Ended.LENGTH}
        retried = sqlite_db.write(answer_again, waiting.message_id, waiting.user_id, AT)
        assert not isinstance(retried, Refusal)
        assert "Paris" in (await desk.hand_in(retried).closed()).text
    assert sqlite_db.read(turns.unclosed) == []
