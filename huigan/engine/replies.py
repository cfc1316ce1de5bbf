"""How the engine sends what it has to say: whole, line by line, as steps of long work, or as a refusal."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from huigan.engine import bodies
from huigan.engine.errors import ApiError
from huigan.engine.generation import Line

log = logging.getLogger(__name__)

JSON, JSON_UTF8, NDJSON = "application/json", "application/json; charset=utf-8", "application/x-ndjson"


class Lines(StreamingResponse):
    """Newline-delimited JSON; an error after the first line becomes the last line. Closes its source in any case."""

    def __init__(self, first: Line, rest: AsyncGenerator[Line]) -> None:
        super().__init__(self._encoded(first, rest), media_type=NDJSON)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):  # a client may be gone before the first line is sent
            await super().__call__(scope, receive, send)

    @staticmethod
    async def _encoded(first: Line, rest: AsyncGenerator[Line]) -> AsyncIterator[bytes]:
        yield encode(first) + b"\n"
        try:
            async for line in rest:
                yield encode(line) + b"\n"
        except ApiError as error:
            log.warning("an answer broke off: %s", error.message)
            yield encode({"error": error.message}) + b"\n"


def progress(body: bodies.Body, steps: list[str]) -> Response:
    if not body.get("stream", True):
        return whole({"status": steps[-1]}, content_type=JSON)
    return Response(b"".join(encode({"status": step}) + b"\n" for step in steps), media_type=NDJSON)


def progress_failed(body: bodies.Body, steps: list[str], error: ApiError) -> Response:
    """Once a step was streamed, an error is the last line of a 200, as with Ollama."""
    if not body.get("stream", True) or not steps:
        return whole({"error": error.message}, error.status, JSON if steps else JSON_UTF8)
    lines = [*({"status": step} for step in steps), {"error": error.message}]
    return Response(b"".join(encode(line) + b"\n" for line in lines), media_type=NDJSON)


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def whole(value: Any, status: int = 200, content_type: str = JSON_UTF8) -> Response:
    return Response(encode(value), status, headers={"content-type": content_type})


def as_api_error(error: ApiError | OSError) -> ApiError:
    if isinstance(error, ApiError):
        return error
    where = f"open {error.filename}: " if error.filename else ""
    return ApiError(500, f"{where}{(error.strerror or str(error)).lower()}")


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return whole({"error": error.message}, error.status)


async def os_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    log.error("%s %s failed: %s", request.method, request.url.path, error)
    return await refused(request, as_api_error(error))


async def no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "404 page not found", 405: "405 method not allowed"}
    return PlainTextResponse(texts.get(error.status_code, error.detail), error.status_code)
