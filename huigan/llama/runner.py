"""One GGUF in one child process: start it, complete prompts on it, stop it.

A crash of llama.cpp ends the child and nothing else. Knows no tags, no templates and no chat: prompts are text or
token ids, answers are the events of llama.cpp's `/completion`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

log = logging.getLogger(__name__)

_CHILD = Path(__file__).with_name("child.py")
_MAX_LOG_LINE_BYTES = 1 << 20
_LAST_WORDS_SECONDS = 0.5
_LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] +")


class RunnerFailed(Exception):
    """The child could not load its file, or died."""


class RequestRefused(Exception):
    """llama.cpp would not take the request; `body` is its own JSON."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status, self.body = status, body


@dataclass(frozen=True)
class LoadOptions:
    """What is fixed once a file is loaded. llama.cpp rounds `context_tokens` up to a multiple of 256."""

    gguf: Path
    context_tokens: int
    parallel: int
    batch_tokens: int
    threads: int
    shift: bool


class Runner:
    """A child that has loaded its file. Make one with `start`."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient, errors: _Errors) -> None:
        self._process, self._client, self._errors = process, client, errors
        self._begin_text = ""

    @classmethod
    async def start(cls, options: LoadOptions) -> Runner:
        """Load a file. Raises RunnerFailed with llama.cpp's last words."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(_CHILD)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # else two busy processes starve each other
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
            limit=_MAX_LOG_LINE_BYTES,
        )
        assert process.stderr is not None
        errors = _Errors(process.stderr)
        key = secrets.token_hex(16)
        try:
            address = await _load(process, options, key)
            if not address:
                raise RunnerFailed(f"llama runner process has terminated: {await errors.first()}")
            client = httpx.AsyncClient(
                base_url=address,
                headers={"Authorization": f"Bearer {key}"},
                timeout=None,  # noqa: S113 a long prompt may take minutes; the child's death ends the connection
                # llama.cpp closes a kept connection after 5 s or 100 requests, just when the next may be on its way.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                trust_env=False,
            )
            runner = cls(process, client, errors)
            await runner._learn_begin_text()
        except BaseException:
            _kill(process)
            raise
        return runner

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End the child now. Whoever waits in `gone` learns of it."""
        _kill(self._process)

    async def gone(self) -> int:
        """Wait until the child has ended, by `kill` or by itself; returns its exit code."""
        code = await self._process.wait()
        await self._client.aclose()
        return code

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """`special` adds what the tokenizer puts before every prompt, such as BOS."""
        found = await self._ask("/tokenize", {"content": text, "add_special": special})
        return [int(token) for token in found["tokens"]]

    async def detokenize(self, tokens: list[int]) -> str:
        return str((await self._ask("/detokenize", {"tokens": tokens}))["content"])

    async def busy_slots(self) -> int:
        """How many slots are generating right now."""
        slots = await self._get("/slots")
        return sum(bool(slot["is_processing"]) for slot in slots)

    def without_begin(self, prompt: str) -> str:
        """The prompt without a written BOS where llama.cpp adds one itself: doubled, it spoils answers."""
        return prompt.removeprefix(self._begin_text) if self._begin_text else prompt

    async def complete(self, request: Mapping[str, object]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of one completion; the last has `stop` true. Closing this stops the generation.

        Raises RequestRefused before the first event, RunnerFailed at any time.
        """
        stopped = False
        try:
            body = {**request, "stream": True, "cache_prompt": True}
            async with self._client.stream("POST", "/completion", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise RequestRefused(response.status_code, (await response.aread()).decode(errors="replace"))
                async for event in _events(response):
                    stopped = bool(event.get("stop"))
                    yield event
        except httpx.TransportError as error:
            raise RunnerFailed(await self._errors.last() or "unexpected EOF") from error
        if not stopped:
            raise RunnerFailed("unexpected EOF")

    async def _learn_begin_text(self) -> None:
        if begin := await self.tokenize("", special=True):
            self._begin_text = await self.detokenize(begin)

    async def _ask(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        return dict(_result(await self._send("POST", path, body)))

    async def _get(self, path: str) -> list[dict[str, Any]]:
        return list(_result(await self._send("GET", path, None)))

    async def _send(self, method: str, path: str, body: dict[str, object] | None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise RunnerFailed(await self._errors.last() or "unexpected EOF") from error


class _Errors:
    """Keeps the child's last words, and keeps its pipe from filling."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._reading = asyncio.create_task(self._read(stream))

    async def first(self) -> str:
        """Why loading failed: the complaint that the others followed from."""
        return next(iter(await self._complaints()), "")

    async def last(self) -> str:
        return next(reversed(await self._complaints()), "")

    async def _complaints(self) -> list[str]:
        """Waits briefly: a dying child's words arrive after its connection breaks."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reading), _LAST_WORDS_SECONDS)
        return [line for line in self._lines if "error" in line.lower() or "fail" in line.lower()]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(_MAX_LOG_LINE_BYTES):
            for line in chunk.decode(errors="replace").splitlines():
                log.debug("llama.cpp: %s", line)
                self._lines.append(_LOG_PREFIX.sub("", line).strip())


async def _load(process: asyncio.subprocess.Process, options: LoadOptions, key: str) -> str:
    """Tell the child what to load; returns its address, or "" where it died first."""
    assert process.stdin is not None
    assert process.stdout is not None
    wanted = {**asdict(options), "gguf": str(options.gguf), "key": key}
    with contextlib.suppress(ConnectionError):
        process.stdin.write(json.dumps(wanted).encode() + b"\n")
        await process.stdin.drain()
    line = await process.stdout.readline()
    return str(json.loads(line)["address"]) if line else ""


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events, split at line feeds only: httpx's own lines also split at U+2028 inside a text."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            kind, _, data = line.partition(b": ")
            if kind == b"error":
                raise RunnerFailed(data.decode(errors="replace"))
            if kind == b"data" and data != b"[DONE]":
                yield _event(json.loads(data))


def _event(event: dict[str, Any]) -> dict[str, Any]:
    if "error" in event:
        raise RunnerFailed(json.dumps(event["error"], ensure_ascii=False))
    return event


def _result(response: httpx.Response) -> Any:
    if response.status_code != httpx.codes.OK:
        raise RequestRefused(response.status_code, response.text)
    return response.json()
