"""Every exchange recorded from a real Ollama, replayed in order against the engine over real HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.huigan.engine.conftest import SMOLLM2_DIGEST, Engine, create

Exchange = dict[str, Any]

RECORDED = sorted(
    (
        exchange
        for file in Path(__file__).with_name("recorded").glob("*.json")
        for exchange in json.loads(file.read_text())
    ),
    key=lambda exchange: exchange["position"],
)
# What may differ between runs, by the README of the recordings.
VARIES = re.compile(r".*_(at|duration)|created|size|digest|logprob|sha256:\w+")
# Where this build of llama.cpp picks other words than the recorded one did, at temperature 0 as well.
OTHER_WORDS = {"06.04"}
# What was done by exchanges that were not kept, before the ones that show it.
UNRECORDED = {
    "03.15": lambda engine: create(engine, "x:v5", SMOLLM2_DIGEST, parameters={"nonsense": 1}),
    "08.04": lambda engine: engine.post("/api/copy", {"source": "smol:v2", "destination": "smol:latest"}),
}


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Engine]) -> Engine:
    return start_engine("--parallel", "1", "--max-loaded", "2")


def shape(value: Any, name: str = "") -> Any:
    """A body with what varies replaced by its type."""
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item, name) for item in value]
    if VARIES.fullmatch(name):
        return type(value).__name__
    if isinstance(value, str):
        value = re.sub(r"sha256([:-])[0-9a-f]{64}", r"sha256\1…", value)
        value = re.sub(r"(open|FROM) \S+/blobs/", r"\1 <OLLAMA_MODELS>/blobs/", value)
        return value.replace(" on <DNS>:", ":")
    return value


def content(body: bytes | str, gguf: Path) -> bytes:
    """A recorded body; those of the GGUF are described, not kept."""
    if found := re.fullmatch(r"<(\d+) bytes of the GGUF>", str(body)):
        return gguf.read_bytes()[: int(found[1])]
    return str(body).encode()


def replay(engine: Engine, request: Exchange, gguf: Path) -> httpx.Response:
    if "body" in request:
        return engine.client.request(request["method"], request["path"], content=content(request["body"], gguf))
    return engine.client.request(request["method"], request["path"], json=request.get("json"))


def by_name(body: Any) -> Any:
    """A list of tags in a fixed order: within one second Ollama's own is random."""
    for listed in ("models", "data"):
        if isinstance(body, dict) and listed in body:
            return {**body, listed: sorted(body[listed], key=lambda tag: str(tag.get("name") or tag.get("id")))}
    return body


def assert_same_lines(lines: list[Any], recorded: Exchange) -> None:
    assert len(lines) == recorded["ndjson_lines"]
    cut = next(at for at, line in enumerate(recorded["ndjson"]) if "…" in line)
    after = len(recorded["ndjson"]) - cut - 1
    kept = [*lines[:cut], *lines[len(lines) - after :]]
    assert shape(kept) == shape([line for line in recorded["ndjson"] if "…" not in line])


def assert_same_tensors(tensors: list[Any], recorded: list[Any]) -> None:
    *first, more = recorded
    assert tensors[: len(first)] == first
    assert len(tensors) == len(first) + int(re.findall(r"\d+", more)[0])


def forget_words(answer: Any) -> None:
    """Keep that there was an answer, which stops where its stop string would be, and not what it says."""
    assert answer["message"].pop("content").rstrip(",")
    assert answer.pop("eval_count") > 1


@pytest.mark.weights
@pytest.mark.parametrize("exchange", RECORDED, ids=[f"{e['position']} {e['name']}" for e in RECORDED])
def test_the_engine_answers_as_ollama_did(engine: Engine, smollm2_gguf: Path, exchange: Exchange) -> None:
    recorded = exchange["response"]
    UNRECORDED.get(exchange["position"], lambda _: None)(engine)

    response = replay(engine, exchange["request"], smollm2_gguf)

    assert response.status_code == recorded["status"], response.text
    assert response.headers.get("content-type") == recorded["headers"].get("content-type")
    if recorded["headers"].get("content-length") in ("0", "17"):
        assert response.headers["content-length"] == recorded["headers"]["content-length"]
    if "text" in recorded:
        assert response.text == recorded["text"]
    if "json" in recorded:
        body, expected = by_name(response.json()), by_name(recorded["json"])
        if "tensors" in expected:
            assert_same_tensors(body.pop("tensors"), expected.pop("tensors"))
        if exchange["position"] in OTHER_WORDS:
            forget_words(body)
            forget_words(expected)
        assert shape(body) == shape(expected)
    if "ndjson" in recorded:
        assert_same_lines([json.loads(line) for line in response.text.splitlines()], recorded)
