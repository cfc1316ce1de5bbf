"""What can go wrong with Ollama, told apart, and the one function that tells it apart. Knows no words for people.

`code` names the error for `huigan.texts`; `params` are what its words need.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import httpx
import ollama


class ServingError(Exception):
    """Ollama did not do what it was asked to."""

    code: ClassVar[str] = "serving"

    def __init__(self, detail: str = "", **params: Any) -> None:
        super().__init__(detail or type(self).__doc__)
        self.params = params


class NotRunning(ServingError):
    """No Ollama answers at that address."""

    code = "not_running"


class UnknownTag(ServingError):
    """Ollama has no such tag."""

    code = "unknown_tag"


class Loading(ServingError):
    """Ollama is loading the file and takes no request yet."""

    code = "loading"


class Busy(ServingError):
    """Ollama's queue is full."""

    code = "busy"


class OutOfMemory(ServingError):
    """The file does not fit into the memory that is free."""

    code = "out_of_memory"


class OverContext(ServingError):
    """The prompt is longer than the context. `params` has prompt_tokens and context_tokens."""

    code = "over_context"


class Crashed(ServingError):
    """The answer broke off: the process behind Ollama died, or the connection did."""

    code = "crashed"


class Stalled(ServingError):
    """Nothing came for longer than allowed."""

    code = "stalled"


class DiskFull(ServingError):
    """Ollama's disk is full: free space where it keeps its files, then try again."""

    code = "disk_full"


class Refused(ServingError):
    """Ollama refused for a reason of its own, which is the exception's text."""

    code = "refused"


# What the `ollama` client stumbles over where a body is not JSON, not the expected shape, or no object at all.
GARBAGE = (ValueError, TypeError, AttributeError)
# All that it lets through: its own, httpx's, and these.
TRANSPORT_ERRORS = (ollama.ResponseError, httpx.HTTPError, httpx.StreamError, OSError, *GARBAGE)

# Seen in Ollama's and llama.cpp's own sources.
_MEMORY = re.compile(
    r"more system memory|out of memory|cudaMalloc failed|unable to allocate|insufficient memory", re.IGNORECASE
)
_LOADING = re.compile(r"loading model|server loading", re.IGNORECASE)
_DEAD = re.compile(
    r"runner (process )?(has )?(terminated|unexpectedly stopped|no longer running)"
    r"|\bEOF\b|connection (reset|refused)|error was encountered",
    re.IGNORECASE,
)


def told_apart(error: Exception) -> ServingError:
    """What an exception of the `ollama` client, or of httpx beneath it, means."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, ollama.ResponseError):
        return _of_response(str(error.error), error.status_code)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError)):
        return NotRunning()
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return Stalled()
    if isinstance(error, (httpx.TransportError, httpx.StreamError, *GARBAGE)):
        return Crashed(f"{type(error).__name__}: the answer broke off")
    return Refused(f"{type(error).__name__}: {error}")


def _of_response(text: str, status: int) -> ServingError:
    if (tokens := _over_context(text)) is not None:
        return OverContext(prompt_tokens=tokens[0], context_tokens=tokens[1])
    if status == 404 and "not found" in text:
        return UnknownTag(text)
    if _MEMORY.search(text):
        return OutOfMemory(text)
    if "no space left on device" in text:
        return DiskFull(text)
    if _LOADING.search(text):
        return Loading(text)
    if status == 503:
        return Busy(text)
    # −1: an error line in a stream that had begun.
    if status == -1 or status >= 502 or _DEAD.search(text):
        return Crashed(text)
    return Refused(text, status=status)


def _over_context(text: str) -> tuple[int, int] | None:
    """llama.cpp's own JSON, which Ollama passes on as a string inside `error`."""
    try:
        told = json.loads(text)
    except ValueError:
        return None
    told = told.get("error", told) if isinstance(told, dict) else {}
    if not isinstance(told, dict) or "n_prompt_tokens" not in told:
        return None
    return int(told["n_prompt_tokens"]), int(told.get("n_ctx", 0))
