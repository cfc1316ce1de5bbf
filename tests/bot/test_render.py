"""Any text a release can write becomes messages that Telegram takes, with nothing of it lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.render import MAX_ENTITIES, MAX_UNITS, THOUGHT_UNITS, Piece, clipped, frame, pieces, plain
from tests.fakes.telegram.entities import check_entities

FRAGMENTS = (
    "**",
    "*",
    "_",
    "__",
    "`",
    "~~",
    "||",
    "\n",
    "\n\n",
    "- ",
    "1. ",
    "> ",
    "# ",
    "```python\n",
    "```\n",
    "| a | b |\n|--|--|\n",
    "$x^2$",
    "$$\n\\frac{a}{b}\n$$",
    "[名](http://x.y/z)",
    "![图](http://x.y)",
    "<b>",
    "</think>",
    "List<String>",
    "\\<",
    "\\",
    "&lt;",
    "回甘是先苦后甜。",
    "word ",
    "😀",
    "👩\u200d👧",
    " ",
    "\t",
    "---\n",
    "- [x] 做完\n",
    "123",
    "a" * 300,
    "\ud800",
    "\0",
    "\ue000",
)
texts = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join))


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def check(found: list[Piece]) -> None:
    assert found
    for piece in found:
        assert 0 < units(piece.text) <= MAX_UNITS
        assert piece.text == piece.text.strip()
        assert len(piece.entities) <= MAX_ENTITIES
        for entity in piece.entities:
            assert 0 <= entity["offset"] < entity["offset"] + entity["length"] <= units(piece.text)
        check_entities(piece.text, [dict(entity) for entity in piece.entities])  # raises as Telegram refuses


@given(texts, st.sampled_from(["", "（已停止）"]))
def test_whatever_is_written_every_piece_is_valid(markdown: str, note: str) -> None:
    found = pieces(markdown, note)
    check(found)
    assert found[-1].text.endswith(note)


@given(texts)
def test_a_growing_text_always_has_a_valid_frame(text: str) -> None:
    assert units(frame(text)) <= MAX_UNITS
    frame(text).encode("utf-8")


@given(
    st.lists(st.sampled_from(["回甘", "茶。", "abc ", "123\n", "**粗**", "`码`", "List<String>", "\n\n"]), max_size=400)
)
def test_letters_digits_and_chinese_come_out_complete_and_in_order(fragments: list[str]) -> None:
    written = "".join(fragments)
    shown = "".join(piece.text for piece in pieces(written))
    assert re.findall(r"[0-9A-Za-z\u4e00-\u9fff<>]", shown) == re.findall(r"[0-9A-Za-z\u4e00-\u9fff<>]", written)


@pytest.mark.parametrize("text", ["List<String>", "<think>嗯</think>答案", "a < b > c", "`x<y>`", "```\n<html>\n```"])
def test_what_looks_like_html_is_text(text: str) -> None:
    assert pieces(text)[0].text == text.replace("```\n", "").replace("\n```", "").strip("`")


def test_markdown_becomes_entities_and_a_language_stays_with_its_code() -> None:
    (piece,) = pieces("# 题\n\n**粗**\n\n```python\nprint(1)\n```\n[链](https://a.b/c?d=<e>)")
    kinds = {entity["type"]: entity for entity in piece.entities}
    assert {"bold", "pre", "text_link"} <= set(kinds)
    assert kinds["pre"]["language"] == "python"
    assert kinds["text_link"]["url"] == "https://a.b/c?d=<e>"


def test_a_text_that_renders_to_nothing_is_shown_as_it_was_written() -> None:
    assert pieces("[]()")[0].text == "[]()"
    assert pieces("")[0].text


def test_a_long_text_is_cut_between_paragraphs() -> None:
    paragraph = "回甘" * 700
    found = pieces("\n\n".join([paragraph] * 5))
    assert [piece.text for piece in found] == ["\n\n".join([paragraph] * 2)] * 2 + [paragraph]


def test_a_long_line_is_cut_after_a_sentence() -> None:
    found = plain("这是一句话。" * 2000)
    assert all(piece.text.endswith("。") for piece in found)


def test_an_emoji_is_never_cut_in_half() -> None:
    assert "".join(piece.text for piece in plain("😀" * 5000)) == "😀" * 5000


def test_many_entities_are_spread_over_several_messages_and_none_is_lost() -> None:
    found = pieces("\n".join(f"**{number}**" for number in range(350)))
    check(found)
    assert sum(len(piece.entities) for piece in found) == 350


def test_code_that_is_cut_stays_code_in_both_pieces() -> None:
    found = pieces("```python\n" + "x = 1\n" * 1500 + "```")
    assert len(found) > 2
    assert [[entity["type"] for entity in piece.entities] for piece in found] == [["pre"]] * len(found)


def test_a_clipped_text_says_so() -> None:
    assert clipped("一二三四", 3) == "一二…"
    assert clipped("一二三", 3) == "一二三"
    assert units(clipped("😀" * 9, 4)) <= 4


def test_a_frame_of_a_long_text_shows_its_end() -> None:
    shown = frame("头" + "文" * 5000 + "尾")
    assert shown.startswith("…")
    assert shown.endswith("尾")


def test_what_was_thought_is_folded_above_the_answer_and_shortened() -> None:
    found = pieces("**答**案", "（已停止）", "思" * 5000)
    check(found)
    (piece,) = found
    folded, bold, _ = piece.entities
    assert (folded["type"], folded["offset"], folded["length"]) == ("expandable_blockquote", 0, THOUGHT_UNITS)
    assert piece.text[THOUGHT_UNITS:] == "\n答案\n\n（已停止）"
    assert (bold["type"], bold["offset"], bold["length"]) == ("bold", THOUGHT_UNITS + 1, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`\\(\\alpha+\\beta\\)`", "\\(\\alpha+\\beta\\)"),
        ("```python\nre.compile(r'\\(\\sum x\\)')", "re.compile(r'\\(\\sum x\\)')"),
        ("见[^1]\n\n[^1]: 说明", "见[^1]\n\n[^1]: 说明"),
        ("[注]: 见下", "[注]: 见下"),
        ("[1]: https://a.b/c", "[1]: https://a.b/c"),
        ("[甲][1]\n\n[1]: https://a.b/c", "甲"),
    ],
)
def test_what_markdown_would_swallow_is_shown(text: str, shown: str) -> None:
    assert pieces(text)[0].text == shown


def test_a_language_is_one_word_and_there_are_no_quotes_in_quotes() -> None:
    (piece,) = pieces('```python title="x"\nx\n```\n\n> > 深\n> 浅')
    assert [(each["type"], each.get("language")) for each in piece.entities] == [
        ("pre", "python"),
        ("blockquote", None),
    ]
