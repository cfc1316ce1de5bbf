"""What a button says is read back by `parse`, whatever ids; everything else is no press of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegram import InlineKeyboardMarkup

from bot import keyboards
from bot.keyboards import Press, parse
from huigan.texts import LOCALES
from storage.records import Reason, Thumb

ids = st.integers(1, 10**18 - 1)


def data(keyboard: InlineKeyboardMarkup) -> list[str]:
    return [str(button.callback_data) for row in keyboard.inline_keyboard for button in row]


@given(ids, ids, st.sampled_from(LOCALES))
def test_every_button_of_ours_fits_and_is_read_back(one: int, other: int, locale: str) -> None:
    boards = [
        keyboards.under_answer(one, locale, Thumb.DOWN, reasons=True, retry_message_id=other),
        keyboards.under_answer(one, locale),
        keyboards.stop(one, locale),
        keyboards.retry(one, locale),
        keyboards.which_is_better(one, other, locale),
        keyboards.consent(locale),
        *(keyboards.of_proposal(one, locale, is_tried=tried) for tried in (True, False)),
    ]
    for said in (each for board in boards for each in data(board)):
        assert len(said.encode()) <= 64
        press = parse(said)
        assert press is not None
        assert ":".join([press.act, *map(str, press.ids), *([press.choice] if press.choice else [])]) == said


def test_a_press_names_its_act_rows_and_choice() -> None:
    assert parse("up:7") == Press("up", (7,))
    assert parse("pick:7:8:left") == Press("pick", (7, 8), "left")
    assert parse(f"why:7:{Reason.LONG}") == Press("why", (7,), "long")
    assert parse("agree") == Press("agree")


@pytest.mark.parametrize(
    "forged", [None, "", ":", "up:", "up:-1", "up:1e3", "UP:1", "up:1:2:3", "up:١", "up:1\n", "a" * 65]
)
def test_what_is_no_press_of_ours_is_none(forged: str | None) -> None:
    assert parse(forged) is None


@given(st.text(max_size=64))
def test_nothing_that_is_forged_raises(forged: str) -> None:
    parse(forged)
