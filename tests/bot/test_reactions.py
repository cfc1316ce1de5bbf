"""What a changed reaction says of an answer: the newest thumb, one taken back, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegram.constants import ReactionEmoji

from bot.reactions import Said, said
from storage.records import Thumb

UP, DOWN = Said(Thumb.UP), Said(Thumb.DOWN)
GONE_UP, GONE_DOWN = Said(Thumb.UP, is_withdrawn=True), Said(Thumb.DOWN, is_withdrawn=True)


@pytest.mark.parametrize(
    ("before", "after", "meant"),
    [
        ([], ["👍"], UP),
        ([], ["❤"], UP),
        ([], ["❤\ufe0f"], UP),
        ([], ["👎"], DOWN),
        (["👍"], ["👎"], DOWN),
        (["👍"], [], GONE_UP),
        (["👎"], [], GONE_DOWN),
        (["👍"], ["🔥"], UP),
        (["👍"], ["🤔"], GONE_UP),
        (["👍", "👎"], ["👎"], DOWN),
        (["👎"], ["👎", "👍"], UP),
        ([], ["👍", "👎"], None),
        (["👍", "👎"], [], None),
        (["👍", "🔥"], ["👍"], None),
        ([], ["🤔"], None),
        (["🤔"], [], None),
    ],
)
def test_a_change_of_reactions_says(before: list[str], after: list[str], meant: Said | None) -> None:
    assert said(before, after) == meant


emoji = st.lists(st.sampled_from([str(each.value) for each in ReactionEmoji]), unique=True, max_size=3)


@given(emoji, emoji)
def test_the_same_reactions_say_nothing_and_only_what_was_there_is_taken_back(
    before: list[str], after: list[str]
) -> None:
    assert said(before, before) is None
    meant = said(before, after)
    if meant is not None and meant.is_withdrawn:
        assert said([], after) is None, "no thumb is left"
