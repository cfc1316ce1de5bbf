"""Tables in columns that stand under each other: the library pads cells by characters, and a Chinese one is two wide.

What it made of a table is taken apart by its own widths, which its second line tells, and padded anew. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from telegramify_markdown import MessageEntity, utf16_len
from wcwidth import wcswidth

_RULE = re.compile(r"-*(?:-\+-+)*")
_BETWEEN = 3  # " | "


def aligned(text: str, entities: Sequence[MessageEntity], code: Collection[int]) -> tuple[str, list[MessageEntity]]:
    """The text with its tables padded by what is seen. `code` is where blocks that are no tables begin."""
    units = text.encode("utf-16-le")
    parts: list[str] = []
    moves: list[tuple[int, int]] = []  # after which unit all moves by how much
    at = 0
    for each in sorted(entities, key=lambda each: each.offset):
        if each.type != "pre" or each.offset in code or each.offset < at:
            continue
        end = each.offset + each.length
        table = units[2 * each.offset : 2 * end].decode("utf-16-le")
        padded = _padded(table.split("\n"))
        parts += [units[2 * at : 2 * each.offset].decode("utf-16-le"), padded]
        moves.append((end, utf16_len(padded) - each.length))
        at = end

    def moved(offset: int) -> int:
        return offset + sum(by for end, by in moves if end <= offset)

    shifted = []
    for each in entities:
        start, end = moved(each.offset), moved(each.offset + each.length)
        shifted.append(each.copy_with(offset=start, length=end - start))
    return "".join([*parts, units[2 * at :].decode("utf-16-le")]), shifted


def _padded(lines: Sequence[str]) -> str:
    if len(lines) < 2 or not _RULE.fullmatch(lines[1]):  # a formula, or a head alone
        return "\n".join(lines)
    widths = [len(each) for each in lines[1].split("-+-")]
    rows = [_cells(line, widths) for line in (lines[0], *lines[2:])]
    wide = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    padded = [
        " | ".join(cell + " " * (room - _width(cell)) for cell, room in zip(row, wide, strict=True)) for row in rows
    ]
    return "\n".join([padded[0], "-+-".join("-" * room for room in wide), *padded[1:]])


def _cells(line: str, widths: Sequence[int]) -> list[str]:
    cells, at = [], 0
    for width in widths:
        cells.append(line[at : at + width].rstrip(" "))
        at += width + _BETWEEN
    return cells


def _width(cell: str) -> int:
    """In columns; what is not printed counts as its characters."""
    width = wcswidth(cell)
    return width if width >= 0 else len(cell)
