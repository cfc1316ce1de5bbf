"""From a release's Markdown to what Telegram takes: plain text with entities, cut into messages. Pure.

Entities and not a parse mode: no text can make them invalid. Lengths are counted as Telegram does, in UTF-16 units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telegramify_markdown import MessageEntity, RenderConfig, convert, utf16_len

MAX_UNITS = 4096
MAX_ENTITIES = 100
_PRIVATE_USE = range(0xE000, 0xF900)
# Where to cut, best first; a cut leaves at least half of the room used.
_CUTS = (
    re.compile(r"\n\n+"),
    re.compile(r"\n"),
    re.compile(r"[。！？!?…]+[”’」』）)]*|[.;；](?=\s)"),
    re.compile(r"[\s，,、]"),
)


@dataclass(frozen=True)
class Piece:
    """The content of one message."""

    text: str
    entities: Sequence[Mapping[str, Any]] = field(default=())


def pieces(markdown: str, note: str = "") -> list[Piece]:
    """The messages that show `markdown`, at least one, with a note of ours in italics under the last."""
    text, entities = _converted(markdown)
    if note:
        start = f"{text}\n\n" if text else ""
        entities = [*entities, MessageEntity("italic", utf16_len(start), utf16_len(note))]
        text = start + note
    return list(_cut(text, entities)) or [Piece("…")]


def plain(text: str) -> list[Piece]:
    """The messages that show a text as it is."""
    return list(_cut(_encodable(text).strip(), [])) or [Piece("…")]


def frame(text: str) -> str:
    """How a text that is still growing looks: its end, where it is too long for one message."""
    text = _encodable(text).strip()
    if utf16_len(text) <= MAX_UNITS:
        return text
    units = text.encode("utf-16-le")[-2 * (MAX_UNITS - 2) :]
    return "…\n" + units.decode("utf-16-le", errors="ignore")


def clipped(text: str, units: int) -> str:
    """At most so many UTF-16 units, with … in place of the rest."""
    text = _encodable(text).strip()
    if utf16_len(text) <= units:
        return text
    return text.encode("utf-16-le")[: 2 * (units - 1)].decode("utf-16-le", errors="ignore") + "…"


def _encodable(text: str) -> str:
    """Without what no request can carry: lone surrogates and NUL."""
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "")


def _converted(markdown: str) -> tuple[str, list[MessageEntity]]:
    """The library takes `<List>` for HTML and drops it: every `<` goes through as a character that means nothing."""
    markdown = _encodable(markdown)
    stand_in = next(chr(code) for code in _PRIVATE_USE if chr(code) not in markdown)
    text, entities = convert(markdown.replace("<", stand_in), config=_config())
    text = text.replace(stand_in, "<")
    if not text.strip():
        return markdown.strip(), []
    for entity in entities:
        for name in ("url", "language"):
            if (value := getattr(entity, name)) is not None:
                setattr(entity, name, value.replace(stand_in, "<"))
    return text, entities


def _config() -> RenderConfig:
    """The library's own, without the pictures it puts before headings."""
    config = RenderConfig.isolated()
    for level in range(1, 7):
        setattr(config.markdown_symbol, f"heading_level_{level}", "")
    config.markdown_symbol.unordered_list_item = "•"
    return config


def _cut(text: str, entities: Sequence[MessageEntity]) -> Iterator[Piece]:
    """Pieces of at most MAX_UNITS and MAX_ENTITIES, each without white space at its ends: Telegram takes that away
    and would shift the entities."""
    ordered = sorted(entities, key=lambda each: (each.offset, -each.length))
    at, unit_at = 0, 0
    while at < len(text):
        rest = text[at:]
        end = _end(rest, _room(rest, unit_at, ordered))
        chunk = rest[:end]
        body = chunk.strip()
        if body:
            start = unit_at + utf16_len(chunk[: len(chunk) - len(chunk.lstrip())])
            yield Piece(body, _within(ordered, start, start + utf16_len(body)))
        at, unit_at = at + end, unit_at + utf16_len(chunk)


def _room(rest: str, unit_at: int, ordered: Sequence[MessageEntity]) -> int:
    """How many characters of `rest` one message holds."""
    units = MAX_UNITS
    touching = [each for each in ordered if each.offset + each.length > unit_at]
    if len(touching) > MAX_ENTITIES:
        units = min(units, max(touching[MAX_ENTITIES].offset - unit_at, 1))
    room = len(rest.encode("utf-16-le")[: 2 * units].decode("utf-16-le", errors="ignore"))
    return max(room, 1)


def _end(rest: str, room: int) -> int:
    """Where the first piece of `rest` ends."""
    if len(rest) <= room:
        return len(rest)
    for cut in _CUTS:
        ends = [found.end() for found in cut.finditer(rest, room // 2, room)]
        if ends:
            return ends[-1]
    return room


def _within(ordered: Sequence[MessageEntity], start: int, end: int) -> tuple[dict[str, Any], ...]:
    """What of the entities lies between two offsets, counted from the first."""
    found: list[dict[str, Any]] = []
    for each in ordered:
        first, last = max(each.offset, start), min(each.offset + each.length, end)
        if first < last:
            found.append(each.copy_with(offset=first - start, length=last - first).to_dict())
    return tuple(found[:MAX_ENTITIES])
