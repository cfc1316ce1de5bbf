"""Words of others in a terminal are read and never obeyed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huigan import shown, terminal
from huigan.texts.printable import printable

NASTY = "\x1b]52;c;cm0gLXJm\x07\x9b2J\rtea\x08\u202eevil\u2066\x00"


@dataclass
class Row:
    name: str


@given(st.text())
def test_what_moves_a_cursor_is_gone_and_all_else_is_as_it_was(text: str) -> None:
    seen = printable(text)
    assert not any((ord(sign) < 32 and sign not in "\t\n") or 0x7F <= ord(sign) <= 0x9F for sign in seen)
    untouched = "".join(sign for sign in text if printable(sign) == sign)
    assert printable(untouched) == untouched


def test_chinese_emoji_and_line_breaks_are_left_alone() -> None:
    assert printable("回甘 🍵👩\u200d👧\n\ttea") == "回甘 🍵👩\u200d👧\n\ttea"


def test_tables_json_and_the_chat_show_what_people_wrote_without_obeying_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown.show([Row(NASTY)], {"name": lambda row: row.name}, as_json=False)
    shown.show_one({"whole": {"name": NASTY}, "name": NASTY}, as_json=False)
    terminal._write(NASTY)
    shown.show([Row(NASTY)], {}, as_json=True)
    written = capsys.readouterr().out
    assert not set(written) & {"\x1b", "\x9b", "\x07", "\x08", "\r", "\u202e", "\u2066", "\x00"}
    assert json.loads(written[written.index("[\n") :]) == [{"name": NASTY}], "programs get what was written"
