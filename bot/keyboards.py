"""The buttons under our messages and what their presses say. Pure; knows no database.

Callback data is at most 64 bytes and may be forged: it names rows by id, and whoever acts on it checks the right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from huigan.texts import text
from storage.records import Pick, Reason, Scope, Thumb

_PRESS = re.compile(r"(?a:([a-z]{1,8})((?::\d{1,18}){0,2})(?::([a-z]{1,12}))?)")
_THUMBS = {Thumb.UP: "👍", Thumb.DOWN: "👎"}


@dataclass(frozen=True)
class Press:
    act: str
    ids: tuple[int, ...] = ()
    choice: str = ""


def parse(data: str | None) -> Press | None:
    """None for what is no press of ours."""
    found = _PRESS.fullmatch(data or "")
    if found is None:
        return None
    return Press(found[1], tuple(int(each) for each in found[2].split(":") if each), found[3] or "")


def under_answer(
    answer_id: int,
    locale: str,
    thumb: Thumb | None = None,
    *,
    reasons: bool = False,
    retry_message_id: int | None = None,
) -> InlineKeyboardMarkup:
    """👍 👎 ✏️ 🔁, the thumb that was given marked, and taken back by its button; reasons, and the right answer as one
    more; or Retry in place of 🔁, for a broken answer."""
    thumbs = [
        _button(f"{sign} ✓", f"undo:{answer_id}:{given}") if thumb is given else _button(sign, f"{given}:{answer_id}")
        for given, sign in _THUMBS.items()
    ]
    again = [_button("🔁", f"again:{answer_id}")] if retry_message_id is None else []
    rows = [[*thumbs, _button("✏️", f"fix:{answer_id}"), *again]]
    if reasons:
        choices = [_button(text(locale, f"reason.{each}"), f"why:{answer_id}:{each}") for each in Reason]
        rows += [choices[:3], [*choices[3:], _button(text(locale, "button.fix"), f"fix:{answer_id}")]]
    if retry_message_id is not None:
        rows.append([_retry(retry_message_id, locale)])
    return InlineKeyboardMarkup(rows)


def stop(turn_id: int, locale: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[_button(text(locale, "button.stop"), f"stop:{turn_id}")]])


def retry(message_id: int, locale: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[_retry(message_id, locale)]])


def which_is_better(left_id: int, right_id: int, locale: str, picked: Pick | None = None) -> InlineKeyboardMarkup:
    words = {
        Pick.LEFT: text(locale, "comparison.first"),
        Pick.TIE: text(locale, "comparison.tie"),
        Pick.RIGHT: text(locale, "comparison.second"),
    }
    row = [
        _button(f"{said} ✓" if pick is picked else said, f"pick:{left_id}:{right_id}:{pick}")
        for pick, said in words.items()
    ]
    return InlineKeyboardMarkup([row])


def consent(locale: str) -> InlineKeyboardMarkup:
    agree, decline = text(locale, "button.agree"), text(locale, "button.decline")
    return InlineKeyboardMarkup([[_button(agree, "agree"), _button(decline, "decline")]])


def of_proposal(run_id: int, locale: str, *, is_tried: bool) -> InlineKeyboardMarkup:
    promote, reject = text(locale, "button.promote"), text(locale, "button.reject")
    trial = ("button.end_trial", "endtrial") if is_tried else ("button.trial", "trial")
    decide = [_button(promote, f"promote:{run_id}"), _button(reject, f"reject:{run_id}")]
    return InlineKeyboardMarkup([decide, [_button(text(locale, trial[0]), f"{trial[1]}:{run_id}")]])


def _retry(message_id: int, locale: str) -> InlineKeyboardButton:
    return _button(text(locale, "button.retry"), f"retry:{message_id}")


def _button(words: str, data: str) -> InlineKeyboardButton:
    return InlineKeyboardButton(words, callback_data=data)


def answer_edited(message_id: int, locale: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[_button(text(locale, "button.answer_edited"), f"edited:{message_id}")]])


def languages(locale: str) -> InlineKeyboardMarkup:
    """Each in its own words, whatever the reader's."""
    names = {"hans": "简体中文", "hant": "繁體中文", "en": "English"}
    row = [_button(name, f"lang:{choice}") for choice, name in names.items()]
    return InlineKeyboardMarkup([row, [_button(text(locale, "button.lang_auto"), "lang:auto")]])


def forget(locale: str) -> InlineKeyboardMarkup:
    yes, no = text(locale, "button.forget_yes"), text(locale, "button.forget_no")
    return InlineKeyboardMarkup([[_button(yes, "forget:yes")], [_button(no, "forget:no")]])


def personas(names: Sequence[str]) -> InlineKeyboardMarkup:
    """Two in a row; Telegram takes a hundred buttons."""
    buttons = [_button(name[:40], f"persona:{number}") for number, name in enumerate(names[:90])]
    return InlineKeyboardMarkup([buttons[start : start + 2] for start in range(0, len(buttons), 2)])


def scopes(locale: str) -> InlineKeyboardMarkup:
    words = {Scope.USER: "button.scope_user", Scope.THREAD: "button.scope_thread"}
    return InlineKeyboardMarkup([[_button(text(locale, words[each]), f"scope:{each}")] for each in Scope])


def fetch_again(update_id: int, locale: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[_button(text(locale, "button.retry"), f"refetch:{update_id}")]])
