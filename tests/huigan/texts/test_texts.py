"""The catalogues: the same codes and placeholders in every language, none missing, none that nobody says."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from huigan.serving import errors
from huigan.texts import DEFAULT_LOCALE, LOCALES, catalogue, locale_of, text, told
from storage.records import Reason, RunState
from trainer.suite import KINDS

REPOSITORY = Path(__file__).resolve().parents[3]
# Codes of these sections are put together, or come out of data: their names alone stand in the source.
OF_DATA = {
    "act", "broadcast", "needed", "role", "error", "file", "refusal", "notice", "gate", "schedule", "stage",
    "state", "reason", "command", "report", "demo",
    "while_training", "dropped", "backup", "setting", "origin", "waits",
    "condition", "check", "doctor", "canary", "passed_over", "approval",
}  # fmt: skip


def _placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}


def _literals() -> Iterator[str]:
    """Every string in our source and pages but the catalogues' own."""
    for room in ("bot", "huigan", "schedules", "trainer", "storage"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
        for path in (REPOSITORY / room).rglob("*.jinja"):
            yield from re.findall(r'"([^"]+)"', path.read_text(encoding="utf-8"))


def _codes_said() -> Iterator[str]:
    """The second argument of every call to `text`, where it is written out."""
    for room in ("bot", "huigan"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {"text", "words"} and node.args[1:]:
                    code = node.args[1]
                    if isinstance(code, ast.Constant):
                        yield code.value


@pytest.mark.parametrize("locale", LOCALES)
def test_every_catalogue_has_the_same_codes_with_the_same_placeholders(locale: str) -> None:
    expected = {code: _placeholders(words) for code, words in catalogue(DEFAULT_LOCALE).items()}
    assert {code: _placeholders(words) for code, words in catalogue(locale).items()} == expected


@pytest.mark.parametrize("locale", LOCALES)
def test_no_text_is_empty_or_longer_than_a_message(locale: str) -> None:
    for code, words in catalogue(locale).items():
        assert words.strip(), code
        assert len(words) <= 2000, code


@pytest.mark.parametrize("locale", LOCALES)
def test_texts_that_answer_a_press_fit_into_a_callback_answer(locale: str) -> None:
    for code, words in catalogue(locale).items():
        if code.split(".")[0] in {"refusal", "rating", "reason"}:
            assert len(words) <= 200, code


def test_every_code_our_source_says_has_words() -> None:
    assert set(_codes_said()) - set(catalogue(DEFAULT_LOCALE)) == set()


def test_no_code_has_words_that_nothing_says() -> None:
    said = set(_literals()) | {state.value for state in RunState} | {reason.value for reason in Reason}
    said |= {act.replace(".", "_") for act in said if re.fullmatch(r"[a-z]+\.[a-z_]+", act)}  # as /audit tells them
    said |= {f"{kind}_lost" for kind in KINDS}  # put together in trainer.gate
    said |= {f"{each}_name" for each in said}  # of conditions, put together in bot.notices
    # Put together in huigan.operate.
    said |= {f"run_{state.lower()}" for state in RunState} | {"release_promote", "release_rollback"}
    unsaid = {
        code
        for code in catalogue(DEFAULT_LOCALE)
        if code not in said and not (code.split(".")[0] in OF_DATA and code.partition(".")[2] in said)
    }
    assert unsaid == set()


def test_every_serving_error_has_words() -> None:
    codes = {each.code for each in (errors.ServingError, *errors.ServingError.__subclasses__())}
    assert {f"error.{code}" for code in codes} - set(catalogue(DEFAULT_LOCALE)) == set()


def test_every_reason_and_run_state_has_words() -> None:
    codes = {f"reason.{reason}" for reason in Reason} | {f"state.{state}" for state in RunState}
    assert codes - set(catalogue(DEFAULT_LOCALE)) == set()


def test_a_code_of_ours_without_words_is_an_error() -> None:
    with pytest.raises(KeyError):
        text("en", "bot.nonsense")
    with pytest.raises(KeyError):
        text("en", "bot.id", user=1)


def test_a_code_out_of_data_without_words_is_shown_bare() -> None:
    assert told("en", "error", "of_a_newer_version", {"a": 1}) == "of_a_newer_version"
    assert told("en", "refusal", "unknown_run", {}) == "unknown_run"
    assert told("en", "error", "busy") == text("en", "error.busy")


def test_parameters_are_not_read_as_placeholders_themselves() -> None:
    assert "{run}" in text("en", "admin.status_live", release=1, tag="{run}", since="now")


@pytest.mark.parametrize(
    ("language_code", "locale"),
    [
        (None, "zh-Hans"), ("", "zh-Hans"), ("zh", "zh-Hans"), ("zh-hans", "zh-Hans"), ("zh-CN", "zh-Hans"),
        ("zh-sg", "zh-Hans"), ("zh-TW", "zh-Hant"), ("zh-hant", "zh-Hant"), ("zh_HK.UTF-8", "zh-Hant"),
        ("zh-hans-hk", "zh-Hans"), ("yue", "zh-Hant"), ("en", "en"), ("en-GB", "en"), ("de", "en"),
        ("C.UTF-8", "zh-Hans"), ("POSIX", "zh-Hans"),
    ],
)  # fmt: skip
def test_a_language_code_is_read_in_the_nearest_catalogue(language_code: str | None, locale: str) -> None:
    assert locale_of(language_code) == locale
