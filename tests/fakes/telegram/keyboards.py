"""What Telegram accepts as `reply_markup`. Knows no message and no press."""

from __future__ import annotations

from typing import Any

from .refusals import bad_request

Markup = dict[str, Any]

MAX_CALLBACK_DATA_BYTES = 64
MAX_BUTTONS = 100
_OTHER_ACTIONS = (
    "callback_game", "pay", "switch_inline_query", "switch_inline_query_current_chat",
    "switch_inline_query_chosen_chat", "web_app", "login_url", "copy_text",
)  # fmt: skip
_URL_SCHEMES = ("http://", "https://", "tg://", "ton://")


def check_markup(decoded: object, *, inline_only: bool) -> Markup | None:
    """The inline keyboard, if that is what was given; other kinds are checked and kept nowhere."""
    if decoded is None or decoded == {}:
        return None
    if not isinstance(decoded, dict):
        raise bad_request("object expected as reply markup")
    if "inline_keyboard" in decoded:
        rows = _check_inline_rows(decoded["inline_keyboard"])
        return {"inline_keyboard": rows} if rows else None
    if inline_only:
        raise bad_request("inline keyboard expected")
    if "keyboard" in decoded:
        _check_reply_rows(decoded["keyboard"])
    return None


def _rows(decoded: object, field: str) -> list[list[Any]]:
    if not isinstance(decoded, list):
        raise bad_request(f'field "{field}" of the ReplyMarkup must be an Array of Arrays')
    if not all(isinstance(row, list) for row in decoded):
        raise bad_request(f'field "{field}" must be an Array of Arrays')
    return [row for row in decoded if row]


def _check_inline_rows(decoded: object) -> list[list[Any]]:
    rows = _rows(decoded, "inline_keyboard")
    for row in rows:
        for button in row:
            _check_inline_button(button)
    if sum(map(len, rows)) > MAX_BUTTONS:
        raise bad_request("reply markup is too long")
    return rows


def _check_inline_button(button: object) -> None:
    if not isinstance(button, dict):
        raise bad_request("can't parse inline keyboard button: InlineKeyboardButton must be an Object")
    for field in ("text", "url", "callback_data"):
        if field == "text" and field not in button:
            raise bad_request("can't parse inline keyboard button: Can't find field \"text\"")
        if not isinstance(button.get(field, ""), str):
            raise bad_request(f'can\'t parse inline keyboard button: Field "{field}" must be of type String')
    url, data = button.get("url", ""), button.get("callback_data", "")
    if not url and not data and not any(action in button for action in _OTHER_ACTIONS):
        raise bad_request("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if not button["text"].strip():
        raise bad_request("inline keyboard button text must be non-empty")
    if url and not url.startswith(_URL_SCHEMES) and "." not in url:
        raise bad_request(f"inline keyboard button URL '{url}' is invalid: Wrong HTTP URL")
    if not url and len(data.encode()) > MAX_CALLBACK_DATA_BYTES:
        raise bad_request("BUTTON_DATA_INVALID")


def _check_reply_rows(decoded: object) -> None:
    for row in _rows(decoded, "keyboard"):
        for button in row:
            text = button.get("text") if isinstance(button, dict) else button
            if not isinstance(text, str):
                raise bad_request("can't parse keyboard button: KeyboardButton must be a String or an Object")
            if not text.strip():
                raise bad_request("keyboard button text must be non-empty")
