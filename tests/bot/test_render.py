"""Any text a release can write becomes messages that Telegram takes, with nothing of it lost."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.render import MAX_ENTITIES, MAX_UNITS, THOUGHT_UNITS, Piece, clipped, growing, pieces, plain
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
# Each of these is shown at every prefix, as it is while it grows.
NASTY = (
    "# 茶的一天\n\n清晨，**先烧水**，再*温杯*；水开到 85 ℃ 就够了。\n\n## 第二泡\n\n> 苦尽甘来，~~不苦不甜~~。",
    "| 茶 | 水温 | 时间 |\n|:--|:-:|--:|\n| 绿茶 | 80 | 1 分 |\n| **普洱** | 100 | `30` 秒 |\n\n表后一句 9。",
    "| a | b |\n|---|\n| 缺一列 | 2 |\n|| 3 ||\n| 没完 | 4",
    "设 $x^2+y^2=r^2$，则\n\n$$\n\\frac{a}{b}=\\sqrt{2}\n$$\n\n又 \\(\\alpha+1\\) 与 \\[\\sum_{i=1}^{n} i\\] 完 7。",
    "价钱是 $5 和 $10，不是公式；`\\(a\\)` 也不是，\\text 也不是 3。",
    "```python\ndef f(x: int) -> str:\n    return f\"{x}**2\"  # 注 1\n```\n后文 **粗** 2。",
    "没关的：\n```js\nconst 甲 = `x${1}`;\n**不是粗**\n<b>9</b>",
    "外 ````md\n```py\n里 1\n```\n````\n~~~\n另一种 2\n~~~\n`` a`b `` 完",
    "<b>粗</b>和 List<Map<String, 甲>>，a < b > c，<think>想 1</think>答 2 <!-- 注 3 --> &lt;i&gt; 4",
    "<div>\n<p>整块 1</p>\n</div>\n\n<script>x = 1</script>\n\n<details><summary>看</summary>里 2</details>",
    "1. 一\n   - 甲\n     1. 深 1\n        - 更深 2\n   - 乙\n2. 二\n\n   段落 3\n10. 十\n- [x] 做完 4\n- [ ] 没做 5",
    "* 星\n+ 加\n- 减\n\n    缩进的码 1\n\n***\n\n___\n题\n===\n副题\n---\n末 2",
    "👩‍👩‍👧‍👦 一家 **👨‍🚀 宇航 1** 🇨🇳🏳️‍🌈 `👍🏽` e\u0301 न\u200d्ि ~~🤷🏼‍♀️ 2~~ 𠮷𠀀 *𝒳* 3",
    "مرحبا **بالعالم** 123 ‏עברית *שלום* abc\n\n> اقتباس `كود` 中 4",
    "*a **b *c* d** e* _f __g_ h__ ***i*** **j*k**l* ~~m ~n~~ ||o p|| **q",
    "a*b*c_d_e__f__g 2*3*4=24 snake_case_name __init__ *未闭 1\n\n新段 **仍未 2",
    "> 引\n> > 引中引 1\n> - 表 2\n>   ```\n>   码 3\n>   ```\n惰性 4\n\n>没空格 5",
    "[名](http://x.y/z?a=1&b=2 \"题\") ![图 1](http://x.y/p.png) <http://a.b/c> [甲][1] [未完](http://",
    "见[^1]与[注]: 2\n\n[^1]: 说明 3\n[注]: 见下 4\n[1]: https://a.b/c\n[2]: <甲",
    "一" * 150 + "**" + "二" * 60 + "** " + "word " * 20 + "。" + "三" * 80,
    "**粗**、" * 45 + "`码`" * 30 + "终 1",
    "第一\r\n第二  \n第三\\\n第四\t1\u3000全角\u00a0空\u200b零宽\u2028行 2\x0b3",
    "\\*不是斜\\* \\# 不是题 \\`不是码\\` \\\\ \\[x\\] 反斜杠\\ 1\n\\",
    "@某人 #标签 /start https://例子.中国/路径?甲=1 a@b.co **https://x.y/_z_** 2",
    "- **键**：`值`\n  > 引 1\n\n  | a |\n  |---|\n  | 2 |\n- $a_1$ 和 $b_2$\n\n```mermaid\ngraph TD; A-->B\n```",
    "{\"a\": [1, \"<b>\", {\"c\": null}], \"d\": \"*e*\"} --- +++ === %%% 【书】《名》「话」…… —— 8",
)  # fmt: skip
_READ = r"[0-9A-Za-z\u00c0-\u024f\u0590-\u06ff\u3400-\u9fff\U00020000-\U0002fa1f]"
_MARKS = re.compile(r"\n *\d+[.)]\Z|(?<=- )\[x\]")  # a number's words tell whether it is a list's; ☑ is no x
_COMMAND = re.compile(r"\\[A-Za-z]+")
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
    check([growing(text)])


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


def reads(text: str) -> str:
    """What of a text has to arrive, whatever becomes of the rest; ² counts as 2."""
    return "".join(re.findall(_READ, unicodedata.normalize("NFKC", text)))


def text_of(tokens: Sequence[Token]) -> Iterator[str]:
    """As another library for Markdown understands it."""
    for token in tokens:
        if token.children:
            yield from text_of(token.children)
        elif token.type in {"text", "text_special", "code_inline", "code_block", "fence"}:
            yield token.content


def is_within(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


@pytest.mark.parametrize("text", NASTY)
def test_every_prefix_is_valid_and_complete_as_it_grows(text: str) -> None:
    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    for end in range(1, len(text) + 1):
        prefix = text[:end]
        found = pieces(prefix)
        check([*found, growing(prefix)])
        shown = reads("".join(piece.text for piece in found))
        # Formulas are shown in signs: `\alpha` as α.
        expected = reads(_COMMAND.sub("", "".join(text_of(reader.parse(_MARKS.sub("", prefix))))))
        assert is_within(expected, shown), f"{prefix!r} lost {expected!r} in {shown!r}"
        assert len(shown) <= len(reads(prefix)) + prefix.count("$"), f"{prefix!r} is doubled: {shown!r}"


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
    shown = growing("**头**" + "文" * 5000 + "**尾**")
    check([shown])
    assert shown.text.startswith("…\n文")
    assert shown.text.endswith("尾")
    (bold,) = shown.entities
    assert (bold["type"], bold["offset"], bold["length"]) == ("bold", units(shown.text) - 1, 1)


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
        ("[甲][1]\n\n[1]: https://a.b/c", "[甲][1]\n\n[1]: https://a.b/c"),
        ("> [1]: https://a.b/c", "[1]: https://a.b/c"),
        ("1. 甲\n   ```\n   乙\n   ```", "1. 甲\n乙"),
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
