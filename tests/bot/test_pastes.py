"""What was cut into several messages is whole again."""

from __future__ import annotations

from datetime import UTC, datetime

import hypothesis.strategies as st
from hypothesis import given
from telegram import Chat, Message

from bot.pastes import joined
from tests.fakes.telegram.people import _cut_as_clients_do

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
LINES = st.lists(st.text("茶a😀", min_size=1, max_size=3000), min_size=1, max_size=12)


def messages(pieces: list[str]) -> list[Message]:
    return [Message(number, AT, Chat(1, Chat.PRIVATE), text=piece) for number, piece in enumerate(pieces)]


@given(LINES)
def test_what_clients_cut_is_joined_as_it_was(lines: list[str]) -> None:
    text = "\n".join(lines)
    pieces = _cut_as_clients_do(text)
    assert joined(messages(pieces), pieces) == text
