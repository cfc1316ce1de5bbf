"""What stands on the screen is kept in few characters, and is enough to go on after a kill."""

from __future__ import annotations

import pytest

from bot.render import pieces
from bot.standing import MOST_CHARACTERS, Standing, folded, standing


@pytest.mark.parametrize(
    ("stands", "written"),
    [
        (Standing(), ""),
        (Standing(growing=12), "12"),
        (Standing((12,)), "12,"),
        (Standing((12, 13), 14), "12,13,14"),
        (Standing((12,), 13, 900), "900:12,13"),
    ],
)
def test_what_stands_is_written_and_read(stands: Standing, written: str) -> None:
    assert str(stands) == written
    assert standing(written) == stands
    assert standing(None) == Standing()


def test_there_is_room_for_one_more_with_the_longest_numbers() -> None:
    stands = Standing()
    while len(str(stands)) <= MOST_CHARACTERS:
        stands = stands.finished(2**31 - 1, "思" * 5000).grown(2**31 - 1)
    assert len(str(stands)) <= 64
    assert len(stands.done) >= 3


def test_where_what_was_thought_is_lost_in_a_kill_the_rest_begins_where_it_did() -> None:
    answer, thought = "\n\n".join(["茶" * 900] * 9), folded("zh-Hans", "思😀" * 300)
    before = pieces(answer, "", thought)
    stands = Standing().finished(1, thought)
    assert pieces(answer, "", "…" * stands.thought_units)[1:] == before[1:]
    assert pieces(answer)[1:] != before[1:]
