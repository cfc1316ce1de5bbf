"""The fake's parser against Telegram's documented cases and error texts, and against every text at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegramify_markdown import convert

from tests.fakes.telegram.entities import check_entities, spot_entities, strip_ends, utf16_length
from tests.fakes.telegram.markup import parse_markup
from tests.fakes.telegram.refusals import Refusal


def entity(kind: str, offset: int, length: int, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "offset": offset, "length": length, **extra}


ACCEPTED: list[tuple[str, str, str, list[dict[str, Any]]]] = [
    ("HTML", "➡️ ➡️<b>➡️ ➡️</b>", "➡️ ➡️➡️ ➡️", [entity("bold", 5, 5)]),
    ("HTML", "&lt;&gt;&amp;&quot;&laquo;&#65;", '<>&"&laquo;A', []),
    ("HTML", "<b>a<i>b</i></b>", "ab", [entity("bold", 0, 2), entity("italic", 1, 1)]),
    ("HTML", "<EM>a</em  >", "a", [entity("italic", 0, 1)]),
    ("HTML", '<a href="http://a.b/?c&amp;d">x</a>', "x", [entity("text_link", 0, 1, url="http://a.b/?c&d")]),
    ("HTML", '<pre><code class="language-py">x</code></pre>', "x", [entity("pre", 0, 1, language="py")]),
    ("HTML", "<pre>x</pre><code>y</code>", "xy", [entity("pre", 0, 1), entity("code", 1, 1)]),
    ("HTML", '<span class="tg-spoiler">x</span>', "x", [entity("spoiler", 0, 1)]),
    ("HTML", "<blockquote expandable>x</blockquote>", "x", [entity("expandable_blockquote", 0, 1)]),
    ("HTML", "<b></b>a", "a", []),
    ("MarkdownV2", "*字*_b_", "字b", [entity("bold", 0, 1), entity("italic", 1, 1)]),
    ("MarkdownV2", "*a _b_*", "a b", [entity("bold", 0, 3), entity("italic", 2, 1)]),
    ("MarkdownV2", "__a__~b~||c||", "abc", [
        entity("underline", 0, 1), entity("strikethrough", 1, 1), entity("spoiler", 2, 1),
    ]),
    ("MarkdownV2", r"1\. \*a\*", "1. *a*", []),
    ("MarkdownV2", "`a.b!`", "a.b!", [entity("code", 0, 4)]),
    ("MarkdownV2", "```py\nx = 1\n```", "x = 1", [entity("pre", 0, 5, language="py")]),
    ("MarkdownV2", r"[x](http://a.b/\))", "x", [entity("text_link", 0, 1, url="http://a.b/)")]),
    ("MarkdownV2", ">a\n>b\nc", "a\nb\nc", [entity("blockquote", 0, 3)]),
    ("MarkdownV2", "**>a\n>b||", "a\nb", [entity("expandable_blockquote", 0, 3)]),
    ("Markdown", "*a* _b_ `c` [d](e.f)", "a b c d", [
        entity("bold", 0, 1), entity("italic", 2, 1), entity("code", 4, 1), entity("text_link", 6, 1, url="e.f"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "source", "text", "entities"), ACCEPTED)
def test_good_markup_becomes_text_and_entities(
    mode: str, source: str, text: str, entities: list[dict[str, Any]]
) -> None:
    assert parse_markup(source, mode) == (text, entities)


REFUSED = [
    ("HTML", "🏟 🏟&lt;<abacaba", "Unclosed start tag at byte offset 13"),
    ("HTML", "🏟 🏟&lt;<abac aba>", 'Unsupported start tag "abac" at byte offset 13'),
    ("HTML", "a < b", 'Unsupported start tag "" at byte offset 2'),
    ("HTML", "<think>", 'Unsupported start tag "think" at byte offset 0'),
    ("HTML", "🏟 🏟&lt;<i   =aba>", 'Empty attribute name in the tag "i" at byte offset 13'),
    ("HTML", "🏟 🏟&lt;<i    aba>", 'Can\'t find end tag corresponding to start tag "i"'),
    ("HTML", "🏟 🏟&lt;<i    aba  =  ", 'Unclosed start tag "i" at byte offset 13'),
    ("HTML", '<a href="x"', "Unclosed start tag at byte offset 0"),
    ("HTML", "🏟 🏟&lt;<i    aba  =  190azAz-.,", "Unexpected end of name token at byte offset 27"),
    ("HTML", '🏟 🏟&lt;<i    aba  =  "&lt;&gt;&quot;>', "Unclosed start tag at byte offset 13"),
    ("HTML", "🏟 🏟&lt;</", "Unexpected end tag at byte offset 13"),
    ("HTML", "🏟 🏟&lt;<b></b></", "Unexpected end tag at byte offset 20"),
    ("HTML", "🏟 🏟&lt;<i>a</i   ", "Unclosed end tag at byte offset 17"),
    ("HTML", "🏟 🏟&lt;<i>a</em   >", 'Unmatched end tag at byte offset 17, expected "</i>", found "</em>"'),
    ("HTML", "<span>x</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
    ("MarkdownV2", "字 *a", "Can't find end of Bold entity at byte offset 4"),
    ("MarkdownV2", "`a", "Can't find end of Code entity at byte offset 0"),
    ("MarkdownV2", "```\na", "Can't find end of Pre entity at byte offset 0"),
    ("MarkdownV2", "[a](b", "Can't find end of a URL at byte offset 4"),
    ("MarkdownV2", "![a]", "Custom emoji entity must contain a tg://emoji URL at byte offset 0"),
    ("MarkdownV2", "a > b", "Character '>' is reserved and must be escaped with the preceding '\\'"),
    ("MarkdownV2", "a!", "Character '!' is reserved and must be escaped with the preceding '\\'"),
    ("MarkdownV2", "- a", "Character '-' is reserved and must be escaped with the preceding '\\'"),
    ("Markdown", "snake_case", "Can't find end of the entity starting at byte offset 5"),
]


@pytest.mark.parametrize(("mode", "source", "reason"), REFUSED)
def test_bad_markup_is_refused_in_telegrams_words(mode: str, source: str, reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_markup(source, mode)
    assert refusal.value.description == f"Bad Request: can't parse entities: {reason}"


@given(
    st.sampled_from(["HTML", "MarkdownV2", "Markdown"]),
    st.lists(st.sampled_from([*"<>&/=\"'*_`~|[]()!\\\n a字😀", "</", "```", "<b>", "</b>", "<a href=", "**>"])),
)
def test_any_markup_is_refused_or_gives_entities_inside_its_text(mode: str, pieces: list[str]) -> None:
    found = parsed("".join(pieces), mode)
    if isinstance(found, str):
        assert found.startswith("Bad Request: can't parse entities: ")
    else:
        text, entities = found
        assert [each for each in check_entities(text, entities) if each not in entities] == []


def parsed(source: str, mode: str) -> tuple[str, list[dict[str, Any]]] | str:
    try:
        return parse_markup(source, mode)
    except Refusal as refusal:
        return refusal.description


@given(st.text(st.sampled_from(" \n\ta字😀/@.b")), st.data())
def test_trimming_keeps_every_entity_on_its_own_characters(text: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, len(text)))
    covered = entity("bold", utf16_length(text[:begin]), utf16_length(text[begin:end]))
    trimmed, entities = strip_ends(text, check_entities(text, [covered]))
    units = trimmed.encode("utf-16-le")
    found = [units[each["offset"] * 2 : (each["offset"] + each["length"]) * 2].decode("utf-16-le") for each in entities]
    wanted = text[begin:end].strip()
    assert [each.strip() for each in found] == ([wanted] if wanted else [])


def test_a_users_text_gets_its_commands_mentions_and_links() -> None:
    found = spot_entities("/fix@huigan_bot 😀 @huigan_bot https://a.b/c")
    assert [(each["type"], each["offset"], each["length"]) for each in found] == [
        ("bot_command", 0, 15),
        ("mention", 19, 11),
        ("url", 31, 13),
    ]


def test_what_the_bot_renders_with_is_accepted() -> None:
    source = "# 标题\n\n- **粗** `code`\n\n```py\nx = 1\n```\n\n> 引\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    text, entities = convert(source)
    given_entities = [each.to_dict() for each in entities]
    assert len(check_entities(text, given_entities)) == len(given_entities) > 3
