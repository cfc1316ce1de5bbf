"""Text files: whatever a byte string holds, what is read of it is text within the budget, or a refusal."""

from __future__ import annotations

import io
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given
from PIL import Image

from bot.files import Read, Unread, _unfit, _with_texts, decoded_text
from huigan.turns.opening import MAX_MESSAGE_CHARACTERS
from tests.fakes.telegram.pictures import chunk, png


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_text_is_read_in_the_encodings_people_use(encoding: str) -> None:
    assert decoded_text("回甘，茶\r\n水".encode(encoding)) == "回甘，茶\n水"


@given(st.binary(max_size=200))
def test_any_bytes_are_text_without_nul_or_none(content: bytes) -> None:
    found = decoded_text(content)
    assert found is None or "\0" not in found


@given(st.text("茶`\n", max_size=300), st.integers(0, 200))
def test_a_fence_is_longer_than_any_in_the_file(content: str, backticks: int) -> None:
    read = _with_texts("", [("a.md", ("x" + content + "`" * backticks).encode())], [], None, "en")
    assert isinstance(read, Read)
    fence = read.text.splitlines()[1]
    assert set(fence) == {"`"}
    assert read.text.count(fence) == 2


def test_several_files_share_what_one_message_may_hold() -> None:
    read = _with_texts("?", [("a.txt", b"a" * 30_000), ("b.txt", b"b" * 30_000)], [], None, "en")
    assert isinstance(read, Read)
    assert len(read.text) <= MAX_MESSAGE_CHARACTERS
    assert "30000 characters of" not in read.note
    assert "b.txt is long" in read.note


def test_an_empty_file_and_one_that_is_no_text_are_refused_by_name() -> None:
    assert _with_texts("", [("a.txt", b"\n")], [], None, "en") == Unread("empty", {"name": "a.txt"})
    assert _with_texts("", [("b.txt", b"\0\xff")], [], None, "en") == Unread("unreadable", {"name": "b.txt"})


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large, in a hundred bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_of_a_usual_size_is_fit_to_be_looked_at(kind: str) -> None:
    written = io.BytesIO()
    Image.new("RGB", (640, 480)).save(written, kind)
    assert _unfit(written.getvalue()) is None


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (10_000, 5_001), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(width: int, height: int) -> None:
    assert _unfit(bomb(width, height)) == Unread("too_many_pixels", {"most": 50})


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: png(8, 6)[:40] + tail))
def test_any_bytes_named_a_picture_are_taken_or_refused(content: bytes) -> None:
    assert _unfit(content) is None or isinstance(_unfit(content), Unread)


@pytest.mark.parametrize(
    "content", [b"", b"<svg onload='x'>", b"GIF89a", b"%PDF-1.7", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
)
def test_what_is_only_named_a_picture_is_refused(content: bytes) -> None:
    assert _unfit(content) == Unread("image_kind")
