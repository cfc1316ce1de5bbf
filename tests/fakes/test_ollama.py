"""The fake Ollama answers as the recordings do, through the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from tests.fakes.ollama import BUSY, CHATML, DISK_FULL_LINE, EOF, GARBAGE, OUT_OF_MEMORY, FakeOllama

UNCLOSED = "template error: template: :1: unclosed action"
HOT = 'option "temperature" must be of type float32'
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def running() -> Iterator[FakeOllama]:
    with FakeOllama().running() as started:
        yield started


@pytest.fixture
def fake(running: FakeOllama) -> FakeOllama:
    running.reset()
    return running


@pytest.fixture
def client(fake: FakeOllama) -> ollama.Client:
    return ollama.Client(fake.host)


def refusal(excinfo: pytest.ExceptionInfo[ollama.ResponseError]) -> tuple[int, str]:
    return excinfo.value.status_code, excinfo.value.error


def test_a_created_tag_is_listed_shown_loaded_copied_and_deleted(
    fake: FakeOllama, client: ollama.Client, tmp_path: Path
) -> None:
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF and more")
    digest = client.create_blob(gguf)
    parameters = {"stop": ["<|im_end|>"], "num_ctx": 1024}
    lines = client.create(
        "smol:v1", files={"m.gguf": digest}, template=CHATML, system="S.", parameters=parameters, stream=True
    )
    statuses = [line.status for line in lines]
    assert (statuses[0], statuses[1], statuses[-1], len(statuses)) == (
        "parsing GGUF",
        "verifying conversion",
        "success",
        8,
    )
    shown = client.show("smol:v1")
    assert shown.template == CHATML
    assert (shown.parameters or "").split() == ["num_ctx", "1024", "stop", '"<|im_end|>"']
    assert client.generate("smol:v1").done_reason == "load"
    assert [each.model for each in client.ps().models] == ["smol:v1"]
    client.copy("smol:v1", "smol")
    assert {each.model for each in client.list().models} == {"smol:v1", "smol:latest"}
    assert client.generate("smol:v1", keep_alive=0).done_reason == "unload"
    client.delete("smol:v1")
    with pytest.raises(ollama.ResponseError) as refused:
        client.delete("smol:v1")
    assert refusal(refused) == (404, "model 'smol:v1' not found")


def test_a_chat_streams_its_tokens_and_counts_them(fake: FakeOllama, client: ollama.Client) -> None:
    fake.add("a:1")
    fake.reply("Paris is it.")
    *tokens, done = client.chat("a:1", HELLO, stream=True)
    assert [each.message.content for each in tokens] == ["Paris", " is", " it", "."]
    assert (done.done_reason, done.prompt_eval_count, done.eval_count) == ("stop", 9, 4)
    fake.reply("回甘茶馆")
    cut = client.chat("a:1", HELLO, options={"num_predict": 2})
    assert (cut.message.content, cut.done_reason) == ("回甘", "length")


@pytest.mark.parametrize("fault", [BUSY, OUT_OF_MEMORY])
def test_an_injected_fault_happens_as_often_as_told(
    fake: FakeOllama, client: ollama.Client, fault: tuple[int, str]
) -> None:
    fake.add("a:1")
    fake.inject("/api/chat", *fault, times=1)
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("a:1", HELLO)
    assert refusal(refused) == fault
    assert client.chat("a:1", HELLO).message.content == "You said: Hello"


def test_a_copy_can_fail_with_eof(fake: FakeOllama, client: ollama.Client) -> None:
    fake.add("a:1")
    fake.inject("/api/copy", *EOF)
    with pytest.raises(ollama.ResponseError) as refused:
        client.copy("a:1", "b:1")
    assert refusal(refused) == EOF


def test_a_create_that_began_ends_with_an_error_line(fake: FakeOllama, client: ollama.Client) -> None:
    fake.add("a:1")
    fake.inject("/api/create", *DISK_FULL_LINE)
    with pytest.raises(ollama.ResponseError) as refused:
        list(client.create("b:1", from_="a:1", stream=True))
    assert refusal(refused) == (-1, DISK_FULL_LINE[1])


def test_a_killed_runner_ends_the_stream_with_an_error_line(fake: FakeOllama, client: ollama.Client) -> None:
    fake.add("a:1")
    fake.reply("one two three", dies_after=2)
    seen = []
    with pytest.raises(ollama.ResponseError) as refused:
        seen.extend(client.chat("a:1", HELLO, stream=True))
    assert refusal(refused)[0] == -1
    assert (fake.last("/api/chat").ended, fake.last("/api/chat").tokens_sent) == ("died", 2)


def test_a_broken_connection_is_no_end_of_stream(fake: FakeOllama, client: ollama.Client) -> None:
    fake.add("a:1")
    fake.reply("one two three", drops_after=1)
    with pytest.raises(httpx.RemoteProtocolError):
        list(client.chat("a:1", HELLO, stream=True))
    assert fake.last("/api/chat").ended == "dropped"


async def test_leaving_a_stalled_stream_is_noticed(fake: FakeOllama) -> None:
    fake.add("a:1")
    fake.reply("one two three", stalls_after=1)
    stream = await ollama.AsyncClient(fake.host).chat("a:1", HELLO, stream=True)
    assert (await anext(stream)).message.content == "one"
    await stream.aclose()
    await asyncio.to_thread(fake.wait_for, lambda each: each.last("/api/chat").ended == "disconnected")


def test_what_exceeds_the_context_is_refused_only_where_truncation_is_off(fake: FakeOllama) -> None:
    fake.add("a:1", parameters={"num_ctx": 16})
    body = {"model": "a:1", "messages": [{"role": "user", "content": "x" * 20}], "stream": False}
    assert httpx.post(f"{fake.host}/api/chat", json=body).status_code == 200
    refused = httpx.post(f"{fake.host}/api/chat", json=body | {"truncate": False})
    assert refused.status_code == 400
    assert '"n_prompt_tokens": 24' in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("chat", {"messages": HELLO}, 400, "model is required"),
        ("chat", {"model": "nope:v1", "messages": HELLO}, 404, "model 'nope:v1' not found"),
        ("show", {"model": "nope:v1"}, 404, "model 'nope:v1' not found"),
        ("generate", {"model": "a:1", "keep_alive": "soon"}, 400, 'time: invalid duration "soon"'),
        ("create", {"model": "a b/../c", "files": {}}, 400, "invalid model name"),
        ("create", {"model": "x", "from": "a:1", "template": "{{ .N", "stream": False}, 400, UNCLOSED),
        ("chat", {"model": "a:1", "messages": HELLO, "options": {"temperature": "hot"}}, 500, HOT),
    ],
)  # fmt: skip
def test_what_ollama_refuses_is_refused(
    fake: FakeOllama, path: str, body: dict[str, object], status: int, error: str
) -> None:
    fake.add("a:1")
    refused = httpx.post(f"{fake.host}/api/{path}", json=body)
    assert (refused.status_code, refused.json()) == (status, {"error": error})


def test_a_blob_must_have_its_digest(fake: FakeOllama) -> None:
    url = f"{fake.host}/api/blobs/sha256:{'0' * 64}"
    assert httpx.head(url).status_code == 404
    assert "digest mismatch" in httpx.post(url, content=b"x").json()["error"]
    assert httpx.post(f"{fake.host}/api/blobs/sha256:xyz", content=b"x").json() == {"error": "invalid digest format"}


def test_stopped_and_started_it_keeps_its_tags_and_its_port() -> None:
    fake = FakeOllama()
    with fake.running():
        fake.add("a:1")
        host = fake.host
    with pytest.raises(ConnectionError):
        ollama.Client(host).list()
    with fake.running():
        assert (fake.host, [each.model for each in ollama.Client(host).list().models]) == (host, ["a:1"])


def test_what_is_no_answer_of_ollama_s_comes_as_it_is_and_then_no_more(fake: FakeOllama) -> None:
    fake.add("base:v1")
    asked = {"model": "base:v1", "messages": HELLO, "stream": False}
    for garbage in GARBAGE:
        fake.babble("/api/chat", garbage)
        told = httpx.post(f"{fake.host}/api/chat", json=asked)
        assert (told.status_code, told.content) == (200, garbage)
    fake.babble("/api/chat", b"?", times=9)
    fake.forget_faults()
    assert httpx.post(f"{fake.host}/api/chat", json=asked).json()["done"] is True
