"""Pictures as Telegram takes them: what is one at all, how large it is, and small ones to send. Knows no message."""

from __future__ import annotations

import struct
import zlib

MAX_PHOTO_BYTES = 10 * 1024 * 1024
MAX_SIDES_SUM = 10_000  # width and height together
MAX_SIDES_RATIO = 20
SMALLER_SIDES = (90, 320, 800)  # the longer side of what Telegram makes of a photo, besides the photo itself
LARGEST_SIDE = 1280

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a PNG
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def png(width: int = 640, height: int = 480, shade: int = 128) -> bytes:
    """A grey picture; another shade is another picture."""
    rows = (b"\0" + bytes([shade]) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def size(content: bytes) -> tuple[int, int] | None:
    """Width and height; None where this is no picture, or a broken one."""
    try:
        if content.startswith(_PNG):
            return _png_size(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(content)
    except (struct.error, zlib.error, IndexError):
        return None
    return None


def _png_size(content: bytes) -> tuple[int, int] | None:
    at, pixels, head, is_ended = len(_PNG), b"", b"", False
    while at < len(content) and not is_ended:
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        if checksum != zlib.crc32(kind + body):
            return None
        head, pixels = (body, pixels) if kind == b"IHDR" else (head, pixels + body * (kind == b"IDAT"))
        at, is_ended = at + 12 + length, kind == b"IEND"
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    raw = zlib.decompress(pixels)
    row_bytes = 1 + (width * depth * _CHANNELS.get(colour, 0) + 7) // 8
    is_whole = is_ended and width and height and colour in _CHANNELS
    is_whole = is_whole and (interlaced or len(raw) == row_bytes * height)
    return (width, height) if is_whole else None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while content[at] == 0xFF:
        marker, (length,) = content[at + 1], struct.unpack(">H", content[at + 2 : at + 4])
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return (width, height) if content.rstrip(b"\0").endswith(b"\xff\xd9") else None
        at += 2 + length
    return None


def scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """With `side` as the longer one."""
    longer = max(width, height)
    return max(width * side // longer, 1), max(height * side // longer, 1)
