"""A piece that is shown for good is what the end gives for it, however the text goes on."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.render import Piece, finished, growing, pieces, unchanging
from tests.bot.test_render import FRAGMENTS, NASTY, check, units

STARTS = (
    "\n\n1. 甲\n",
    "\n2. 乙\n\n",
    "   - 丙\n",
    "   ```\n   丁\n   ```\n",
    "\n```js\n",
    "\n~~~\n",
    "\n> 引\n\n",
    "\n===\n",
    "\n---\n",
    "    缩进\n",
    "\t",
    "\\[\n",
    "\\alpha\n\\]",
    "$",
    "$$",
    "[甲]",
    "[甲]: http://x.y\n",
    "\r\n",
    "段。\n\n",
    "|甲|乙|\n|-|-|\n",
    "|一|\n",
)
written = st.lists(st.sampled_from((*FRAGMENTS[:-5], *STARTS)), max_size=40).map("".join)


def whole(markdown: str) -> Piece:
    """All of it, which fits one message."""
    (piece,) = pieces(markdown)
    return piece


def begun(piece: Piece, length: int) -> list[dict[str, Any]]:
    """What of the entities lies before."""
    found = [{**each, "length": min(each["length"], length - each["offset"])} for each in piece.entities]
    return [each for each in found if each["length"] > 0]


def stays(markdown: str) -> None:
    """What is settled at any prefix is there at all later ones."""
    head = Piece("")
    for end in range(1, len(markdown) + 1):
        prefix = markdown[:end]
        now = whole(prefix)
        length = units(head.text)
        assert now.text.startswith(head.text), f"{prefix!r} changed {head.text!r} to {now.text!r}"
        assert begun(now, length) == begun(head, length), f"{prefix!r} changed {head.text!r}"
        reached = unchanging(prefix)
        if whole(f"甲\n\n{reached}").text != "甲":  # where nothing is shown yet, it is shown as it was written
            head = whole(reached)


@pytest.mark.parametrize("text", NASTY)
def test_what_is_settled_stays_as_it_is_at_every_later_prefix(text: str) -> None:
    stays(f"{text}\n\n段\n{text}"[:300])


@given(written)
def test_whatever_is_written_what_is_settled_stays(text: str) -> None:
    stays(text[:80])


# To the end, or to who knows where: then it waits.
REACHES_FAR = re.compile(r"\|\||\r|^没关")
LONG = {
    "paragraphs": "\n\n".join(f"**{number}**、" + "茶" * 400 for number in range(30)),
    "list": "".join(f"{number}. **甲**：" + "茶" * 90 + "\n   - `乙`\n" for number in range(1, 90)),
    "code": "如下：\n\n```python\n"
    + "".join(f"x[{number}] = '茶' * {number}\n\n" for number in range(500))
    + "```\n\n完。",
    "all": "\n\n".join(
        f"## 题 {number}\n\n{each}" for number, each in enumerate(NASTY * 4) if not REACHES_FAR.search(each)
    ),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("thought", ["", "思" * 900])
def test_pieces_that_are_done_while_a_text_grows_are_those_of_its_end(text: str, thought: str) -> None:
    last = pieces(text, "（已停止）", thought)
    check(last)
    assert len(last) > 2
    most = 0
    for end in range(0, len(text), 211):
        found = finished(text[:end], thought)
        assert found == last[: len(found)]
        assert len(found) >= most
        most = len(found)
        check([growing(text[:end], thought, most)])
    assert most >= len(last) - 2, "it is not done before its end"
