"""How much of a text that is still being written no later text can change: pieces of it may be shown for good.

The reader of Markdown that also renders it says where blocks begin. All is over before a block whose first line is
whole; in a list before each entry, in code between fences before each line. In doubt it is not settled yet. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyromark
from telegramify_markdown.converter import STANDARD_OPTIONS


def settled(markdown: str) -> int:
    """The length of what is settled, of a text without HTML and link definitions, which reach as far as they like."""
    read = markdown.partition("\r")[0].encode("utf-8")
    blocks = list(_blocks(read))
    limit = _hidden_from(read, blocks)
    found = (each for each in _starts(read, blocks) if each <= limit and _is_apart(read, each))
    return len(read[: max(found, default=0)].decode("utf-8"))


def _blocks(read: bytes) -> Iterator[tuple[int, str, int, int]]:
    """Depth, kind, first byte and end of all that is in it, code in a line included."""
    depth = 0
    for event, where in pyromark.events_with_range(read.decode("utf-8"), options=STANDARD_OPTIONS):
        if not isinstance(event, dict):
            continue
        (what, tag) = next(iter(event.items()))
        if what == "End":
            depth -= 1
        elif what in {"Start", "Code"}:
            yield depth, what if what == "Code" else _kind(tag), where["start"], where["end"]
            depth += what == "Start"


def _kind(tag: Any) -> str:
    if not isinstance(tag, dict):
        return str(tag)
    kind, how = next(iter(tag.items()))
    return f"{kind} Fenced" if isinstance(how, dict) and "Fenced" in how else str(kind)


def _starts(read: bytes, blocks: list[tuple[int, str, int, int]]) -> Iterator[int]:
    last_line = read.rfind(b"\n") + 1  # not whole yet
    for depth, kind, start, end in blocks:
        is_flush = start == 0 or read[start - 1 : start] == b"\n"
        if is_flush and start < last_line and (depth == 0 or (depth == 1 and kind == "Item")):
            yield start
        if depth == 0 and kind == "CodeBlock Fenced":
            yield from (at + 1 for at in range(start, min(end, last_line)) if read[at : at + 1] == b"\n")


def _is_apart(read: bytes, start: int) -> bool:
    """A formula may span blocks, up to a blank line."""
    return b"\\" not in read[read.rfind(b"\n\n", 0, start) + 1 : start]


def _hidden_from(read: bytes, blocks: list[tuple[int, str, int, int]]) -> int:
    """Where || stands outside of code: it hides all up to the next, however far away that is."""
    code = [(start, end) for _, kind, start, end in blocks if kind.startswith("Code")]
    at = read.find(b"||")
    while at >= 0 and any(start <= at < end for start, end in code):
        at = read.find(b"||", at + 1)
    return at if at >= 0 else len(read)
