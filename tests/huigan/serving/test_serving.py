"""Ollama's client side against the wire: what is told apart, and that closing a stream ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from huigan.serving import chat, errors, library
from huigan.serving.client import AsyncOllama, Ollama
from tests.fakes.ollama import BUSY, DISK_FULL_LINE, EOF, GARBAGE, OUT_OF_MEMORY, RUNNER_STOPPED, FakeOllama

ASKED = [{"role": "user", "content": "Hi"}]
OPTIONS = {"num_predict": 64}


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("base:v1")
        yield running


async def heard(fake: FakeOllama, tag: str = "base:v1", **how: float) -> tuple[str, chat.Metrics]:
    text = ""
    async with contextlib.aclosing(chat.stream(AsyncOllama(fake.host), tag, ASKED, OPTIONS, **how)) as pieces:
        async for piece in pieces:
            if isinstance(piece, chat.Metrics):
                return text, piece
            text += piece.text
    raise AssertionError("no metrics came")


async def test_a_stream_yields_its_text_and_then_its_metrics(fake: FakeOllama) -> None:
    fake.reply("你好，世界。")
    text, metrics = await heard(fake)
    assert text == "你好，世界。"
    assert (metrics.done_reason, metrics.prompt_tokens > 0, metrics.answer_tokens > 0) == ("stop", True, True)


async def test_ollama_is_told_neither_to_truncate_nor_to_shift(fake: FakeOllama) -> None:
    await heard(fake)
    asked = fake.last("/api/chat").json
    assert asked is not None
    assert (asked["truncate"], asked["shift"], asked["options"]) == (False, False, OPTIONS)


async def test_a_stream_without_a_limit_on_tokens_is_never_sent(fake: FakeOllama) -> None:
    with pytest.raises(ValueError, match="num_predict"):
        await anext(chat.stream(AsyncOllama(fake.host), "base:v1", ASKED, {}))
    assert fake.of("/api/chat") == []


async def test_closing_the_generator_ends_the_generation(fake: FakeOllama) -> None:
    fake.reply("one two three", stalls_after=1)
    stream = chat.stream(AsyncOllama(fake.host), "base:v1", ASKED, OPTIONS)
    await anext(stream)
    await stream.aclose()
    await asyncio.to_thread(fake.wait_for, lambda f: f.last("/api/chat").ended == "disconnected")
    assert fake.last("/api/chat").ended == "disconnected"


async def test_cancelling_the_reader_ends_the_generation(fake: FakeOllama) -> None:
    fake.reply("one two three", stalls_after=1)
    task = asyncio.create_task(heard(fake))
    await asyncio.to_thread(fake.wait_for, lambda f: f.of("/api/chat") and f.last("/api/chat").tokens_sent == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(fake.wait_for, lambda f: f.last("/api/chat").ended == "disconnected")
    assert fake.last("/api/chat").ended == "disconnected"


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (BUSY, errors.Busy),
        (OUT_OF_MEMORY, errors.OutOfMemory),
        (RUNNER_STOPPED, errors.Crashed),
        ((500, "llama runner process has terminated: signal: killed"), errors.Crashed),
        ((503, "llm server loading model"), errors.Loading),
        ((404, "model 'base:v1' not found"), errors.UnknownTag),
        ((400, "option refused"), errors.Refused),
        ((400, '{"error":{"code":400,"n_prompt_tokens":900,"n_ctx":512}}'), errors.OverContext),
    ],
)
async def test_refusals_are_told_apart(
    fake: FakeOllama, fault: tuple[int, str], meaning: type[errors.ServingError]
) -> None:
    fake.inject("/api/chat", *fault)
    with pytest.raises(errors.ServingError) as raised:
        await heard(fake)
    assert type(raised.value) is meaning


async def test_a_prompt_over_the_context_says_how_long_it_is(fake: FakeOllama) -> None:
    fake.inject("/api/chat", 400, '{"error":{"code":400,"n_prompt_tokens":900,"n_ctx":512}}')
    with pytest.raises(errors.OverContext) as raised:
        await heard(fake)
    assert raised.value.params == {"prompt_tokens": 900, "context_tokens": 512}


async def test_an_ollama_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(errors.NotRunning):
        await anext(chat.stream(AsyncOllama("127.0.0.1:9"), "base:v1", ASKED, OPTIONS))


@pytest.mark.parametrize("how", ["dies_after", "drops_after"])
async def test_a_stream_that_breaks_is_a_crash_after_what_was_heard(fake: FakeOllama, how: str) -> None:
    fake.reply("one two three four", **{how: 2})
    pieces = []
    with pytest.raises(errors.Crashed):
        async for piece in chat.stream(AsyncOllama(fake.host), "base:v1", ASKED, OPTIONS):
            pieces.append(piece)
    assert len(pieces) == 2


async def test_a_stream_that_stalls_is_given_up(fake: FakeOllama) -> None:
    fake.reply("one two three", stalls_after=1)
    with pytest.raises(errors.Stalled) as raised:
        await heard(fake, stall_seconds=0.2)
    assert raised.value.code == "stalled"


async def test_an_ollama_that_hangs_before_the_first_word_is_given_up(fake: FakeOllama) -> None:
    fake.hang("/api/chat")
    with pytest.raises(errors.Stalled):
        await heard(fake, first_token_seconds=0.2)


def made(fake: FakeOllama, folder: Path, tag: str = "new:1") -> Ollama:
    gguf = folder / "x.gguf"
    gguf.write_bytes(b"GGUF" + bytes(64))
    client = Ollama(fake.host)
    library.create(
        client, tag, gguf, template="{{ .Prompt }}", system="你是回甘。", parameters={"num_ctx": 512, "stop": ["</s>"]}
    )
    return client


def test_a_tag_is_made_with_everything_written_out_and_shown_as_made(fake: FakeOllama, tmp_path: Path) -> None:
    client = made(fake, tmp_path)
    shown = library.show(client, "new:1")
    assert (shown.template, shown.system) == ("{{ .Prompt }}", "你是回甘。")
    assert dict(shown.parameters) == {"num_ctx": 512, "stop": ["</s>"]}
    assert "new:1" in library.tags(client)


def test_an_error_line_while_creating_is_an_error(fake: FakeOllama, tmp_path: Path) -> None:
    fake.inject("/api/create", *DISK_FULL_LINE)
    with pytest.raises(errors.DiskFull, match="no space left"):
        made(fake, tmp_path)


def test_warming_copying_deleting_and_their_refusals(fake: FakeOllama, tmp_path: Path) -> None:
    client = made(fake, tmp_path)
    library.warm(client, "new:1")
    assert "new:1" in fake.loaded
    library.copy(client, "new:1", "alias:live")
    assert library.delete(client, "alias:live")
    assert not library.delete(client, "alias:live")
    with pytest.raises(errors.UnknownTag):
        library.warm(client, "never:1")
    fake.inject("/api/copy", *EOF)
    with pytest.raises(errors.Crashed):
        library.copy(client, "new:1", "alias:live")


def test_a_tag_is_never_pulled_from_the_internet(fake: FakeOllama) -> None:
    with pytest.raises(errors.UnknownTag):
        library.create_from(Ollama(fake.host), "new:2", "never:1", template="", system="", parameters={})
    assert fake.of("/api/create") == []


def test_the_version_is_probed(fake: FakeOllama) -> None:
    assert library.version(Ollama(fake.host)).startswith("0.")
    with pytest.raises(errors.NotRunning):
        library.version(Ollama("127.0.0.1:9"))


SHAPED = {"template": "{{ .Prompt }}", "system": "", "parameters": {}}
ENDPOINTS: dict[str, tuple[str, Callable[[Ollama, Path], object]]] = {
    "create": ("/api/create", lambda client, gguf: library.create(client, "new:v1", gguf, **SHAPED)),
    "show": ("/api/show", lambda client, _: library.show(client, "base:v1")),
    "warm": ("/api/generate", lambda client, _: library.warm(client, "base:v1")),
    "unload": ("/api/generate", lambda client, _: library.unload(client, "base:v1")),
    "ps": ("/api/ps", lambda client, _: library.on_card(client)),
    "version": ("/api/version", lambda client, _: library.version(client)),
    "chat": ("/api/chat", lambda client, _: library.ask(client, "base:v1", ASKED, OPTIONS)),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_garbage_from_whatever_stands_in_between_is_told_apart(
    fake: FakeOllama, name: str, garbage: bytes, tmp_path: Path
) -> None:
    path, call = ENDPOINTS[name]
    gguf = tmp_path / "new.gguf"
    gguf.write_bytes(b"GGUF")
    fake.babble(path, garbage)
    with pytest.raises(errors.ServingError):
        call(Ollama(fake.host), gguf)
