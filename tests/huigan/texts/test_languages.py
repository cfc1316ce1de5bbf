"""Each catalogue is in its own language: its script, its region's words, its punctuation; buttons fit a phone."""

from __future__ import annotations

import re
import unicodedata

import pytest
from wcwidth import wcswidth

from huigan.texts import catalogue

CHINESE = ("zh-Hans", "zh-Hant")
# Characters that both scripts have and Traditional writes otherwise here, and words for which our zh-Hant has Taiwan's.
NOT_TRADITIONAL = (
    "里", "后", "于", "并", "回复", "信息", "消息", "短信", "數據", "默認", "缺省", "設置", "文件", "視頻", "音頻",
    "內存", "硬盤", "磁盤", "顯卡", "顯存", "軟件", "硬件", "服務器", "運行", "命令", "模板", "程序員", "進程", "鏈接",
    "導出", "加載", "支持", "反饋", "用戶", "發佈", "批准", "重啟", "概率", "回退", "登錄", "屏幕", "菜單",
)  # fmt: skip
# Taiwan's words, written in simplified characters.
NOT_SIMPLIFIED = (
    "讯息", "资讯", "资料库", "资料集", "资料夹", "档案", "预设", "设定档", "影片", "记忆体", "磁碟", "硬碟", "显示卡",
    "软体", "伺服器", "网路", "程式", "范本", "连结", "汇出", "载入", "回馈", "使用者", "机率", "贴图", "字元", "位元",
    "「", "」",
)  # fmt: skip
# In Chinese sentences: names, units, and what is typed as it stands (commands, options, settings, files, keys).
AS_IT_STANDS = """
    Ollama Telegram GGUF SFT DPO ORPO KTO FlashAttention CPU GB GiB UTC UTF JPEG PNG JSON txt md csv Ctrl C D F
    huigan base add trainer schedules pip install weights template cron
    auto sft dpo kto orpo dry default admin replay start tune processes patience wrong language long unsafe other
    up backup apt postgresql client PostgreSQL MB force chrony OLLAMA HOST
    TELEGRAM BOT TOKEN BASE URL BotFather env chat migrate NVIDIA HF ENDPOINT https hf mirror com release rollback
    restore train
"""
# One row of two or three (bot.keyboards, bot.broadcast, bot.people); a three's may also bear a tick.
IN_TWOS = (
    "button.agree", "button.decline", "button.promote", "button.reject", "button.scope_user", "button.scope_thread",
    "broadcast.go", "broadcast.stop", "people.make_admin", "people.make_user", "people.block", "people.unblock",
    "people.admit", "button.fix",
)  # fmt: skip
IN_THREES = (
    "comparison.first", "comparison.second", "comparison.tie",
    "reason.wrong", "reason.language", "reason.long", "reason.unsafe", "reason.other",
)  # fmt: skip


def _of_the_other_script(locale: str, of: str) -> dict[str, set[str]]:
    """By code, the characters of catalogue `locale` that are never written in the script of catalogue `of`."""
    identifier = pytest.importorskip("hanzidentifier")
    other = identifier.SIMPLIFIED if of == "zh-Hant" else identifier.TRADITIONAL
    found = {code: {each for each in words if identifier.identify(each) == other} for code, words in _words(locale)}
    return {code: strays for code, strays in found.items() if strays}


def _words(locale: str) -> list[tuple[str, str]]:
    return list(catalogue(locale).items())


def _without_parameters(words: str) -> str:
    return re.sub(r"\{[^}]*\}", "", words)


@pytest.mark.parametrize("locale", CHINESE)
def test_no_character_is_of_the_other_script(locale: str) -> None:
    assert _of_the_other_script(locale, of=locale) == {}


@pytest.mark.parametrize(("locale", "of"), [CHINESE, CHINESE[::-1]])
def test_most_texts_of_the_other_script_would_be_found(locale: str, of: str) -> None:
    assert len(_of_the_other_script(locale, of=of)) > 0.8 * len(catalogue(locale))


@pytest.mark.parametrize(("locale", "foreign"), [("zh-Hant", NOT_TRADITIONAL), ("zh-Hans", NOT_SIMPLIFIED)])
def test_no_word_is_of_the_other_region(locale: str, foreign: tuple[str, ...]) -> None:
    assert {code: each for code, words in _words(locale) for each in foreign if each in words} == {}


@pytest.mark.parametrize("locale", CHINESE)
def test_no_english_word_is_left_in_chinese(locale: str) -> None:
    """But for what is typed as it stands: /commands, SETTINGS and the words above."""
    typed = r"/[a-z_]+(?:[ |][a-z]+)*|HUIGAN_[A-Z_]+|DATABASE_URL|@"
    for code, words in _words(locale):
        left = re.findall("[A-Za-z]+", re.sub(typed, " ", _without_parameters(words)))
        assert set(left) <= set(re.findall("[A-Za-z]+", AS_IT_STANDS)), code


@pytest.mark.parametrize("locale", CHINESE)
def test_punctuation_between_chinese_is_full_width(locale: str) -> None:
    half = r"[\u4e00-\u9fff][,;:!?()]|[,;:!?()][\u4e00-\u9fff]|[\u4e00-\u9fff]\.(?:$|\s)|[\u4e00-\u9fff]\.\.\."
    assert {code: words for code, words in _words(locale) if re.search(half, words)} == {}


def test_no_chinese_is_left_in_english() -> None:
    for code, words in _words("en"):
        wide = {each for each in words if unicodedata.east_asian_width(each) in "WF"}
        assert not {each for each in wide if unicodedata.category(each)[0] in "LPZ"}, code


@pytest.mark.parametrize("locale", [*CHINESE, "en"])
def test_buttons_side_by_side_fit_a_phone(locale: str) -> None:
    texts = catalogue(locale)
    assert {code: texts[code] for code in IN_TWOS if wcswidth(_without_parameters(texts[code])) > 16} == {}
    assert {code: texts[code] for code in IN_THREES if wcswidth(texts[code]) > 10} == {}


@pytest.mark.parametrize("locale", [*CHINESE, "en"])
def test_the_menu_of_commands_fits_what_telegram_takes(locale: str) -> None:
    """setMyCommands: descriptions of 1 to 256 characters; beyond about 60 columns a phone cuts them off."""
    menu = {code: words for code, words in _words(locale) if code.startswith("command.")}
    assert menu
    assert {code: words for code, words in menu.items() if wcswidth(words) > 60} == {}


def test_the_person_spoken_to_is_addressed_alike_everywhere() -> None:
    for locale in CHINESE:
        assert {code for code, words in _words(locale) if "您" in words} == set()
