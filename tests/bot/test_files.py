"""Text files: whatever a byte string holds, what is read of it is text within the budget, or a refusal."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bot.files import Read, Unread, _with_texts, decoded_text
from huigan.turns.opening import MAX_MESSAGE_CHARACTERS


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
