"""A strict Ollama on the wire, without weights: it answers what a test scripted, and refuses what Ollama refuses.

Error bodies, status codes and the order of status lines are those of a recorded v0.33. It counts one token for each
character of a message and four for its frame, so that a test can say what fits a context. Chats it is not given a
reply for are answered with `fake.answer`. It knows nothing of Go templates: it only sees that braces are closed.

    with FakeOllama().running() as fake:
        fake.add("base:v1")
        fake.reply("Paris.", stalls_after=1)          # then fake.resume(), or close the stream
        fake.inject("/api/copy", *EOF, times=2)       # the next two copies fail
        client = ollama.Client(fake.host)
        …
        assert fake.last("/api/chat").ended == "disconnected"
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

VERSION = "0.33.0-rc2"
CHATML = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"

# For `inject`: status and error text. Status 200 stands for an error line in a stream that has begun.
EOF = (500, "EOF")  # a tag is being replaced
BUSY = (503, "server busy, please try again.  maximum pending requests exceeded")
OUT_OF_MEMORY = (500, "model requires more system memory (5.6 GiB) than is available (2.1 GiB)")
RUNNER_STOPPED = (
    500,
    (
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check ollama server logs for details"
    ),
)
DISK_FULL_LINE = (200, "write <OLLAMA_MODELS>/blobs/sha256-1: no space left on device")
# What is no answer of Ollama's: a proxy's page, half a line, another protocol, nothing at all.
GARBAGE = (b"<html><body>It works!</body></html>", b'{"model": "x", "mess', b"\xff\xfe\x00garbage\n", b"[1, 2]\n", b"")
STREAM_BROKE = "an error was encountered while running the model: unexpected EOF"

_NAME = re.compile(r"[A-Za-z0-9_][\w.\-]*(?:/[A-Za-z0-9_][\w.\-]*)*(?::[A-Za-z0-9_][\w.\-]*)?")
_DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|ms|s|m|h))+")
_NUMBERS = {"temperature": "float32", "top_p": "float32", "num_ctx": "int", "num_predict": "int", "seed": "int"}
_TOKEN = re.compile(r"\s*[^\W\d_a-zA-Z]|\s*\S[a-zA-Z\d']*|\s+")


@dataclass(frozen=True)
class Tag:
    name: str
    blob: str
    template: str
    system: str
    parameters: Mapping[str, Any]
    modified_at: str
    parent: str = ""
    capabilities: tuple[str, ...] = ("completion",)

    @property
    def digest(self) -> str:
        kept = [self.blob, self.template, self.system, dict(self.parameters)]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What one chat or generate answers, token by token."""

    tokens: tuple[str, ...]
    token_seconds: float = 0.0
    prompt_tokens: int | None = None  # None: counted
    stalls_after: int | None = None  # tokens; until `fake.resume()` or the client leaves
    dies_after: int | None = None  # tokens; the runner was killed: an error line and no `done`
    drops_after: int | None = None  # tokens; the connection breaks
    done_reason: str = "stop"


@dataclass
class Exchange:
    """A request as it came, and what became of it."""

    method: str
    path: str
    json: dict[str, Any] | None
    status: int = 0
    ended: str = "open"  # complete, disconnected, died, dropped
    tokens_sent: int = 0
    at_seconds: float = field(default_factory=time.monotonic)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list((self.json or {}).get("messages") or [])

    @property
    def tag(self) -> str:
        return str((self.json or {}).get("model", ""))


@dataclass
class _Fault:
    path: str
    status: int
    error: str
    times: int
    hangs: bool = False
    garbage: bytes | None = None


class _Babble(Exception):
    def __init__(self, garbage: bytes) -> None:
        super().__init__()
        self.garbage = garbage


class _Refused(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class FakeOllama:
    def __init__(self) -> None:
        self.tags: dict[str, Tag] = {}
        self.blobs: dict[str, bytes] = {}
        self.loaded: dict[str, float] = {}  # name → when it was loaded
        self.exchanges: list[Exchange] = []
        self.vram_bytes = 0  # that a file takes on the card, unless it is asked for with num_gpu 0
        self.on_cpu: set[str] = set()  # names of what was loaded so
        self.load_seconds = 0.0
        self.holds_one = False  # memory is full with one file: whatever else is loaded goes
        self.answer: Callable[[Exchange], Reply] = lambda exchange: said(f"You said: {_last_words(exchange)}")
        self._replies: list[Reply] = []
        self._faults: list[_Fault] = []
        self._resumed = threading.Event()
        self._closing = threading.Event()
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # --- the script

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def add(
        self,
        name: str,
        *,
        template: str = CHATML,
        system: str = "",
        parameters: Mapping[str, Any] | None = None,
        sees: bool = False,
    ) -> Tag:
        """A tag that is there already."""
        gguf = b"GGUF" + name.encode()
        blob = f"sha256:{hashlib.sha256(gguf).hexdigest()}"
        self.blobs[blob] = gguf
        told = parameters or {"stop": ["<|im_end|>"]}
        capabilities = ("completion", "vision") if sees else ("completion",)
        return self._keep(Tag(full(name), blob, template, system, told, _now(), capabilities=capabilities))

    def reply(self, text: str = "", *, tokens: list[str] | None = None, **how: Any) -> None:
        """What the next chat that has no reply yet is answered; further arguments are `Reply`'s."""
        self._replies.append(said(text, **how) if tokens is None else Reply(tuple(tokens), **how))

    def resume(self) -> None:
        """Let every stalled reply and hanging request go on, now and from now on."""
        self._resumed.set()

    def inject(self, path: str, status: int, error: str, *, times: int = 1) -> None:
        """The next `times` requests to `path` fail so."""
        self._faults.append(_Fault(path, status, error, times))

    def hang(self, path: str, *, times: int = 1) -> None:
        """The next `times` requests to `path` wait for `resume()`."""
        self._faults.append(_Fault(path, 0, "", times, hangs=True))

    def babble(self, path: str, garbage: bytes, *, times: int = 1) -> None:
        """The next `times` requests to `path` are answered with that, under status 200."""
        self._faults.append(_Fault(path, 200, "", times, garbage=garbage))

    def forget_faults(self) -> None:
        """What was injected and has not struck yet never will."""
        self._faults.clear()

    def of(self, path: str) -> list[Exchange]:
        return [each for each in self.exchanges if each.path == path]

    def last(self, path: str) -> Exchange:
        return self.of(path)[-1]

    def wait_for(self, predicate: Callable[[FakeOllama], Any], timeout_seconds: float = 10) -> None:
        """Until it holds; from async tests through `asyncio.to_thread`."""
        until = time.monotonic() + timeout_seconds
        while not predicate(self):
            assert time.monotonic() < until, f"waited in vain; requests so far: {self.exchanges}"
            time.sleep(0.005)

    def reset(self) -> None:
        """Forget everything but the port: for a fake that several tests share."""
        for kept in (self.tags, self.blobs, self.loaded, self.on_cpu, self.exchanges, self._replies, self._faults):
            kept.clear()
        self.load_seconds, self.vram_bytes, self.holds_one = 0.0, 0, False
        self._resumed.clear()

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeOllama]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Tags and blobs outlive `stop` and `start`, and the port stays the same."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer, by Nagle's rule
        listener.bind(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._closing.clear()
        options: dict[str, Any] = {"log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 1}
        self._server = uvicorn.Server(uvicorn.Config(self._app(), **options))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.002)

    def stop(self) -> None:
        """As if killed: nothing is loaded any more, open streams break."""
        assert self._server is not None
        assert self._thread is not None
        self._closing.set()
        self._server.should_exit = True
        self._thread.join()
        self.loaded.clear()

    # --- the wire

    def _app(self) -> Starlette:
        routes: dict[str, tuple[str, Callable[[Exchange, Request], Any]]] = {
            "/api/version": ("GET", self._version),
            "/api/tags": ("GET", self._tags),
            "/api/ps": ("GET", self._ps),
            "/api/show": ("POST", self._show),
            "/api/create": ("POST", self._create),
            "/api/pull": ("POST", self._pull),
            "/api/copy": ("POST", self._copy),
            "/api/delete": ("DELETE", self._delete),
            "/api/generate": ("POST", self._generate),
            "/api/chat": ("POST", self._chat),
        }
        served = [Route(path, self._endpoint(call), methods=[method]) for path, (method, call) in routes.items()]
        root = Route("/", lambda _: PlainTextResponse("Ollama is running"), methods=["GET"])
        blob = Route("/api/blobs/{digest}", self._endpoint(self._blob), methods=["POST", "HEAD"])
        return Starlette(routes=[root, blob, *served])

    def _endpoint(self, call: Callable[[Exchange, Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            exchange = Exchange(request.method, request.url.path, None)
            self.exchanges.append(exchange)
            try:
                if request.method != "GET" and "blobs" not in exchange.path:
                    exchange.json = _parsed(await request.body())
                await self._fail_if_told(exchange)
                response: Response = await call(exchange, request)
            except _Refused as refused:
                response = JSONResponse({"error": refused.error}, refused.status)
            except _Babble as babble:
                response = Response(babble.garbage, media_type="application/x-ndjson")
            exchange.status = response.status_code
            if not isinstance(response, StreamingResponse):
                exchange.ended = "complete"
            return response

        return answer

    async def _fail_if_told(self, exchange: Exchange) -> None:
        fault = next((each for each in self._faults if each.path == exchange.path and each.times > 0), None)
        if fault is not None and fault.garbage is not None:
            fault.times -= 1
            raise _Babble(fault.garbage)
        if fault is None or (fault.status == 200 and exchange.path in {"/api/chat", "/api/create", "/api/pull"}):
            return
        fault.times -= 1
        if fault.hangs:
            await self._pause()
        else:
            raise _Refused(fault.status, fault.error)

    def _error_line(self, exchange: Exchange) -> dict[str, Any] | None:
        for fault in self._faults:
            if fault.path == exchange.path and fault.status == 200 and fault.times > 0 and fault.garbage is None:
                fault.times -= 1
                return {"error": fault.error}
        return None

    async def _pause(self) -> None:
        while not (self._resumed.is_set() or self._closing.is_set()):
            await asyncio.sleep(0.005)

    # --- the library

    async def _version(self, _exchange: Exchange, _request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def _tags(self, _exchange: Exchange, _request: Request) -> Response:
        newest = sorted(self.tags.values(), key=lambda tag: tag.modified_at, reverse=True)
        lengths = {"context_length": 8192, "embedding_length": 576}
        return JSONResponse({"models": [{**self._row(tag, lengths), "capabilities": ["completion"]} for tag in newest]})

    async def _ps(self, _exchange: Exchange, _request: Request) -> Response:
        rows = [self._row(self.tags[name]) for name in self.loaded if name in self.tags]
        expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        more = {"expires_at": expires, "context_length": 4096}
        shown = [{key: row[key] for key in row if key != "modified_at"} | more for row in rows]
        vram = [{"size_vram": 0 if row["name"] in self.on_cpu else self.vram_bytes} for row in rows]
        return JSONResponse({"models": [row | each for row, each in zip(shown, vram, strict=True)]})

    def _row(self, tag: Tag, more: Mapping[str, int] | None = None) -> dict[str, Any]:
        return {
            "name": tag.name,
            "model": tag.name,
            "modified_at": tag.modified_at,
            "size": len(self.blobs[tag.blob]),
            "digest": tag.digest,
            "details": _details(tag) | dict(more or {}),
        }

    async def _blob(self, exchange: Exchange, request: Request) -> Response:
        digest = request.path_params["digest"]
        if not re.fullmatch(r"sha256[:-][0-9a-fA-F]{64}", digest):
            raise _Refused(400, "invalid digest format")
        if exchange.method == "HEAD":
            return Response(status_code=200 if digest in self.blobs else 404)
        await self._fail_if_told(Exchange("POST", "/api/blobs", None))
        body = await request.body()
        got = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if got != digest:
            raise _Refused(400, f'digest mismatch, expected "{digest}", got "{got}"')
        self.blobs[digest] = body
        return Response(status_code=201)

    async def _show(self, exchange: Exchange, _request: Request) -> Response:
        tag = self._tag(exchange)
        lines = [
            f"{name:<30} {json.dumps(value, ensure_ascii=False)}"
            for name, each in sorted(tag.parameters.items())
            for value in _list(each)
        ]
        modelfile = f'# Modelfile generated by "ollama show"\nFROM <OLLAMA_MODELS>/blobs/{tag.blob.replace(":", "-")}\n'
        body = {
            "modelfile": modelfile,
            "parameters": "\n".join(lines),
            "template": tag.template,
            "system": tag.system,
            "details": _details(tag),
            "model_info": {"general.architecture": "llama", "general.file_type": 3, "llama.context_length": 8192},
            "capabilities": list(tag.capabilities),
            "modified_at": tag.modified_at,
        }
        return JSONResponse({key: value for key, value in body.items() if value != ""})

    async def _create(self, exchange: Exchange, _request: Request) -> Response:
        body = exchange.json or {}
        name = str(body.get("model", ""))
        if not _NAME.fullmatch(name):
            raise _Refused(400, "invalid model name")
        lines, error = self._create_lines(name, body), self._error_line(exchange)
        if body.get("stream") is False:
            *_, last = [*lines, *([error] if error else [])]
            if "error" in last:
                raise _Refused(int(last.get("code", 500)), last["error"])
            return JSONResponse(last)
        if error:
            lines = [*lines[:3], error]
        exchange.ended = "complete"
        shown = [{"error": line["error"]} if "error" in line else line for line in lines]
        return StreamingResponse(iter([_ndjson(line) for line in shown]), media_type="application/x-ndjson")

    def _create_lines(self, name: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        parent = self.tags.get(full(str(body.get("from") or "")))
        if body.get("files"):
            blob = str(next(iter(body["files"].values())))
            begun = [{"status": "parsing GGUF"}]
            if blob not in self.blobs:
                missing = f"open <OLLAMA_MODELS>/blobs/{blob.replace(':', '-')}: no such file or directory"
                return [*begun, {"error": missing}]
            if not self.blobs[blob].startswith(b"GGUF"):
                return [*begun, {"error": "supplied file was not in GGUF format", "code": 400}]
            begun.append({"status": "verifying conversion"})
        elif body.get("from") and parent:
            blob, begun = parent.blob, [{"status": f"using existing layer {parent.blob}"}]
        elif body.get("from"):
            registry = f'"https://registry.ollama.ai/v2/library/{body["from"]}/manifests/latest"'
            lookup = "dial tcp: lookup registry.ollama.ai on <DNS>: no such host"
            return [
                {"status": "pulling manifest"},
                {"error": f"pull model manifest: Get {registry}: {lookup}"},
            ]
        else:
            return [{"error": "neither 'from' or 'files' was specified", "code": 400}]
        return self._written(name, blob, begun, parent, body)

    def _written(
        self, name: str, blob: str, begun: list[dict[str, Any]], parent: Tag | None, body: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        template = str(body.get("template") or (parent.template if parent else CHATML))
        if template.count("{{") != template.count("}}"):
            return [*begun, {"error": "template error: template: :1: unclosed action", "code": 400}]
        system = str(body.get("system") or (parent.system if parent else ""))
        parameters = dict(parent.parameters if parent else {}) | dict(body.get("parameters") or {})
        tag = Tag(full(name), blob, template, system, parameters, _now(), parent.name if parent else "")
        layers = [blob, template, system, json.dumps(parameters)]
        digests = [blob, *(f"sha256:{hashlib.sha256(each.encode()).hexdigest()}" for each in layers[1:])]
        self._keep(tag)
        made = [{"status": f"creating new layer {digest}"} for digest in digests]
        return [*begun, *made, {"status": "writing manifest"}, {"status": "success"}]

    async def _pull(self, exchange: Exchange, _request: Request) -> Response:
        """Any tag can be had from its registry."""
        name = exchange.tag
        if not _NAME.fullmatch(name):
            raise _Refused(400, "invalid model name")
        begun: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if line := self._error_line(exchange):
            lines = [*begun, line]
        else:
            tag = self.add(name)
            size = len(self.blobs[tag.blob])
            file = {"status": f"pulling {tag.blob[7:19]}", "digest": tag.blob, "total": size}
            ended = [{"status": each} for each in ("verifying sha256 digest", "writing manifest", "success")]
            lines = [*begun, file, file | {"completed": size // 2}, file | {"completed": size}, *ended]
        exchange.ended = "complete"
        return StreamingResponse(iter([_ndjson(line) for line in lines]), media_type="application/x-ndjson")

    async def _copy(self, exchange: Exchange, _request: Request) -> Response:
        body = exchange.json or {}
        source, target = str(body.get("source", "")), str(body.get("destination", ""))
        if not (_NAME.fullmatch(source) and _NAME.fullmatch(target)):
            raise _Refused(400, f'destination "{target}" is invalid')
        if full(source) not in self.tags:
            raise _Refused(404, f'model "{source}" not found')
        known = self.tags[full(source)]
        self._keep(Tag(full(target), known.blob, known.template, known.system, known.parameters, _now(), known.parent))
        return Response()

    async def _delete(self, exchange: Exchange, _request: Request) -> Response:
        tag = self._tag(exchange)
        del self.tags[tag.name]
        self.loaded.pop(tag.name, None)
        return Response()

    def _keep(self, tag: Tag) -> Tag:
        self.tags[tag.name] = tag
        return tag

    def _tag(self, exchange: Exchange) -> Tag:
        if not exchange.tag:
            raise _Refused(400, "model is required")
        if full(exchange.tag) not in self.tags:
            raise _Refused(404, f"model '{exchange.tag}' not found")
        return self.tags[full(exchange.tag)]

    # --- answers

    async def _generate(self, exchange: Exchange, _request: Request) -> Response:
        tag = await self._load(exchange)
        prompt = str((exchange.json or {}).get("prompt") or "")
        if not prompt:
            return self._only_loaded(exchange, {"response": ""})
        messages = [{"role": "user", "content": prompt}]
        return await self._answered(exchange, tag, messages, lambda text: {"response": text})

    async def _chat(self, exchange: Exchange, _request: Request) -> Response:
        tag = await self._load(exchange)
        if not exchange.messages:
            return self._only_loaded(exchange, {"message": {"role": "assistant", "content": ""}})
        _check_images(exchange.messages, tag)
        return await self._answered(
            exchange, tag, exchange.messages, lambda text: {"message": {"role": "assistant", "content": text}}
        )

    async def _load(self, exchange: Exchange) -> Tag:
        tag, body = self._tag(exchange), exchange.json or {}
        keep_alive = body.get("keep_alive")
        if isinstance(keep_alive, str) and not _DURATION.fullmatch(keep_alive):
            raise _Refused(400, f'time: invalid duration "{keep_alive}"')
        for name, value in (body.get("options") or {}).items():
            if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise _Refused(500, f'option "{name}" must be of type {_NUMBERS[name]}')
        layers = (body.get("options") or {}).get("num_gpu")
        if tag.name not in self.loaded or (layers == 0) > (tag.name in self.on_cpu):
            # As Ollama: who asks for no number of layers takes what is loaded, wherever it is.
            await asyncio.sleep(self.load_seconds)
            self.on_cpu = self.on_cpu - {tag.name} | ({tag.name} if layers == 0 else set())
            if self.holds_one:
                self.loaded.clear()
        self.loaded[tag.name] = time.monotonic()
        return tag

    def _only_loaded(self, exchange: Exchange, empty: dict[str, Any]) -> Response:
        unloads = (exchange.json or {}).get("keep_alive") in (0, "0", "0s")
        if unloads:
            self.loaded.pop(full(exchange.tag), None)
        reason = {"done": True, "done_reason": "unload" if unloads else "load"}
        return JSONResponse({"model": exchange.tag, "created_at": _now(), **empty, **reason})

    async def _answered(
        self, exchange: Exchange, tag: Tag, messages: list[dict[str, Any]], shape: Callable[[str], dict[str, Any]]
    ) -> Response:
        options = dict(tag.parameters) | dict((exchange.json or {}).get("options") or {})
        counted = count_tokens(messages, tag.system)
        self._check_context(exchange, counted, int(options.get("num_ctx", 4096)))
        scripted = self._replies.pop(0) if self._replies else self.answer(exchange)
        pieces = self._pieces(exchange, scripted, int(options.get("num_predict", -1)), counted, shape)
        if (exchange.json or {}).get("stream") is not False:
            return StreamingResponse(map_ndjson(pieces), media_type="application/x-ndjson")
        lines = [line async for line in pieces]
        if "error" in lines[-1]:
            raise _Refused(500, lines[-1]["error"])
        whole = "".join(_content(line) for line in lines)
        return JSONResponse(lines[-1] | shape(whole))

    def _check_context(self, exchange: Exchange, counted: int, num_ctx: int) -> None:
        if counted < num_ctx or (exchange.json or {}).get("truncate") is not False:
            return
        message = f"request ({counted} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
        inner = {"code": 400, "message": message, "type": "exceed_context_size_error"}
        raise _Refused(400, json.dumps({"error": {**inner, "n_prompt_tokens": counted, "n_ctx": num_ctx}}))

    async def _pieces(
        self, exchange: Exchange, reply: Reply, num_predict: int, counted: int, shape: Callable[[str], dict[str, Any]]
    ) -> AsyncIterator[dict[str, Any]]:
        head = {"model": exchange.tag}
        limit = len(reply.tokens) if num_predict < 1 else num_predict
        try:
            for number, token in enumerate((*reply.tokens[:limit], None)):
                if reply.stalls_after == number:
                    await self._pause()
                if reply.drops_after == number or self._closing.is_set():
                    exchange.ended = "dropped"
                    raise ConnectionAbortedError("the script says so")
                if reply.dies_after == number:
                    exchange.ended = "died"
                    yield {"error": STREAM_BROKE}
                    return
                if token is None:
                    break
                await asyncio.sleep(reply.token_seconds)
                exchange.tokens_sent += 1
                yield {**head, "created_at": _now(), **shape(token), "done": False}
        except (asyncio.CancelledError, GeneratorExit):
            exchange.ended = "disconnected"
            raise
        if line := self._error_line(exchange):
            exchange.ended = "died"
            yield line
            return
        exchange.ended = "complete"
        reason = "length" if limit < len(reply.tokens) else reply.done_reason
        yield {**head, "created_at": _now(), **shape(""), "done": True, "done_reason": reason} | {
            "total_duration": 63_445_770,
            "load_duration": 934_252,
            "prompt_eval_count": counted if reply.prompt_tokens is None else reply.prompt_tokens,
            "prompt_eval_duration": 7_980_000,
            "eval_count": exchange.tokens_sent,
            "eval_duration": 51_919_000,
        }


def said(text: str, **how: Any) -> Reply:
    """A reply of that text, cut into words, or characters where it is Chinese."""
    return Reply(tuple(_TOKEN.findall(text)), **how)


def count_tokens(messages: list[dict[str, Any]], system: str = "") -> int:
    """As the fake counts: a tag's own system text counts where the messages bring none."""
    texts = [str(each.get("content", "")) for each in messages]
    if system and not any(each.get("role") == "system" for each in messages):
        texts.append(system)
    return sum(len(text) + 4 for text in texts)


def _check_images(messages: list[dict[str, Any]], tag: Tag) -> None:
    """Base64, and only where the tag sees."""
    for image in (image for each in messages for image in each.get("images") or []):
        try:
            base64.b64decode(image, validate=True)
        except ValueError:
            raise _Refused(400, "illegal base64 data at input byte 0") from None
        if "vision" not in tag.capabilities:
            raise _Refused(500, "this model is missing data required for image input")


def full(name: str) -> str:
    """A name without a tag means :latest."""
    return name if ":" in name.rpartition("/")[2] or not name else f"{name}:latest"


async def map_ndjson(lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(lines):  # type: ignore[type-var]
        async for line in lines:
            yield _ndjson(line)


def _ndjson(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _parsed(body: bytes) -> dict[str, Any]:
    if not body:
        raise _Refused(400, "missing request body")
    try:
        return dict(json.loads(body))
    except ValueError as error:
        raise _Refused(400, "unexpected EOF") from error


def _details(tag: Tag) -> dict[str, Any]:
    kept = {"parent_model": tag.parent, "format": "gguf", "family": "llama", "families": ["llama"]}
    return {**kept, "parameter_size": "134.52M", "quantization_level": "Q4_1"}


def _content(line: Mapping[str, Any]) -> str:
    return str(line["message"]["content"] if "message" in line else line["response"])


def _last_words(exchange: Exchange) -> str:
    return str(exchange.messages[-1]["content"] if exchange.messages else (exchange.json or {}).get("prompt", ""))


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _now() -> str:
    return datetime.now(UTC).isoformat()
