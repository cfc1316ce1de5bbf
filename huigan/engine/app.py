"""Ollama's HTTP API over a library and its runners. Decides status codes and shapes; the work is done elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from huigan.engine import bodies, description, names, options, replies, shapes
from huigan.engine.bodies import ANY, BOOL, INT, LIST, MESSAGES, OBJECT, STRING, STRINGS, TOKENS
from huigan.engine.description import Tag
from huigan.engine.errors import ApiError, missing_tag
from huigan.engine.generation import Ask, Generation, Line, stamp
from huigan.engine.library import Library, Recipe
from huigan.engine.prompts import Message
from huigan.engine.runners import Loaded, Runners

log = logging.getLogger(__name__)

# The version whose answers were recorded and are imitated; clients choose features by it.
OLLAMA_VERSION = "0.33.0-rc2"
_WRITE_BYTES = 1 << 20

_ANSWER = {"model": STRING, "stream": BOOL, "format": ANY, "keep_alive": ANY, "options": OBJECT, "think": ANY} | {
    "logprobs": BOOL,
    "top_logprobs": INT,
    "truncate": BOOL,
    "shift": BOOL,
    "_debug_render_only": BOOL,
}
_CHAT = {**_ANSWER, "messages": MESSAGES, "tools": LIST}
_GENERATE = {**_ANSWER, "prompt": STRING, "system": STRING, "template": STRING, "raw": BOOL, "suffix": STRING} | {
    "context": TOKENS,
    "images": LIST,
}
_CREATE = {"model": STRING, "name": STRING, "from": STRING, "files": STRINGS, "template": STRING, "system": STRING} | {
    "parameters": OBJECT,
    "messages": MESSAGES,
    "license": ANY,
    "stream": BOOL,
    "quantize": STRING,
    "quantization": STRING,
    "adapters": STRINGS,
}
_NAMED = {"model": STRING, "name": STRING}
_SHOW = {**_NAMED, "verbose": BOOL, "system": STRING}
_COPY = {"source": STRING, "destination": STRING}
_PULL = {**_NAMED, "stream": BOOL}


def build(library: Library, runners: Runners, threads: int) -> Starlette:
    """The app; its runners end with it."""
    api = _Api(library, runners, Generation(runners, threads))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await runners.close()

    routes = [
        Route("/", api.root, methods=["GET"]),
        Route("/api/version", api.version, methods=["GET"]),
        Route("/api/tags", api.tags, methods=["GET"]),
        Route("/api/ps", api.ps, methods=["GET"]),
        Route("/v1/models", api.openai_models, methods=["GET"]),
        Route("/api/show", api.show, methods=["POST"]),
        Route("/api/blobs/{digest}", api.head_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", api.put_blob, methods=["POST"]),
        Route("/api/create", api.create, methods=["POST"]),
        Route("/api/pull", api.pull, methods=["POST"]),
        Route("/api/copy", api.copy, methods=["POST"]),
        Route("/api/delete", api.delete, methods=["DELETE"]),
        Route("/api/generate", api.generate, methods=["POST"]),
        Route("/api/chat", api.chat, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        ApiError: replies.refused,
        HTTPException: replies.no_route,
        OSError: replies.os_failed,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


class _Api:
    def __init__(self, library: Library, runners: Runners, generation: Generation) -> None:
        self._library, self._runners, self._generation = library, runners, generation

    async def root(self, _: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(self, _: Request) -> Response:
        return replies.whole({"version": OLLAMA_VERSION})

    async def tags(self, _: Request) -> Response:
        tags = await asyncio.to_thread(self._library.tags)
        return replies.whole({"models": [await asyncio.to_thread(shapes.listed, tag) for tag in tags]})

    async def openai_models(self, _: Request) -> Response:
        tags = await asyncio.to_thread(self._library.tags)
        listed = [
            {"id": str(tag.name), "object": "model", "created": int(tag.modified_at.timestamp()), "owned_by": "library"}
            for tag in tags
        ]
        return replies.whole({"object": "list", "data": listed}, content_type=replies.JSON)

    async def ps(self, _: Request) -> Response:
        return replies.whole({"models": await asyncio.to_thread(self._running, self._runners.loaded())})

    def _running(self, runners: list[Loaded]) -> list[Line]:
        lines = []
        for loaded in runners:
            name = names.parse(loaded.tag)
            assert name is not None
            try:
                tag = self._library.tag(name)
            except FileNotFoundError:  # deleted while in use
                continue
            about = description.read(tag.gguf)
            context = loaded.options.context_tokens
            cache_bytes = about.cache_bytes_per_token * context * loaded.options.parallel
            lines.append(
                {
                    "name": loaded.tag,
                    "model": loaded.tag,
                    "size": tag.gguf.stat().st_size + cache_bytes,
                    "digest": tag.digest,
                    "details": dict(tag.details),
                    "expires_at": stamp(loaded.expires_at),
                    "size_vram": 0,
                    "context_length": context,
                }
            )
        return lines

    async def show(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "ShowRequest", _SHOW)
        asked = body.get("model") or body.get("name") or ""
        if not asked:
            raise ApiError(400, "model is required")
        tag = await self._tag(asked)
        return replies.whole(await asyncio.to_thread(shapes.shown, tag, body))

    async def head_blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if not self._library.blob(digest).exists():
            raise ApiError(404, f'blob "{digest}" not found')
        return Response()

    async def put_blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if self._library.blob(digest).exists():
            return Response(status_code=200)
        with self._library.incoming() as file:
            try:
                got = await _received(request, file)
                if f"sha256:{got}" != digest:
                    raise ApiError(400, f'digest mismatch, expected "{digest}", got "sha256:{got}"')
                await asyncio.to_thread(self._library.keep, file, got)
            finally:
                self._library.discard(file)
        return Response(status_code=201)

    async def create(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "CreateRequest", _CREATE)
        steps: list[str] = []
        try:
            await asyncio.to_thread(lambda: self._library.create(self._recipe(body), steps.append))
        except (ApiError, OSError) as error:
            return replies.progress_failed(body, steps, replies.as_api_error(error))
        return replies.progress(body, steps)

    async def pull(self, request: Request) -> Response:
        """Nothing is ever downloaded: a tag that exists is there already, and another cannot be had."""
        body = bodies.decode(await request.body(), "PullRequest", _PULL)
        name = names.parse(body.get("model") or body.get("name") or "")
        if name is None:
            raise ApiError(400, "invalid model name")
        existing = await asyncio.to_thread(self._library.existing, name)
        try:
            await asyncio.to_thread(self._library.tag, existing)
        except FileNotFoundError:
            refusal = ApiError(500, f"pull model manifest: this engine downloads nothing: create {name} from a file")
            return replies.progress_failed(body, ["pulling manifest"], refusal)
        return replies.progress(body, ["pulling manifest", "success"])

    async def copy(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "CopyRequest", _COPY)
        ends = []
        for end in ("source", "destination"):
            name = names.parse(body.get(end, ""))
            if name is None:
                raise ApiError(400, f'{end} "{body.get(end, "")}" is invalid')
            ends.append(await asyncio.to_thread(self._library.existing, name))
        try:
            await asyncio.to_thread(self._library.copy, *ends)
        except FileNotFoundError:
            raise ApiError(404, f'model "{body["source"]}" not found') from None
        return Response()

    async def delete(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "DeleteRequest", _NAMED)
        asked = body.get("model") or body.get("name") or ""
        name = names.parse(asked)
        if name is None:
            raise ApiError(400, f'name "{asked}" is invalid')
        try:
            await asyncio.to_thread(lambda: self._library.delete(self._library.existing(name)))
        except FileNotFoundError:
            raise missing_tag(asked) from None
        return Response()

    async def generate(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "GenerateRequest", _GENERATE)
        tag, keep_alive_seconds = await self._asked(body, unnamed=ApiError(404, "model '' not found"))
        prompt = body.get("prompt", "")
        if not prompt and keep_alive_seconds == 0:
            return await self._unloaded(body, tag, shapes.response)
        _require_text(body, body.get("images"))
        if body.get("suffix"):
            raise ApiError(400, f"{tag.name.full} does not support insert")
        if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
            raise ApiError(400, "raw mode does not support template, system, or context")
        ask = partial(_ask, body, tag, keep_alive_seconds)
        if not prompt:
            return await self._preloaded(body, ask(), shapes.response, "generate")
        if body.get("raw"):
            return await self._answer(body, ask(raw=prompt), shapes.response, "generate")
        context = bodies.tokens(body.get("context", []))
        said = _with_system(
            tag, body.get("system") or tag.system, [Message("user", prompt)], embed="context" not in body
        )
        wanted = ask(messages=said, context=tuple(context), template=body.get("template", ""), with_context=True)
        return await self._answer(body, wanted, shapes.response, "generate")

    async def chat(self, request: Request) -> Response:
        body = bodies.decode(await request.body(), "ChatRequest", _CHAT)
        said = [Message(*each) for each in bodies.messages(body.get("messages", []), "ChatRequest.messages")]
        tag, keep_alive_seconds = await self._asked(body, unnamed=ApiError(400, "model is required"))
        if not said and keep_alive_seconds == 0:
            return await self._unloaded(body, tag, shapes.message)
        _require_text(body, None)
        if body.get("tools"):
            raise ApiError(400, f"{tag.name.full} does not support tools")
        ask = partial(_ask, body, tag, keep_alive_seconds)
        if not said:
            return await self._preloaded(body, ask(), shapes.message, "chat")
        system = tag.system if said[0].role != "system" else ""
        return await self._answer(body, ask(messages=_with_system(tag, system, said)), shapes.message, "chat")

    async def _asked(self, body: bodies.Body, unnamed: ApiError) -> tuple[Tag, float | None]:
        keep_alive_seconds = options.keep_alive_seconds(body.get("keep_alive"))
        if not 0 <= body.get("top_logprobs", 0) <= 20:
            raise ApiError(400, "top_logprobs must be between 0 and 20")
        if not body.get("model"):
            raise unnamed
        return await self._tag(body["model"]), keep_alive_seconds

    async def _tag(self, asked: str) -> Tag:
        name = names.parse(asked)
        if name is None:
            raise ApiError(400, "invalid model name")
        try:
            return await asyncio.to_thread(lambda: self._library.tag(self._library.existing(name)))
        except FileNotFoundError:
            raise missing_tag(asked) from None

    async def _unloaded(self, body: bodies.Body, tag: Tag, shape: Callable[[str], Line]) -> Response:
        await self._runners.unload(tag.gguf)
        return replies.whole(shapes.empty(body, shape, "unload"))

    async def _preloaded(self, body: bodies.Body, ask: Ask, shape: Callable[[str], Line], verb: str) -> Response:
        _require_file(ask, verb)
        await self._generation.preload(ask)
        return replies.whole(shapes.empty(body, shape, "load"))

    async def _answer(self, body: bodies.Body, ask: Ask, shape: Callable[[str], Line], verb: str) -> Response:
        _require_file(ask, verb)
        lines = self._generation.lines(ask, shape)
        if body.get("stream", True) and not ask.render_only:
            first = await anext(lines)  # what fails before it still gets a status of its own
            return replies.Lines(first, lines)
        async with aclosing(lines):
            return replies.whole(shapes.merged([line async for line in lines], shape))

    def _recipe(self, body: bodies.Body) -> Recipe:
        """What a create asks for. Raises ApiError."""
        name = names.parse(body.get("model") or body.get("name") or "")
        if name is None:
            raise ApiError(400, "invalid model name")
        if body.get("adapters"):
            raise ApiError(400, "LoRA adapters are not supported: merge the adapter into its base and upload one GGUF")
        if body.get("quantize") or body.get("quantization"):
            raise ApiError(400, "quantize is not supported here: quantise the GGUF before uploading it")
        return Recipe(
            name=self._library.existing(name),
            **self._base(body),
            template=body.get("template", ""),
            system=body.get("system", ""),
            parameters=body.get("parameters"),
            messages=tuple(bodies.messages(body.get("messages", []), "CreateRequest.messages")),
            licences=_licences(body.get("license")),
        )

    def _base(self, body: bodies.Body) -> dict[str, Any]:
        if body.get("from"):
            base = names.parse(body["from"])
            if base is None:
                raise ApiError(400, "invalid model name")
            return {"base": self._library.existing(base)}
        if "files" not in body:
            raise ApiError(400, "neither 'from' or 'files' was specified")
        files = bodies.strings(body["files"], "CreateRequest.files")
        if not files:
            raise ApiError(400, "no files provided to convert")
        if len(files) > 1 or any(name.endswith(".safetensors") for name in files):
            raise ApiError(400, "supplied file was not in GGUF format: give exactly one GGUF")
        return {"gguf_digest": next(iter(files.values()))}


def _licences(value: Any) -> tuple[str, ...]:
    licences = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(licence, str) for licence in licences):
        raise ApiError(400, "invalid license: give a string or an array of strings")
    return tuple(licences)


def _ask(body: bodies.Body, tag: Tag, keep_alive_seconds: float | None, **fields: Any) -> Ask:
    return Ask(
        model=body["model"],
        tag=tag,
        options=body.get("options", {}),
        keep_alive_seconds=keep_alive_seconds,
        format=body.get("format"),
        logprobs=body.get("logprobs", False),
        top_logprobs=body.get("top_logprobs", 0),
        truncate=body.get("truncate", True),
        shift=body.get("shift", True),
        render_only=body.get("_debug_render_only", False),
        **fields,
    )


def _with_system(tag: Tag, system: str, said: list[Message], *, embed: bool = True) -> tuple[Message, ...]:
    """A system message, the tag's own messages, then what was said now."""
    first = [Message("system", system)] if system else []
    return (*first, *(Message(*each) for each in tag.messages if embed), *said)


def _require_text(body: bodies.Body, images: Any) -> None:
    if images:
        raise ApiError(400, "this engine reads text only: send the prompt without images")
    if body.get("think"):
        raise ApiError(400, f'"{body["model"]}" does not support thinking')


def _require_file(ask: Ask, verb: str) -> None:
    if not ask.tag.gguf.exists():
        raise ApiError(400, f'"{ask.model}" does not support {verb}')


async def _received(request: Request, file: Any) -> str:
    """Write a body to a file as it comes; returns its SHA-256 in hexadecimal."""
    digest, waiting = hashlib.sha256(), bytearray()

    def flush() -> None:
        digest.update(waiting)
        file.write(waiting)
        waiting.clear()

    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await asyncio.to_thread(flush)
    await asyncio.to_thread(flush)
    return digest.hexdigest()
