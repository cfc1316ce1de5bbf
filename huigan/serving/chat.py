"""One streamed chat request. Knows nothing of conversations, queues or channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ollama

from huigan.serving.client import AsyncOllama
from huigan.serving.errors import TRANSPORT_ERRORS, Crashed, Stalled, told_apart

FIRST_TOKEN_SECONDS = 300.0  # a cold 8B file from a slow disk
STALL_SECONDS = 60.0
SHOW_SECONDS = 30.0


@dataclass(frozen=True)
class Piece:
    """What the next lines of the stream add. One of the two may be empty."""

    text: str
    thinking: str = ""


@dataclass(frozen=True)
class Metrics:
    """The last line of a stream: how it ended and what it cost, as Ollama counted."""

    done_reason: str  # stop, length
    prompt_tokens: int
    answer_tokens: int
    load_seconds: float
    prompt_seconds: float
    answer_seconds: float


async def sees(client: AsyncOllama, tag: str) -> bool:
    """Whether that tag takes images. Raises ServingError."""
    try:
        async with asyncio.timeout(SHOW_SECONDS):
            return "vision" in await client.capabilities(tag)
    except TimeoutError as error:
        raise Stalled(f"nothing came for {SHOW_SECONDS:.0f} seconds", seconds=round(SHOW_SECONDS)) from error
    except TRANSPORT_ERRORS as error:
        raise told_apart(error) from error


async def stream(
    client: AsyncOllama,
    tag: str,
    messages: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    keep_alive: str | float | None = None,
    first_token_seconds: float = FIRST_TOKEN_SECONDS,
    stall_seconds: float = STALL_SECONDS,
) -> AsyncGenerator[Piece | Metrics, None]:
    """Yield Pieces as they come, then Metrics, once. Closing or cancelling the generator closes the stream,
    and with it Ollama's generation.

    A message may have `images`, base64. `options` must hold num_predict ≥ 1: without it a release that never stops
    fills the context for ever.
    Raises ServingError.
    """
    if int(options.get("num_predict", 0)) < 1:
        raise ValueError("options need num_predict ≥ 1: Ollama sets no limit of its own")
    allowed = first_token_seconds
    try:
        lines = await client.chat_untruncated(tag, messages, options, keep_alive)
        async with contextlib.aclosing(_closable(lines)) as open_lines:
            while True:
                async with asyncio.timeout(allowed):
                    line = await anext(open_lines, None)
                if line is None:
                    raise Crashed("the stream ended without its last line")
                allowed = stall_seconds
                if line.message.content or line.message.thinking:
                    yield Piece(line.message.content or "", line.message.thinking or "")
                if line.done:
                    yield _metrics(line)
                    return
    except TimeoutError as error:
        raise Stalled(f"nothing came for {allowed:.0f} seconds", seconds=round(allowed)) from error
    except TRANSPORT_ERRORS as error:
        raise told_apart(error) from error


def _closable(lines: AsyncIterator[ollama.ChatResponse]) -> AsyncGenerator[ollama.ChatResponse, None]:
    assert isinstance(lines, AsyncGenerator)  # the client's inner generator; closing it closes the connection
    return lines


def _metrics(line: ollama.ChatResponse) -> Metrics:
    return Metrics(
        done_reason=line.done_reason or "stop",
        prompt_tokens=line.prompt_eval_count or 0,
        answer_tokens=line.eval_count or 0,
        load_seconds=(line.load_duration or 0) / 1e9,
        prompt_seconds=(line.prompt_eval_duration or 0) / 1e9,
        answer_seconds=(line.eval_duration or 0) / 1e9,
    )
