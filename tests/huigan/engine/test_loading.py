"""What is loaded and for how long, and what happens when a child or the engine is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.huigan.engine.conftest import CHATML, SMOLLM2_DIGEST, Engine, create, endless, upload, wait_until

pytestmark = pytest.mark.weights

GREEDY = {"temperature": 0, "num_ctx": 1024}


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Engine], smollm2_gguf: Path) -> Engine:
    engine = start_engine("--max-loaded", "1")
    upload(engine, smollm2_gguf)
    create(engine, "smol", template=CHATML, parameters={"num_ctx": 1024})
    return engine


def chat(text: str = "Say hi.", **more: Any) -> dict[str, Any]:
    options = {**GREEDY, "num_predict": 5, **more.pop("options", {})}
    return {"model": "smol", "messages": [{"role": "user", "content": text}], "options": options, **more}


def loaded(engine: Engine) -> list[dict[str, Any]]:
    return list(engine.client.get("/api/ps").json()["models"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def test_a_runner_ends_with_its_keep_alive_and_memory_returns(engine: Engine) -> None:
    engine.post("/api/generate", {"model": "smol", "keep_alive": "300ms"})
    (child,) = engine.children()
    wait_until(lambda: loaded(engine) == [])
    wait_until(lambda: not alive(child))
    assert engine.children() == []


def test_kept_for_ever_is_shown_as_centuries(engine: Engine) -> None:
    engine.post("/api/generate", {"model": "smol", "keep_alive": -1})
    assert loaded(engine)[0]["expires_at"] > "2300"
    engine.post("/api/generate", {"model": "smol", "keep_alive": 0})
    assert loaded(engine) == []


def test_an_answer_with_keep_alive_zero_leaves_nothing_loaded(engine: Engine) -> None:
    assert engine.post("/api/chat", chat(stream=False, keep_alive=0)).json()["done"]
    wait_until(lambda: loaded(engine) == [] and engine.children() == [])


def test_unloading_waits_for_the_answer_in_progress(engine: Engine) -> None:
    with engine.client.stream("POST", "/api/chat", json=chat(options={"num_predict": 40, "stop": []})) as response:
        lines = response.iter_lines()
        next(lines)
        assert (
            engine.post("/api/chat", {"model": "smol", "messages": [], "keep_alive": 0}).json()["done_reason"]
            == "unload"
        )
        *_, last = lines
    assert json.loads(last)["done"]
    wait_until(lambda: engine.children() == [])


def test_where_only_one_may_be_loaded_another_waits_for_the_stream_to_end(engine: Engine) -> None:
    other = chat(stream=False, options={"num_ctx": 512})
    with (
        ThreadPoolExecutor() as pool,
        engine.client.stream("POST", "/api/generate", json=endless("smol")) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        waiting = pool.submit(engine.post, "/api/chat", other)
        for _ in range(20):
            assert "error" not in json.loads(next(lines))
        assert not waiting.done()
        response.close()
        assert waiting.result().json()["done"]
    assert [model["context_length"] for model in loaded(engine)] == [512]


def test_a_child_killed_mid_stream_ends_it_with_an_error_and_without_done(engine: Engine) -> None:
    with engine.client.stream("POST", "/api/generate", json=endless("smol")) as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(engine.children()[0], signal.SIGKILL)
        *_, last = lines
    assert response.status_code == 200
    assert "done" not in json.loads(last)
    assert json.loads(last)["error"].startswith("an error was encountered while running the model")
    assert engine.post("/api/chat", chat(stream=False)).json()["done"]


def test_a_child_killed_before_the_first_token_is_a_500(engine: Engine) -> None:
    slow = chat("word " * 6000, options={"num_ctx": 8192})
    engine.post("/api/generate", {"model": "smol", "options": slow["options"]})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(engine.post, "/api/chat", slow)
        time.sleep(0.3)
        assert not waiting.done()
        os.kill(engine.children()[0], signal.SIGKILL)
        refused = waiting.result()
    assert refused.status_code == 500
    assert refused.json()["error"].startswith("model runner has unexpectedly stopped")


def test_a_child_killed_while_idle_is_replaced(engine: Engine) -> None:
    engine.post("/api/generate", {"model": "smol"})
    (child,) = engine.children()
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: loaded(engine) == [])
    assert engine.post("/api/chat", chat(stream=False)).json()["done"]
    assert engine.children() != [child]


def test_a_file_that_is_gone_cannot_answer(engine: Engine) -> None:
    create(engine, "lost")
    engine.post("/api/generate", {"model": "lost", "keep_alive": 0})
    blob = engine.models / "blobs" / SMOLLM2_DIGEST.replace(":", "-")
    aside = blob.rename(blob.with_name("aside"))
    try:
        refused = engine.post("/api/chat", {**chat(), "model": "lost"})
        assert (refused.status_code, refused.json()) == (400, {"error": '"lost" does not support chat'})
        assert "lost:latest" in {model["name"] for model in engine.client.get("/api/tags").json()["models"]}
        assert engine.post("/api/show", {"model": "lost"}).status_code == 500
    finally:
        aside.rename(blob)


def test_a_file_that_lost_its_end_is_a_500_that_says_so(engine: Engine, smollm2_gguf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(smollm2_gguf.read_bytes() + bytes(64))
    digest = upload(engine, other)
    create(engine, "cut", digest)
    os.truncate(engine.models / "blobs" / digest.replace(":", "-"), 50_000_000)
    refused = engine.post("/api/chat", {**chat(), "model": "cut"})
    assert refused.status_code == 500
    assert "truncated" in refused.json()["error"]
    engine.client.request("DELETE", "/api/delete", json={"model": "cut"})


def test_an_upload_cut_off_leaves_no_blob(engine: Engine) -> None:
    def half() -> Any:
        yield b"x" * 100_000
        raise ConnectionError

    with pytest.raises(ConnectionError):
        engine.client.post("/api/blobs/sha256:" + "1" * 64, content=half())
    wait_until(lambda: not list((engine.models / "blobs").glob(".partial-*")))
    assert engine.client.head("/api/blobs/sha256:" + "1" * 64).status_code == 404


def test_children_end_with_an_engine_that_is_killed_and_a_stream_breaks(
    start_engine: Callable[..., Engine], engine: Engine
) -> None:
    doomed = start_engine(models=engine.models)
    with (
        pytest.raises(httpx.TransportError),
        doomed.client.stream("POST", "/api/generate", json=endless("smol")) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        (child,) = doomed.children()
        doomed.kill()
        list(lines)
    wait_until(lambda: not alive(child))


def test_a_stopping_engine_does_not_wait_for_an_endless_stream(
    start_engine: Callable[..., Engine], engine: Engine
) -> None:
    stopping = start_engine(models=engine.models)
    with stopping.client.stream("POST", "/api/generate", json=endless("smol")) as response:
        lines = response.iter_lines()
        next(lines)
        (child,) = stopping.children()
        stopping.process.terminate()
        assert stopping.process.wait(timeout=15) in (0, -signal.SIGTERM)
    wait_until(lambda: not alive(child))


def test_tags_survive_an_engine_that_is_killed_while_they_are_written(
    start_engine: Callable[..., Engine], engine: Engine
) -> None:
    dice = random.Random(5)
    for _ in range(3):
        doomed = start_engine(models=engine.models)
        killing = threading.Timer(0.05 + dice.random() * 0.3, doomed.kill)
        killing.start()
        made = 0
        with pytest.raises(httpx.TransportError):
            while True:
                wanted = {"model": f"t{made % 3}", "from": "smol", "system": f"number {made}", "stream": False}
                assert doomed.post("/api/create", wanted).status_code == 200
                assert doomed.post("/api/copy", {"source": f"t{made % 3}", "destination": "alias"}).status_code == 200
                made += 1
        killing.join()
        assert made > 0

    again = start_engine(models=engine.models)
    manifests = [path for path in (engine.models / "manifests").glob("*/*/*/*") if not path.name.startswith(".")]
    tags = {model["name"] for model in again.client.get("/api/tags").json()["models"]}
    assert {"alias:latest", "t0:latest", "smol:latest"} <= tags
    assert len(tags) == len(manifests)
    assert all(
        again.post("/api/show", {"model": tag}).json()["system"] for tag in tags if tag.startswith(("t", "alias"))
    )
