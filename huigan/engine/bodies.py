"""JSON request bodies, decoded as Ollama's Go decodes them: same refusals, same words. Knows no endpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from huigan.engine.errors import ApiError

Body = dict[str, Any]

# What a field may be: its Python type and the name Go's error gives it.
STRING, BOOL, INT = (str, "string"), (bool, "bool"), (int, "int")
OBJECT, STRINGS = (dict, "map[string]interface {}"), (dict, "map[string]string")
MESSAGES, TOKENS = (list, "[]api.Message"), (list, "[]int")
LIST, ANY = (list, "[]interface {}"), (object, "interface {}")

Fields = Mapping[str, tuple[type, str]]

_GO_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


def decode(raw: bytes, request: str, fields: Fields) -> Body:
    """The body's known fields that are not null. `request` is Go's name for it. Raises ApiError(400)."""
    text = raw.decode(errors="replace")
    if not text.strip():
        raise ApiError(400, "missing request body")
    body = _parse(text)
    if not isinstance(body, dict):
        _mismatch(body, f"value of type api.{request}")
    known = {name: value for name, value in body.items() if name in fields and value is not None}
    for name, value in known.items():
        kind, go_type = fields[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            _mismatch(value, f"struct field {request}.{name} of type {go_type}")
    return known


def strings(value: Any, where: str) -> dict[str, str]:
    """A mapping of strings to strings. Raises ApiError(400)."""
    for item in value.values():
        if not isinstance(item, str):
            _mismatch(item, f"struct field {where} of type string")
    return dict(value)


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ApiError(400, _complaint(error, text)) from None
    except RecursionError:
        raise ApiError(400, "json: exceeded max depth") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise ApiError(400, f"json: {error}") from None
    return _whole(value) if "\\u" in text else value


def _complaint(error: json.JSONDecodeError, text: str) -> str:
    if not text[error.pos :].strip() or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    where = "after top-level value" if error.msg == "Extra data" else "looking for beginning of value"
    return f"invalid character '{text[error.pos]}' {where}"


def _refuse(constant: str) -> NoReturn:
    raise ApiError(400, f"invalid character '{constant[0]}' looking for beginning of value")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ApiError(400, f"json: cannot unmarshal number {digits} into Go value of type float64")
    return value


def _whole(value: Any) -> Any:
    """Lone surrogates, which JSON can write and UTF-8 cannot, become U+FFFD, as in Go."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value


def _mismatch(value: Any, target: str) -> NoReturn:
    kind = "null" if value is None else _GO_KINDS[type(value)]
    raise ApiError(400, f"json: cannot unmarshal {kind} into Go {target}")


def _message(value: Any, where: str) -> tuple[str, str]:
    if not isinstance(value, dict):
        _mismatch(value, f"struct field {where} of type api.Message")
    for name in ("role", "content"):
        if not isinstance(value.get(name) or "", str):
            _mismatch(value[name], f"struct field {where}.{name} of type string")
    if value.get("images"):
        raise ApiError(400, "this engine reads text only: send the message without images")
    return (value.get("role") or "").lower(), value.get("content") or ""


def messages(values: list[Any], where: str) -> list[tuple[str, str]]:
    """Role and content of each message. Raises ApiError(400)."""
    return [_message(value, where) for value in values]


def tokens(values: list[Any]) -> list[int]:
    """The `context` of an earlier answer. Raises ApiError(400)."""
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            _mismatch(value, "struct field GenerateRequest.context of type int")
    return values
