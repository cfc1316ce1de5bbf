"""The library of tags in Ollama: made, shown, warmed, moved, removed. Knows nothing of releases.

A tag of ours is immutable: neither copy nor create over a name is atomic in Ollama, and a request that meets one
half done is answered 500 `EOF`. Only an alias for other clients is ever moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ollama

from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import TRANSPORT_ERRORS, Crashed, Refused, UnknownTag, told_apart

Progress = Callable[[str], None]
PULL_STALL_SECONDS = 300.0  # Ollama verifies a large file without a word


@dataclass(frozen=True)
class Shown:
    """What a tag is served with."""

    template: str
    system: str
    parameters: Mapping[str, Any]
    quantisation: str
    capabilities: tuple[str, ...]


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except TRANSPORT_ERRORS as error:
        raise told_apart(error) from error


def version(client: Ollama) -> str:
    """Raises NotRunning."""
    with _told_apart():
        return client.version()


def create(
    client: Ollama,
    tag: str,
    gguf: Path,
    *,
    template: str,
    system: str,
    parameters: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Upload a GGUF and make a tag of it. Everything that shapes a prompt is written out: what Ollama guesses from a
    GGUF's own template can drop the system text. Repeating it is harmless. Raises ServingError."""
    with _told_apart():
        digest = client.create_blob(gguf)
        made = client.create(
            tag, files={gguf.name: digest}, template=template, system=system, parameters=dict(parameters), stream=True
        )
        _follow(made, progress)


def create_from(
    client: Ollama,
    tag: str,
    source: str,
    *,
    template: str,
    system: str,
    parameters: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Make a tag of another's file. The source is looked up first: Ollama would pull one it lacks from the internet."""
    show(client, source)
    with _told_apart():
        made = client.create(
            tag, from_=source, template=template, system=system, parameters=dict(parameters), stream=True
        )
        _follow(made, progress)


def _follow(lines: Iterator[ollama.ProgressResponse], progress: Progress | None) -> None:
    status = ""
    for line in lines:  # the client raises on a line with `error`
        status = line.status or status
        if progress is not None:
            progress(status)
    if status != "success":
        raise Crashed(f"creating the tag ended at {status!r}")


def show(client: Ollama, tag: str) -> Shown:
    """Raises UnknownTag."""
    with _told_apart():
        told = client.show_whole(tag)
        return Shown(
            template=told.get("template", ""),
            system=told.get("system", ""),
            parameters=_parameters(told.get("parameters", "")),
            quantisation=told.get("details", {}).get("quantization_level", ""),
            capabilities=tuple(told.get("capabilities") or ()),
        )


def _parameters(text: str) -> dict[str, Any]:
    """From Ollama's two columns, `num_ctx   1024` a line; stop, which may occur twice, becomes a list."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, written = line.partition(" ")
        try:
            value = json.loads(written.strip())
        except ValueError:
            value = written.strip()
        if name == "stop":
            found.setdefault(name, []).append(str(value))
        else:
            found[name] = value
    return found


def warm(
    client: Ollama, tag: str, keep_alive: str | float | None = None, options: Mapping[str, Any] | None = None
) -> None:
    """Load a tag's file before the first request needs it. Raises ServingError."""
    with _told_apart():
        told = client.generate(tag, keep_alive=keep_alive, options=options)
    if told.done_reason != "load":
        raise Refused(f"loading ended with {told.done_reason!r}")


def unload(client: Ollama, tag: str) -> None:
    with _told_apart():
        client.generate(tag, keep_alive=0)


def on_card(client: Ollama) -> list[str]:
    """Tags that are loaded, wholly or in part, into a graphics card's memory."""
    with _told_apart():
        return [each.model for each in client.ps().models if each.model and each.size_vram]


def card_bytes(client: Ollama) -> dict[str, int]:
    """By tag, what each holds of a graphics card's memory."""
    with _told_apart():
        return {each.model: int(each.size_vram) for each in client.ps().models if each.model and each.size_vram}


def on_cpu(client: Ollama) -> list[str]:
    """Tags that are loaded and have nothing on a graphics card."""
    with _told_apart():
        return [each.model for each in client.ps().models if each.model and not each.size_vram]


def ask(client: Ollama, tag: str, messages: list[dict[str, str]], options: Mapping[str, Any]) -> ollama.ChatResponse:
    """One whole answer, for smoke tests and samples."""
    with _told_apart():
        return client.chat(tag, messages, options=dict(options), stream=False)


def copy(client: Ollama, source: str, destination: str) -> None:
    with _told_apart():
        client.copy(source, destination)


def delete(client: Ollama, tag: str) -> bool:
    """False if there was none."""
    try:
        with _told_apart():
            client.delete(tag)
    except UnknownTag:
        return False
    return True


def tags(client: Ollama) -> list[str]:
    with _told_apart():
        return [each.model for each in client.list().models if each.model]


def sizes(client: Ollama) -> dict[str, int]:
    """Bytes by tag, the newest tag first."""
    with _told_apart():
        return {each.model: int(each.size or 0) for each in client.list().models if each.model}


def digests(client: Ollama) -> dict[str, str]:
    """By tag. Two names for the same, as a copy makes them, have one."""
    with _told_apart():
        return {each.model: str(each.digest) for each in client.list().models if each.model}


def loaded(client: Ollama) -> list[str]:
    """Tags that are in memory now."""
    with _told_apart():
        return [each.model for each in client.ps().models if each.model]


@dataclass(frozen=True)
class Pulled:
    """How far a pull is. Of files whose size is not known yet nothing is counted."""

    status: str
    done_bytes: int
    total_bytes: int


async def pull(client: AsyncOllama, tag: str, progress: Callable[[Pulled], None]) -> None:
    """Fetch a tag from its registry. Cancelled, Ollama stops as well, and goes on from there when asked again.
    Raises ServingError."""
    status, files = "", dict[str, tuple[int, int]]()
    with _told_apart():
        lines = aiter(await client.pull(tag, stream=True))
        while True:
            async with asyncio.timeout(PULL_STALL_SECONDS):
                line = await anext(lines, None)  # the client raises on a line with `error`
            if line is None:
                break
            status = line.status or status
            if line.digest:
                files[line.digest] = (line.completed or 0, line.total or 0)
            done, total = (sum(each[part] for each in files.values()) for part in (0, 1))
            progress(Pulled(status, done, total))
    if status != "success":
        raise Crashed(f"fetching {tag} ended at {status!r}")
