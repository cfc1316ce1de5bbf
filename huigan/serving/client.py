"""The official `ollama` clients, with the calls they lack. Knows addresses and nothing of what is asked.

`truncate` and `shift` are in Ollama's protocol and not in ollama-python 0.6.3; neither are the version and a
tag's system text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import ollama

CONNECT_SECONDS = 5.0
# Ollama hashes and rewrites a GGUF while creating a tag, and loads it while warming: minutes for a large one.
REQUEST_SECONDS = 1800.0


class Ollama(ollama.Client):
    """For the library of tags. `host` as OLLAMA_HOST writes it; None reads the environment, as Ollama does."""

    def __init__(self, host: str | None = None, timeout_seconds: float = REQUEST_SECONDS) -> None:
        super().__init__(host, timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS))
        self.host = host

    def version(self) -> str:
        told = self._request_raw("GET", "/api/version").json()  # type: ignore[no-untyped-call]
        if not isinstance(told, dict) or "version" not in told:
            raise ValueError("the answer names no version: this is no Ollama")
        return str(told["version"])

    def show_whole(self, tag: str) -> dict[str, Any]:
        """All that Ollama tells of a tag: the client's own `show` drops the system text."""
        told: dict[str, Any] = self._request_raw("POST", "/api/show", json={"model": tag}).json()  # type: ignore[no-untyped-call]
        return told


class AsyncOllama(ollama.AsyncClient):
    """For chat. Its deadlines are the caller's: none of its own once it is connected."""

    def __init__(self, host: str | None = None) -> None:
        super().__init__(host, timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))
        self._capabilities: dict[str, frozenset[str]] = {}

    async def capabilities(self, tag: str) -> frozenset[str]:
        """Completion, vision, tools. Asked once: a tag of ours is immutable."""
        if tag not in self._capabilities:
            shown = await self.show(tag)
            self._capabilities[tag] = frozenset(shown.capabilities or ())
        return self._capabilities[tag]

    async def chat_untruncated(
        self,
        tag: str,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        keep_alive: str | float | None,
    ) -> AsyncIterator[ollama.ChatResponse]:
        """A streamed chat that is refused where Ollama would drop messages, or shift the context, without a word."""
        request: dict[str, Any] = {"model": tag, "messages": list(messages), "options": dict(options), "stream": True}
        if keep_alive is not None:
            request["keep_alive"] = keep_alive
        request |= {"truncate": False, "shift": False}
        return await self._request(ollama.ChatResponse, "POST", "/api/chat", json=request, stream=True)
