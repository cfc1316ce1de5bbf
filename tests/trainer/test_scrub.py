"""Personal data is found by its form, replaced alike in all texts of a row, and never looked for in code."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import scrub


def scrubbed(*given: str) -> list[str]:
    return scrub.texts(given)[0]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("我的手机是13800138000。", "我的手机是[PHONE_1]。"),
        ("call +86 138-0013-8000, tel13800138000", "call [PHONE_1], tel[PHONE_1]"),
        ("打１３８００１３８０００", "打[PHONE_1]"),
        ("138 0013 8000", "[PHONE_1]"),
        ("身份证号11010519491231002X。", "身份证号[ID_1]。"),
        ("身份证：110105 19491231 002x", "身份证：[ID_1]"),
        ("卡号4111 1111 1111 1111", "卡号[CARD_1]"),
        ("卡号6222021234567890128和378282246310005", "卡号[CARD_1]和[CARD_2]"),
        ("写信到foo.bar+1@mail.example.com。", "写信到[EMAIL_1]。"),
        ("IP 是203.0.113.7，还有2001:db8::ff00:42:8329", "IP 是[IP_1]，还有[IP_2]"),
        ("加我微信 lovetea_88", "加我微信 [WECHAT_1]"),
        ("微信号：lovetea", "微信号：[WECHAT_1]"),
        ("WeChat ID: john-doe", "WeChat ID: [WECHAT_1]"),
        ("vx:abc123456", "vx:[WECHAT_1]"),
        ("微信13800138000", "微信[PHONE_1]"),
        ("QQ：123456789，qq群 7654321", "QQ：[QQ_1]，qq群 [QQ_2]"),
        ("问问 @tea_house 吧", "问问 [HANDLE_1] 吧"),
        ("@张三 你好", "[HANDLE_1] 你好"),
        ("https://t.me/teahouse", "https://t.me/[HANDLE_1]"),
    ],
)
def test_personal_data_is_replaced(text: str, clean: str) -> None:
    assert scrubbed(text) == [clean]


@pytest.mark.parametrize(
    "text",
    [
        "圆周率是3.14159265358979323846",
        "订单号 A13800138000 和 1380013800012",
        "身份证号110105194912310021",  # its checksum is another
        "卡号4111111111111112",
        "2024-11-24 12:30:45",
        "版本 1.2.3.4.5 和 999.1.1.1，本机 127.0.0.1、0.0.0.0、::1",
        "std::vector 和 a::b",
        "微信支付很方便，微信公众号也是。wechat official account, wxPython",
        "QQ音乐有 3 首歌",
        "@property\ndef name(self): ...",
        "@app.route('/') @Override @media @types/node",
        "3 @ 5",
        "一共 100 元，2024 年 11 月",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert scrubbed(text) == [text]


@pytest.mark.parametrize(
    "code",
    [
        "`13800138000`",
        "``a`b 13800138000``",
        "```\n13800138000\na@b.com\n```",
        "~~~py\nx = '@tea_house'\n~~~",
        "```\na@b.com",
    ],
)
def test_code_is_left_as_it_is_and_what_surrounds_it_is_not(code: str) -> None:
    assert scrubbed(f"打13900139000\n{code}") == [f"打[PHONE_1]\n{code}"]


def test_after_a_fence_that_is_closed_there_is_prose_again_and_a_lone_tick_opens_nothing() -> None:
    assert scrubbed("```\n13800138000\n```\n打13800138000") == ["```\n13800138000\n```\n打[PHONE_1]"]
    assert scrubbed("a ` b\n\n打13800138000\n\nc ` d") == ["a ` b\n\n打[PHONE_1]\n\nc ` d"]


def test_equal_data_have_equal_placeholders_in_all_texts_of_a_row() -> None:
    texts, found = scrub.texts(["从13800138000打到13900139000", "+8613900139000没有人接，13800138000有"])
    assert texts == ["从[PHONE_1]打到[PHONE_2]", "[PHONE_2]没有人接，[PHONE_1]有"]
    assert found.kinds == {"phone": 4}


@given(st.text())
def test_scrubbing_twice_changes_no_more_and_parts_are_the_text(text: str) -> None:
    assert "".join(part for part, _ in scrub.parts(text)) == text
    once = scrubbed(text)
    assert scrubbed(*once) == once


@given(st.integers(0, 899_999), st.dates(date(1900, 1, 1), date(2099, 12, 31)), st.integers(0, 999))
def test_every_identity_number_has_one_right_check_digit(place: int, born: date, order: int) -> None:
    number = f"{100_000 + place}{born:%Y%m%d}{order:03}"
    right = [each for each in "0123456789X" if scrub.is_identity_number(number + each)]
    assert len(right) == 1
    assert scrubbed(f"号码{number}{right[0]}。") == ["号码[ID_1]。"]


@given(st.integers(10**14, 10**15 - 1))
def test_every_card_number_has_one_right_check_digit(number: int) -> None:
    assert sum(scrub.is_card(f"4{number}{digit}") for digit in range(10)) == 1
