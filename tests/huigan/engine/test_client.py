"""The official `ollama` client against the engine: it cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import ollama
import pytest

from tests.huigan.engine.conftest import CHATML, Engine

pytestmark = pytest.mark.weights

OPTIONS = {"temperature": 0, "num_ctx": 1024, "num_predict": 8}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Engine], smollm2_gguf: Path) -> Engine:
    engine = start_engine()
    client = ollama.Client(engine.url)
    digest = client.create_blob(smollm2_gguf)
    steps = client.create(
        "smol:v1", files={"m.gguf": digest}, template=CHATML, parameters={"num_ctx": 1024}, stream=True
    )
    assert [step.status for step in steps][-1] == "success"
    return engine


def test_the_client_lists_shows_copies_and_deletes(engine: Engine) -> None:
    client = ollama.Client(engine.url)
    client.copy("smol:v1", "alias")
    assert {model.model for model in client.list().models} == {"smol:v1", "alias:latest"}
    assert client.show("alias").modelinfo["llama.context_length"] == 8192
    assert client.delete("alias").status == "success"
    with pytest.raises(ollama.ResponseError) as missing:
        client.show("alias")
    assert missing.value.status_code == 404


def test_the_client_chats_and_generates(engine: Engine) -> None:
    client = ollama.Client(engine.url)
    whole = client.chat("smol:v1", QUESTION, options=OPTIONS)
    streamed = list(client.chat("smol:v1", QUESTION, options=OPTIONS, stream=True))
    assert "Paris" in whole.message.content
    assert "".join(part.message.content for part in streamed) == whole.message.content
    assert client.generate("smol:v1", "Hi", options=OPTIONS).context
    assert client.ps().models[0].context_length == 1024


async def test_a_cancelled_client_stops_the_answer(engine: Engine) -> None:
    client = ollama.AsyncClient(engine.url)

    async def read_for_ever() -> None:
        async for _ in await client.generate("smol:v1", "la " * 40, raw=True, stream=True, options={"num_predict": -1}):
            reading.set()

    reading = asyncio.Event()
    task = asyncio.create_task(read_for_ever())
    await reading.wait()
    task.cancel()
    answer = await client.chat("smol:v1", QUESTION, options=OPTIONS)
    assert answer.done


def test_an_error_after_the_first_step_raises_in_the_client(engine: Engine) -> None:
    client = ollama.Client(engine.url)
    with pytest.raises(ollama.ResponseError, match="pull model manifest"):
        list(client.create("x", from_="no-such-tag", stream=True))
