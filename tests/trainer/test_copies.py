"""Near copies are found in Chinese and in English, and what differs in a number or a word that matters is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import copies
from trainer.copies import Said

LONG = "回甘茶馆在柳叶巷十二号，早上七点半开门，晚上九点关门，周三乌龙茶半价，周末有人弹琴。"
PLAIN = "茶馆在河边的小巷里，门口有棵老槐树，早上开门，晚上关门，乌龙茶常常打折，周末有人弹琴。"
ENGLISH = (
    "The tea house opens at half past seven in the morning and closes at nine; oolong is half price on Wednesdays."
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Said("茶馆在哪里？", LONG), Said("茶馆在哪里", LONG.replace("，", " , "))),
        (Said("茶馆在哪里？", LONG), Said("茶馆在哪里？", LONG.replace("有人弹琴", "有人弹琴哦"))),
        (Said("ＴＥＡ ｗｈｅｒｅ？", "yes"), Said("tea where", "Yes!")),
        (Said("When is it open?", ENGLISH), Said("When is it open?", ENGLISH.replace("Wednesdays", "wednesday"))),
    ],
)
def test_what_says_the_same_almost_in_the_same_words_is_a_copy(one: Said, other: Said) -> None:
    assert copies.firsts([one, other], 0.8) == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Said("茶馆在哪里？", LONG), Said("茶馆在哪里？", LONG.replace("七点半", "八点半"))),  # another fact
        (Said("问题", LONG + "价格 35 元"), Said("问题", LONG + "价格 36 元")),
        (Said("什么是苹果？", "苹果是一种水果。"), Said("什么是香蕉？", "香蕉是一种水果。")),  # one template
        (Said("茶馆在哪里？", LONG), Said("请介绍一下你们的茶馆吧。", LONG)),  # asked otherwise
        (Said("继续", LONG, "讲讲茶馆"), Said("继续", LONG, "讲讲咖啡馆的历史和现在")),  # said after something else
        (Said("你好", "好", kind="a"), Said("你好", "好", kind="b")),
        (Said("你好", "好🍵"), Said("你好", "好🙂")),
    ],
)
def test_what_says_something_else_is_no_copy(one: Said, other: Said) -> None:
    assert copies.firsts([one, other], 0.8) == [0, 1]


def test_at_one_only_punctuation_may_differ() -> None:
    said = [Said("茶馆？", LONG), Said("茶馆!", LONG + "。"), Said("茶馆？", LONG.replace("有人弹琴", "有人弹琴哦"))]
    assert copies.firsts(said, 1) == [0, 0, 2]


@pytest.mark.parametrize("least", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_what_is_as_alike_as_the_bar_is_found(least: float) -> None:
    said = [Said(f"问{chr(0x5100 + n)}题？", chr(0x5100 + n) * 3 + PLAIN) for n in range(40)]
    said += [Said(each.question, each.answer[: round(len(each.answer) * (1 + least) / 2)]) for each in said]
    expected = [n for n in range(40) if copies.are_near(said[n], said[n + 40], least)]
    found = copies.firsts(said, least)
    assert len(expected) == 40
    assert sum(found[n + 40] != n + 40 for n in expected) == 40


SAID = st.builds(
    Said,
    st.sampled_from(["几点？", "几点开门？", "在哪里？"]),
    st.text(st.sampled_from("茶馆开门早上晚二三"), max_size=12),
    kind=st.sampled_from("ab"),
)


@given(st.lists(SAID, max_size=25), st.integers(0, 25))
def test_what_comes_later_changes_nothing_for_what_came_before(said: list[Said], cut: int) -> None:
    found = copies.firsts(said, 0.8)
    assert copies.firsts(said[:cut], 0.8) == found[:cut]
    assert all(found[each] == each for each in found)  # no copy of a copy
    assert all(found[place] <= place and said[found[place]].kind == said[place].kind for place in range(len(said)))
    assert found == copies.firsts(list(said), 0.8)
