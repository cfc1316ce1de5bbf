"""Names, bodies, options and durations: what is taken, what is refused and in which words."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from huigan.engine import bodies, names, options
from huigan.engine.errors import ApiError
from huigan.engine.guard import _is_local, _is_of_this_machine, bounded, local_only

FIELDS = {"model": bodies.STRING, "stream": bodies.BOOL, "n": bodies.INT, "messages": bodies.MESSAGES}


@pytest.mark.parametrize(
    ("text", "short", "full"),
    [
        ("smol", "smol:latest", "registry.ollama.ai/library/smol:latest"),
        ("smol:v1", "smol:v1", "registry.ollama.ai/library/smol:v1"),
        ("me/smol", "me/smol:latest", "registry.ollama.ai/me/smol:latest"),
        ("host:80/me/smol:v1", "host:80/me/smol:v1", "host:80/me/smol:v1"),
        ("https://host/me/smol:v1", "host/me/smol:v1", "host/me/smol:v1"),
    ],
)
def test_a_name_is_filled_in_and_shown_short(text: str, short: str, full: str) -> None:
    name = names.parse(text)
    assert name is not None
    assert (str(name), name.full) == (short, full)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a b/../c", "..", "../x", "a/..:b", ".hidden", "a:", "/a", "a//b", "a:b:c/", "你好", "a\0", "x" * 81],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    assert names.parse(text) is None


@given(st.text())
def test_no_name_climbs_out_of_the_folder(text: str) -> None:
    name = names.parse(text)
    assert name is None or (len(name.path.parts) == 4 and ".." not in name.path.parts and not name.path.is_absolute())


def decode(raw: str | bytes) -> dict[str, Any]:
    return bodies.decode(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"), "ChatRequest", FIELDS)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ("", "missing request body"),
        ("  \n", "missing request body"),
        ('{"model": ', "unexpected EOF"),
        ('{"model": "x', "unexpected EOF"),
        ('{"model": }', "invalid character '}' looking for beginning of value"),
        ('{"n": NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"n": 1e999}', "json: cannot unmarshal number 1e999 into Go value of type float64"),
        ("[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        ("null", "json: cannot unmarshal null into Go value of type api.ChatRequest"),
        ('{"model": 1}', "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        ('{"stream": "no"}', "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
        ('{"n": true}', "json: cannot unmarshal bool into Go struct field ChatRequest.n of type int"),
        (
            '{"messages": {}}',
            "json: cannot unmarshal object into Go struct field ChatRequest.messages of type []api.Message",
        ),
        ("[" * 100_000, "json: exceeded max depth"),
    ],
)
def test_a_broken_body_is_refused_in_gos_words(raw: str, complaint: str) -> None:
    with pytest.raises(ApiError) as refused:
        decode(raw)
    assert (refused.value.status, refused.value.message) == (400, complaint)


def test_null_and_unknown_fields_are_as_if_not_given() -> None:
    assert decode('{"model": "x", "stream": null, "other": [1]}') == {"model": "x"}


def test_what_utf8_cannot_hold_becomes_a_replacement_character() -> None:
    assert decode(b'{"model": "a\\ud800b \\ud83d\\ude00 \xff"}') == {"model": "a\ufffdb 😀 \ufffd"}


@given(st.binary())
def test_whatever_the_body_it_is_decoded_or_refused(raw: bytes) -> None:
    outcome: dict[str, Any] | ApiError
    try:
        outcome = decode(raw)
    except ApiError as refused:
        outcome = refused
    assert outcome.status == 400 if isinstance(outcome, ApiError) else set(outcome) <= set(FIELDS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0),
        (5, 5),
        (1.5, 1.5),
        (-1, math.inf),
        ("10m", 600),
        ("1h30m", 5400),
        ("-1s", math.inf),
        ("0", 0),
    ],
)
def test_keep_alive_is_seconds_or_a_duration(value: Any, seconds: float | None) -> None:
    assert options.keep_alive_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("soon", 'time: invalid duration "soon"'),
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_a_bad_keep_alive_is_refused_in_gos_words(value: Any, complaint: str) -> None:
    with pytest.raises(ApiError) as refused:
        options.keep_alive_seconds(value)
    assert (refused.value.status, refused.value.message) == (400, complaint)


def test_a_request_overrides_its_tag_and_a_tag_the_defaults() -> None:
    merged = options.merged({"num_ctx": 1024, "top_k": 1}, {"top_k": 2, "unknown": object(), "seed": None})
    assert (merged["num_ctx"], merged["top_k"], merged["seed"]) == (1024, 2, -1)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"num_ctx": "1024"}, 'option "num_ctx" must be of type integer'),
        ({"top_k": True}, 'option "top_k" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_an_option_of_the_wrong_type_is_refused(asked: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ApiError) as refused:
        options.merged({}, asked)
    assert (refused.value.status, refused.value.message) == (500, complaint)


@pytest.mark.parametrize(("wanted", "sent"), [(-1, 5120), (-2, 5120), (0, 5120), (1, 1), (10**9, 5120)])
def test_no_answer_is_longer_than_ten_contexts(wanted: int, sent: int) -> None:
    request = options.completion_request(options.merged({}, {"num_predict": wanted}), 512)
    assert request["n_predict"] == sent


def test_an_empty_stop_string_is_not_passed_on() -> None:
    assert options.completion_request(options.merged({}, {"stop": ["", "x"]}), 512)["stop"] == ["x"]


json_values = st.sampled_from([None, True, "x", [], ["x"], [1], {}]) | st.integers() | st.floats(-1e300, 1e300)


@given(st.dictionaries(st.sampled_from([*options.DEFAULTS, "num_gpu", "other"]), json_values))
def test_whatever_the_options_the_request_is_valid_json_or_refused(asked: dict[str, Any]) -> None:
    refused = None
    try:
        merged = options.merged({}, asked)
    except ApiError as error:
        refused, merged = error, options.merged({}, {})
    request = options.completion_request(merged, options.context_tokens(merged, 2048))
    assert refused is None or refused.status == 500
    assert 0 < request["n_predict"] <= 20480
    assert json.dumps(request, allow_nan=False)


@pytest.mark.parametrize(
    "url", ["//localhost:1", "//127.0.0.1:1", "//[::1]:1", "//", "http://192.168.0.3", "//x.local"]
)
def test_a_local_host_is_let_through(url: str) -> None:
    assert _is_local(url)


@pytest.mark.parametrize(
    "url", ["//example.com", "https://evil.example:11434", "//8.8.8.8", "//[oops", "//localhost.evil"]
)
def test_a_foreign_host_is_not(url: str) -> None:
    assert not _is_local(url)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "http://a.localhost"]
)
def test_a_page_of_this_machine_may_ask(origin: str) -> None:
    assert _is_of_this_machine(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "file://",
        "http://",
        "http://192.168.1.7",
        "http://nas.local",
        "http://[oops",
        "https://localhost.evil",
    ],
)
def test_a_frame_without_an_origin_and_a_page_of_another_machine_may_not(origin: str) -> None:
    assert not _is_of_this_machine(origin)


async def answered(app: Any, path: str, headers: dict[str, str], *parts: bytes) -> tuple[int, bytes]:
    """Status and body of what a plain ASGI app answers to a request whose body comes in parts."""
    sent: list[Any] = []
    left = list(parts)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Reads its body whole and says how long it was."""
    request = Request(scope, receive)
    await PlainTextResponse(str(len(await request.body())))(scope, receive, send)


async def test_a_body_that_is_too_long_is_not_kept_whatever_its_header_says() -> None:
    app = bounded(reading, 10, "/api/blobs/")
    assert await answered(app, "/api/chat", {}, b"12345", b"67890") == (200, b"10")
    with pytest.raises(ApiError, match="too large") as refused:
        await answered(app, "/api/chat", {"content-length": "1"}, b"12345", b"67890", b"1")
    assert refused.value.status == 413
    assert await answered(app, "/api/blobs/x", {}, b"12345", b"67890", b"1") == (200, b"11")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:11434"}, 200),
        ({}, 200),  # no browser leaves it out
        ({"host": "localhost", "origin": "http://localhost:3000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1", "origin": "null"}, 403),
        ({"host": "127.0.0.1", "origin": "http://192.168.1.7"}, 403),
    ],
)
async def test_what_a_page_elsewhere_has_a_browser_send_is_refused(headers: dict[str, str], status: int) -> None:
    assert (await answered(local_only(reading), "/api/chat", headers))[0] == status
