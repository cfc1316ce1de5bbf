"""Text as Telegram measures it: UTF-16 lengths, the checks on given entities, and the entities a client's text gets by
itself. Knows no markup (that is markup.py) and no message."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any

from .refusals import bad_request

Entity = dict[str, Any]

MAX_ENTITIES = 100  # Telegram shows the first hundred and drops the rest without a word
_LARGEST_OFFSET = 1_000_000
_WHITE_SPACE = " \t\n\v\f\r\0"
_GIVEN_KINDS = frozenset(  # others are left out without a word
    {"bold", "italic", "underline", "strikethrough", "spoiler", "blockquote", "expandable_blockquote"}
    | {"code", "pre", "text_link", "text_mention", "custom_emoji"}
)
_SPOTTED = {
    "bot_command": re.compile(r"(?<![\w/])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z]\w{3,31})?"),
    "mention": re.compile(r"(?<![\w@/])@[A-Za-z]\w{3,31}"),
    "url": re.compile(r"https?://[^\s<>]+"),
}


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def spot_entities(text: str) -> list[Entity]:
    """What Telegram recognises by itself in a user's text: commands, mentions, links."""
    found = [
        {"type": kind, "offset": utf16_length(text[: m.start()]), "length": utf16_length(m.group())}
        for kind, pattern in _SPOTTED.items()
        for m in pattern.finditer(text)
    ]
    return sorted(found, key=lambda entity: (entity["offset"], -entity["length"]))


def read_entities(decoded: object) -> list[Entity]:
    """The shape checks on an `entities` parameter that was decoded from JSON."""
    if decoded is None:
        return []
    if not isinstance(decoded, list):
        raise bad_request("expected an Array of MessageEntity")
    for entity in decoded:
        if not isinstance(entity, dict):
            raise bad_request("can't parse MessageEntity: expected an Object")
        for field, kind in (("type", str), ("offset", int), ("length", int)):
            if field not in entity:
                raise bad_request(f"can't parse MessageEntity: Can't find field \"{field}\"")
            if not isinstance(entity[field], kind):
                name = "String" if kind is str else "Number"
                raise bad_request(f'can\'t parse MessageEntity: Field "{field}" must be of type {name}')
        if entity["type"] == "text_link" and "url" not in entity:
            raise bad_request("can't parse MessageEntity: Can't find field \"url\"")
    return [entity for entity in decoded if entity["type"] in _GIVEN_KINDS]


def check_entities(text: str, entities: list[Entity]) -> list[Entity]:
    """The entities that survive, in order; raises where one lies outside the text or splits a character."""
    starts, bytes_at = _boundaries(text)
    kept = []
    for entity in sorted(entities, key=lambda each: (each["offset"], -each["length"])):
        offset, length = entity["offset"], entity["length"]
        if not 0 <= offset <= _LARGEST_OFFSET:
            raise bad_request(f"receive an entity with incorrect offset {offset}")
        if not 0 <= length <= _LARGEST_OFFSET:
            raise bad_request(f"receive an entity with incorrect length {length}")
        if length and _check_range(offset, offset + length, starts, bytes_at):
            covered = _slice_utf16(text, offset, length)
            kept += [dict(entity)] if covered.strip() else []
    return kept


def strip_ends(text: str, entities: list[Entity]) -> tuple[str, list[Entity]]:
    """Telegram cuts white space at both ends, at the front up to the first entity, and moves the entities along.
    Full-width space stays."""
    left = min(len(text) - len(text.lstrip(_WHITE_SPACE)), *(entity["offset"] for entity in entities), len(text))
    text = text[left:].rstrip(_WHITE_SPACE)
    end = utf16_length(text)
    moved = []
    for entity in entities:
        begin = max(entity["offset"] - left, 0)
        length = min(entity["offset"] - left + entity["length"], end) - begin
        if length > 0:
            moved.append({**entity, "offset": begin, "length": length})
    return text, moved


def _boundaries(text: str) -> tuple[list[int], list[int]]:
    """UTF-16 offset and UTF-8 offset of every character's start, and of the end."""
    starts, bytes_at = [0], [0]
    for character in text:
        starts.append(starts[-1] + utf16_length(character))
        bytes_at.append(bytes_at[-1] + len(character.encode()))
    return starts, bytes_at


def _check_range(begin: int, end: int, starts: list[int], bytes_at: list[int]) -> bool:
    last = starts[-1]
    if begin > last:
        raise bad_request(f"entity begins after the end of the text at UTF-16 offset {begin}")
    index = bisect_left(starts, begin)
    if starts[index] != begin:
        raise bad_request(f"entity begins in a middle of a UTF-16 symbol at byte offset {bytes_at[index]}")
    if end > last:
        raise bad_request(
            f"entity beginning at UTF-16 offset {begin} ends after the end of the text at UTF-16 offset {end}"
        )
    index = bisect_left(starts, end)
    if starts[index] != end:
        raise bad_request(
            f"entity beginning at UTF-16 offset {begin} ends in a middle of a UTF-16 symbol at byte offset "
            f"{bytes_at[index]}"
        )
    return True


def _slice_utf16(text: str, offset: int, length: int) -> str:
    return text.encode("utf-16-le")[offset * 2 : (offset + length) * 2].decode("utf-16-le")
