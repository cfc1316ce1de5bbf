"""Answers from the real model: streams, limits, formats, contexts; and many of them at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.huigan.engine.conftest import CHATML, Engine, create, endless, upload, wait_until

pytestmark = pytest.mark.weights

GREEDY = {"temperature": 0, "seed": 7, "num_ctx": 1024}
LONG = "Write a long story about a river."


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Engine], smollm2_gguf: Path) -> Engine:
    engine = start_engine("--max-loaded", "2")
    upload(engine, smollm2_gguf)
    create(engine, "smol", template=CHATML, system="You are a helpful assistant.", parameters={"stop": ["<|im_end|>"]})
    return engine


def chat(text: str, **more: Any) -> dict[str, Any]:
    options = {**GREEDY, "num_predict": 12, **more.pop("options", {})}
    return {"model": "smol", "messages": [{"role": "user", "content": text}], "options": options, **more}


def stream(engine: Engine, body: dict[str, Any], path: str = "/api/chat") -> Iterator[dict[str, Any]]:
    with engine.client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            yield json.loads(line)


def text_of(lines: list[dict[str, Any]]) -> str:
    assert lines[-1]["done"], lines[-1]
    return "".join(line["message"]["content"] for line in lines)


def test_a_stream_says_what_the_whole_answer_says(engine: Engine) -> None:
    body = chat(LONG, options={"num_predict": 40})
    whole = engine.post("/api/chat", {**body, "stream": False}).json()
    lines = list(stream(engine, body))
    assert text_of(lines) == whole["message"]["content"]
    assert lines[-1]["eval_count"] == whole["eval_count"] == 40
    assert (lines[-1]["done_reason"], lines[-1]["prompt_eval_count"]) == ("length", whole["prompt_eval_count"])


def test_two_streams_at_once_say_what_each_says_alone(engine: Engine) -> None:
    bodies = [chat(LONG, options={"num_predict": 40}), chat("List ten animals.", options={"num_predict": 40})]
    alone = [text_of(list(stream(engine, body))) for body in bodies]
    with ThreadPoolExecutor() as pool:
        together = list(pool.map(lambda body: text_of(list(stream(engine, body))), bodies))
    assert together == alone


@pytest.mark.parametrize("prompt", ["重复这句话：春眠不觉晓，处处闻啼鸟。😀🎉", "用中文写一首诗。"])
def test_no_chunk_ever_holds_a_broken_character(engine: Engine, prompt: str) -> None:
    body = {
        "model": "smol",
        "raw": True,
        "prompt": f"{prompt}\n{prompt}\n{prompt}\n",
        "options": {**GREEDY, "num_predict": 40},
    }
    chunks = [line["response"] for line in stream(engine, body, "/api/generate")]
    assert any(not chunk.isascii() for chunk in chunks)
    assert "\ufffd" not in "".join(chunks)


def test_an_answer_cut_inside_a_character_loses_only_that_character(engine: Engine) -> None:
    for limit in range(1, 12):
        options = {**GREEDY, "num_predict": limit}
        body = {"model": "smol", "raw": True, "prompt": "😀🎉😀🎉😀🎉😀🎉", "stream": False, "options": options}
        answer = engine.post("/api/generate", body).json()
        assert "\ufffd" not in answer["response"]
        assert answer["eval_count"] == limit


def test_a_stop_string_across_chunks_is_never_shown(engine: Engine) -> None:
    full = text_of(list(stream(engine, chat(LONG, options={"num_predict": 40}))))
    words = full.split(" ")
    stop = f"{words[3]} {words[4]}"
    lines = list(stream(engine, chat(LONG, options={"num_predict": 40, "stop": [stop]})))
    assert text_of(lines) == full[: full.index(stop)]
    assert lines[-1]["done_reason"] == "stop"


def test_one_token_is_one_token(engine: Engine) -> None:
    answer = engine.post("/api/chat", chat(LONG, stream=False, options={"num_predict": 1})).json()
    assert (answer["eval_count"], answer["done_reason"]) == (1, "length")


@pytest.mark.parametrize("limit", [-1, 0])
def test_an_answer_without_a_limit_still_ends(engine: Engine, limit: int) -> None:
    prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    body = {
        "model": "smol",
        "raw": True,
        "prompt": prompt,
        "stream": False,
        "options": {**GREEDY, "num_predict": limit},
    }
    answer = engine.post("/api/generate", body).json()
    assert answer["done_reason"] == "stop"
    assert answer["eval_count"] > 1


def test_without_shift_an_answer_ends_where_the_context_does(engine: Engine) -> None:
    options = {"temperature": 0, "num_ctx": 256, "num_predict": -1, "stop": []}
    body = {
        "model": "smol",
        "raw": True,
        "prompt": "1 2 3 4 5 6 7 8 9 10 " * 4,
        "stream": False,
        "shift": False,
        "options": options,
    }
    answer = engine.post("/api/generate", body).json()
    assert answer["done_reason"] == "length"
    assert answer["prompt_eval_count"] + answer["eval_count"] <= 257


def long_conversation() -> list[dict[str, str]]:
    said = [{"role": role, "content": f"{number} " * 15} for number in range(12) for role in ("user", "assistant")]
    return [{"role": "system", "content": "KEEP ME"}, *said, {"role": "user", "content": "the last question"}]


def test_a_long_conversation_loses_its_oldest_messages_and_keeps_the_system(engine: Engine) -> None:
    options = {**GREEDY, "num_predict": 1, "num_ctx": 256}
    body = {"model": "smol", "messages": long_conversation(), "options": options}
    shown = engine.post("/api/chat", {**body, "_debug_render_only": True}).json()["_debug_info"]["rendered_template"]
    answer = engine.post("/api/chat", {**body, "stream": False}).json()
    assert "KEEP ME" in shown
    assert "the last question" in shown
    assert "<|im_start|>user\n0 0" not in shown
    assert 150 < answer["prompt_eval_count"] < 256


def test_one_message_longer_than_the_context_is_cut_and_its_end_is_kept(engine: Engine) -> None:
    answer = engine.post(
        "/api/chat", chat("word " * 3000, stream=False, options={"num_predict": 1, "num_ctx": 256})
    ).json()
    assert answer["prompt_eval_count"] == 255


def test_where_nothing_may_be_cut_the_refusal_says_how_long_the_prompt_is(engine: Engine) -> None:
    for streamed in (True, False):
        refused = engine.post("/api/chat", chat("word " * 3000, stream=streamed, truncate=False))
        assert refused.status_code == 400
        assert json.loads(refused.json()["error"])["error"]["n_prompt_tokens"] > 3000


def test_the_context_of_an_answer_carries_the_conversation_on(engine: Engine) -> None:
    first = engine.post(
        "/api/generate", {"model": "smol", "prompt": "Hi", "stream": False, "options": {**GREEDY, "num_predict": 4}}
    ).json()
    body = {
        "model": "smol",
        "prompt": "And?",
        "context": first["context"],
        "stream": False,
        "options": {**GREEDY, "num_predict": 4},
    }
    second = engine.post("/api/generate", body).json()
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > len(first["context"])


@pytest.mark.parametrize("tokens", [[10**9], [-1], ["x"], [1.5]])
def test_a_context_that_is_none_is_refused(engine: Engine, tokens: list[Any]) -> None:
    refused = engine.post("/api/generate", {"model": "smol", "prompt": "x", "context": tokens, "stream": False})
    assert refused.status_code in (400, 500)
    assert refused.json()["error"]


def test_json_begins_as_json_where_the_model_would_not(engine: Engine) -> None:
    free = engine.post("/api/chat", chat("Say hi.", stream=False)).json()
    bound = engine.post("/api/chat", chat("Say hi.", stream=False, format="json")).json()
    assert not free["message"]["content"].startswith("{")
    assert bound["message"]["content"].startswith("{")


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}])
def test_a_schema_that_cannot_bind_the_answer_is_an_error(engine: Engine, schema: dict[str, Any]) -> None:
    refused = engine.post("/api/chat", chat("Say hi.", format=schema, stream=False, options={"num_predict": 200}))
    assert refused.status_code == 500
    assert "format" in refused.json()["error"]


@pytest.mark.parametrize("form", ["xml", 3, ["json"]])
def test_a_format_that_is_none_is_refused(engine: Engine, form: Any) -> None:
    refused = engine.post("/api/chat", chat("x", format=form, stream=False))
    assert refused.status_code == 500
    assert refused.json()["error"].startswith("invalid format: ")


def test_log_probabilities_come_for_every_token_and_only_where_asked(engine: Engine) -> None:
    plain = engine.post("/api/chat", chat("Say hi.", stream=False)).json()
    one = engine.post("/api/chat", chat("Say hi.", stream=False, logprobs=True)).json()
    lines = list(stream(engine, chat("Say hi.", logprobs=True, top_logprobs=3)))
    assert "logprobs" not in plain
    assert len(one["logprobs"]) == one["eval_count"] == 12
    assert "top_logprobs" not in one["logprobs"][0]
    assert all(len(token["top_logprobs"]) == 3 for line in lines[:-1] for token in line["logprobs"])
    assert all(token["logprob"] <= 0 for token in one["logprobs"])


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "x"}], "think": True},
            400,
            '"smol" does not support thinking',
        ),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "does not support tools"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]}, 400, "without images"),
        ("/api/chat", {"messages": [], "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, 400, "does not support insert"),
        ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}, 400, "raw mode does not support template"),
        ("/api/generate", {"prompt": "x", "template": "{{ .Nope"}, 500, "template: :1: unclosed action"),
        ("/api/generate", {"prompt": "x", "options": {"repeat_last_n": -2}}, 400, "repeat_last_n"),
        ("/api/create", {"model": "y"}, 400, "neither 'from' or 'files' was specified"),
        ("/api/create", {"model": "y", "files": {}}, 400, "no files provided to convert"),
        (
            "/api/create",
            {"model": "y", "from": "smol", "quantize": "q4_K_M", "stream": False},
            400,
            "quantise the GGUF",
        ),
        (
            "/api/create",
            {"model": "y", "from": "smol", "adapters": {"a": "b"}, "stream": False},
            400,
            "merge the adapter",
        ),
        ("/api/pull", {"model": "y", "stream": False}, 500, "downloads nothing"),
        ("/api/copy", {"source": "nope", "destination": "y"}, 404, 'model "nope" not found'),
        ("/api/copy", {"source": "smol", "destination": "../y"}, 400, 'destination "../y" is invalid'),
    ],
)
def test_what_it_cannot_do_it_refuses_in_words(
    engine: Engine, path: str, body: dict[str, Any], status: int, error: str
) -> None:
    refused = engine.post(path, {"model": "smol", **body})
    assert refused.status_code == status
    assert error in refused.json()["error"]


def test_unknown_paths_and_methods_answer_as_gin_does(engine: Engine) -> None:
    assert (engine.client.get("/api/nope").status_code, engine.client.get("/api/nope").text) == (
        404,
        "404 page not found",
    )
    assert engine.client.get("/api/chat").status_code == 405


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_a_web_page_elsewhere_gets_nothing(engine: Engine, headers: dict[str, str]) -> None:
    assert engine.client.get("/api/tags", headers=headers).status_code == 403


def test_a_client_that_hangs_up_frees_its_slot(start_engine: Callable[..., Engine], engine: Engine) -> None:
    narrow = start_engine("--parallel", "1", models=engine.models)
    with narrow.client.stream("POST", "/api/generate", json=endless("smol", num_ctx=8192)) as response:
        next(response.iter_lines())
    with pytest.raises(httpx.ReadTimeout):  # gone before there is anything to read
        narrow.client.post("/api/chat", json=chat("word " * 4000, options={"num_ctx": 8192}), timeout=0.3)
    after = narrow.post("/api/chat", chat("Say hi.", stream=False, options={"num_ctx": 8192}))
    assert after.json()["done"]


def test_too_many_waiting_requests_are_sent_away(start_engine: Callable[..., Engine], engine: Engine) -> None:
    narrow = start_engine("--parallel", "1", "--max-queue", "1", models=engine.models)
    short = chat("Say hi.", stream=False)
    with ThreadPoolExecutor() as pool, narrow.client.stream("POST", "/api/generate", json=endless("smol")) as response:
        lines = response.iter_lines()  # held: where it is dropped, the connection is closed
        next(lines)
        first, second = (pool.submit(narrow.post, "/api/chat", short) for _ in range(2))
        wait_until(lambda: first.done() or second.done())
        refused, served = (first, second) if first.done() else (second, first)
        assert refused.result().status_code == 503
        assert refused.result().json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}
        response.close()
        assert served.result().json()["done"]


def test_a_swap_to_a_warmed_tag_leaves_a_running_stream_alone(
    engine: Engine, smollm2_gguf: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(smollm2_gguf.read_bytes() + bytes(32))  # another file, the same model
    create(engine, "next", upload(engine, other))
    body = chat(LONG, options={"num_predict": 80})
    undisturbed = text_of(list(stream(engine, body)))

    lines, swapped = [], threading.Event()
    for line in stream(engine, body):
        lines.append(line)
        if len(lines) == 5:
            assert engine.post("/api/generate", {"model": "next", "options": GREEDY}).json()["done_reason"] == "load"
            assert engine.post("/api/chat", {**chat("Say hi.", stream=False), "model": "next"}).json()["done"]
            swapped.set()

    assert swapped.is_set()
    assert text_of(lines) == undisturbed
    assert {model["name"] for model in engine.client.get("/api/ps").json()["models"]} == {"smol:latest", "next:latest"}
