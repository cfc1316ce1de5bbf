"""/feedback says what was learnt and what was only tested on."""

from __future__ import annotations

import pytest

from bot.effects import words
from huigan.turns import effects
from storage.records import RunState


@pytest.mark.parametrize(
    ("locale", "learnt", "tested"),
    [
        ("zh-Hans", "第 7 版学过你的 👍 2", "第 7 版拿你的 ✏️ 3 当考题"),
        ("zh-Hant", "第 7 版學過你的 👍 2", "第 7 版拿你的 ✏️ 3 當考題"),
        ("en", "Release 7 learnt from 👍 2", "Release 7 was tested on ✏️ 3"),
    ],
)
def test_what_is_held_out_is_not_said_to_be_learnt(locale: str, learnt: str, tested: str) -> None:
    used = effects.Used(5, RunState.RELEASED, 7, {"up": 2}, {"correction": 3})
    _, first, second = words(effects.Effects(True, {"up": 2, "correction": 3}, {}, (used,)), locale).splitlines()
    assert first.startswith(learnt)
    assert second.startswith(tested)
