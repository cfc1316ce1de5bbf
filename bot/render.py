"""From a release's Markdown to what Telegram takes: plain text with entities, cut into messages. Pure.

Entities and not a parse mode: no text can make them invalid. Lengths are counted as Telegram does, in UTF-16 units.
What a library for Markdown would swallow (tags, notes, backslashes in code) goes through it as characters that mean
nothing: a stand-in is as long as what it stands for, so that the offsets hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from telegramify_markdown import MessageEntity, RenderConfig, utf16_len
from telegramify_markdown.converter import convert_with_segments

from bot.settling import settled
from bot.tables import aligned

MAX_UNITS = 4096
MAX_ENTITIES = 100
THINKING_UNITS = 400  # of what is being thought, while nothing else is there
THOUGHT_UNITS = 1500  # of what was thought, folded above the answer
_BEFORE = "…\n"
_QUOTES = {"blockquote", "expandable_blockquote"}
_PRIVATE_USE = range(0xE000, 0xF900)
# Code as it begins and, where it is not closed, goes on to the end; in a line, only where it is closed there.
_CODE = re.compile(
    r"^[ \t>]*(`{3,}|~{3,}).*?(?:^[ \t>]*\1|\Z)|(?<!`)(`+)(?!`)[^\n]+?(?<!`)\2(?!`)", re.DOTALL | re.MULTILINE
)
_LABEL_END = re.compile(r"(?<!\\)\]:")
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


def pieces(markdown: str, note: str = "", thought: str = "") -> list[Piece]:
    """The messages that show `markdown`, at least one, with a note of ours in italics under the last and what was
    thought folded above the first."""
    text, entities = _converted(markdown)
    if note:
        start = f"{text}\n\n" if text else ""
        entities = [*entities, MessageEntity("italic", utf16_len(start), utf16_len(note))]
        text = start + note
    if thought := clipped(thought, THOUGHT_UNITS):
        text, entities = _under(thought, "expandable_blockquote", text, entities)
    return list(_cut(text, entities)) or [Piece("…")]


def thinking(title: str, thought: str) -> Piece:
    """What is being thought, before the answer has begun: its end, which is what changes."""
    units = _encodable(thought).strip().encode("utf-16-le")
    shown = units[-2 * THINKING_UNITS :].decode("utf-16-le", errors="ignore").strip()
    if not shown:
        return Piece(title)
    if len(units) > 2 * THINKING_UNITS:
        shown = f"…{shown}"
    quote = {"type": "blockquote", "offset": utf16_len(title) + 1, "length": utf16_len(shown)}
    return Piece(f"{title}\n{shown}", (quote,))


def plain(text: str) -> list[Piece]:
    """The messages that show a text as it is."""
    return list(_cut(_encodable(text).strip(), [])) or [Piece("…")]


def finished(markdown: str, thought: str = "") -> list[Piece]:
    """The first pieces of a text that is still being written, as `pieces` gives them however it goes on."""
    return pieces(unchanging(markdown), thought=thought)[:-1]


def unchanging(markdown: str) -> str:
    """The beginning of a text that is still being written, as far as it looks the same however the text goes on."""
    markdown = _encodable(markdown)
    return markdown[: settled(_spared(markdown)[0])]


def growing(markdown: str, thought: str = "", done: int = 0) -> Piece:
    """How a text that is still being written looks below the pieces that are done: its last message, after … where
    there are others between."""
    found = pieces(markdown, thought=thought)[done:]
    return _last(found)


def growing_plain(text: str, done: int = 0) -> Piece:
    return _last(plain(text)[done:])


def _last(found: Sequence[Piece]) -> Piece:
    if not found:
        return Piece("…")
    last = found[-1]
    if len(found) == 1 or utf16_len(last.text) + utf16_len(_BEFORE) > MAX_UNITS:
        return last
    shift = utf16_len(_BEFORE)
    return Piece(_BEFORE + last.text, tuple({**each, "offset": each["offset"] + shift} for each in last.entities))


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
    markdown = _encodable(markdown)
    spared, stand_ins = _spared(markdown)
    text, entities, code = _rendered(spared, chr(next(iter(stand_ins))))
    text = text.translate(stand_ins)
    if not text.strip():
        return markdown.strip(), []
    for entity in entities:
        if entity.url is not None:
            entity.url = entity.url.translate(stand_ins)
        if entity.language is not None:
            entity.language = entity.language.translate(stand_ins).partition(" ")[0] or None
    return aligned(text, _without_quotes_in_quotes(entities), code)


def _rendered(spared: str, mark: str) -> tuple[str, list[MessageEntity], set[int]]:
    """With where code blocks begin. Below a paragraph, which is taken away again: the library sets the first block of
    a text less apart than others, and glues code to the list entry that it stands in."""
    text, entities, segments = convert_with_segments(f"{mark}\n\n{spared}", config=_config())
    shift = len(text) - len(text.removeprefix(mark).removeprefix("\n\n"))
    moved = [each.copy_with(offset=each.offset - shift) for each in entities]
    return text[shift:], moved, {each.utf16_start - shift for each in segments}


def _spared(markdown: str) -> tuple[str, dict[int, str]]:
    """Markdown in which nothing is swallowed, and what its stand-ins stand for.

    `<List>` is dropped as HTML, `\\(` in code is read as a formula, and a line such as `[注]: 见下` is dropped as the
    target of links, which may stand before it: such links are shown as they are written.
    """
    unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in markdown)
    less, backslash, bracket, end = next(unused), next(unused), next(unused), next(unused)
    spared = _CODE.sub(lambda found: found[0].replace("\\", backslash), markdown)
    spared = _LABEL_END.sub(f"{end}:", spared).replace("[^", f"{bracket}^").replace("<", less)
    return spared, {ord(less): "<", ord(backslash): "\\", ord(bracket): "[", ord(end): "]"}


def _without_quotes_in_quotes(entities: Sequence[MessageEntity]) -> list[MessageEntity]:
    """Telegram has no quotes in quotes."""
    kept: list[MessageEntity] = []
    end = 0
    for each in sorted(entities, key=lambda each: (each.offset, -each.length)):
        if each.type in _QUOTES:
            if each.offset < end:
                continue
            end = each.offset + each.length
        kept.append(each)
    return kept


def _under(above: str, kind: str, text: str, entities: Sequence[MessageEntity]) -> tuple[str, list[MessageEntity]]:
    """A text with another above it, which is of this kind."""
    start = f"{above}\n"
    shift = utf16_len(start)
    moved = [each.copy_with(offset=each.offset + shift) for each in entities]
    return start + text, [MessageEntity(kind, 0, utf16_len(above)), *moved]


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
