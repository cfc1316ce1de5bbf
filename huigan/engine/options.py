"""Ollama's generation options: their types, their defaults, and what they are called in llama.cpp. Pure.

Unknown options are ignored, as Ollama ignores them; a known one of the wrong type is an error in Ollama's words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from huigan.engine.errors import ApiError

Options = dict[str, Any]

DEFAULTS: Mapping[str, Any] = {
    "num_ctx": 4096,
    "num_batch": 512,
    "num_thread": 0,
    "num_keep": 4,
    "num_predict": -1,
    "seed": -1,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,  # Ollama's since it runs llama-server; it was 1.1
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop": [],
}
_UNUSED = {"num_gpu": int, "main_gpu": int, "use_mmap": bool}
_TYPES: Mapping[str, type] = {**{name: type(value) for name, value in DEFAULTS.items()}, **_UNUSED}
_IN_LLAMA_CPP = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
)
_INT32 = (1 << 31) - 1
_MIN_CONTEXT_TOKENS = 4
# Ollama's bound on "without end": without one, num_predict 0 was seen to pass 49,000 tokens.
_OPEN_ENDED_CONTEXTS = 10


def merged(tag_parameters: Mapping[str, Any], asked: Mapping[str, Any]) -> Options:
    """Defaults, overlaid by the tag's parameters, overlaid by the request's options. Raises ApiError."""
    options = dict(DEFAULTS)
    for name, value in (*tag_parameters.items(), *asked.items()):
        if name in _TYPES and value is not None:
            options[name] = _checked(name, value)
    return options


def context_tokens(options: Options, trained_tokens: int) -> int:
    """num_ctx, no larger than the model was trained for."""
    wanted = int(options["num_ctx"])
    return max(_MIN_CONTEXT_TOKENS, min(wanted, trained_tokens or wanted))


def completion_request(options: Options, context: int) -> dict[str, Any]:
    """The options under llama.cpp's names."""
    limit = _OPEN_ENDED_CONTEXTS * context
    wanted = options["num_predict"]
    return {name: options[name] for name in _IN_LLAMA_CPP} | {
        "n_predict": wanted if 0 < wanted <= limit else limit,
        "n_keep": options["num_keep"],
        "stop": [stop for stop in options["stop"] if stop],  # an empty one would stop every answer at once
        "seed": options["seed"] & 0xFFFFFFFF,  # -1 is llama.cpp's word for random
    }


def grammar(form: Any) -> dict[str, Any]:
    """What binds the answer to a `format`: "json", a JSON schema, or nothing. Raises ApiError."""
    if form is None or form == "":
        return {}
    if form == "json":
        return {"json_schema": {"type": "object"}}
    if isinstance(form, dict):
        return {"json_schema": form}
    raise ApiError(500, f'invalid format: {form!r}; expected "json" or a valid JSON Schema object')


def _checked(name: str, value: Any) -> Any:
    kind = _TYPES[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        _require(number, name, "integer")
        return max(-_INT32, min(_INT32, int(value)))
    if kind is float:
        _require(number, name, "float32")
        return float(value)
    if kind is bool:
        _require(isinstance(value, bool), name, "boolean")
        return value
    _require(isinstance(value, list), name, "array")
    if not all(isinstance(item, str) for item in value):
        raise ApiError(500, f'option "{name}" must be of an array of strings')
    return value


def _require(holds: bool, name: str, kind: str) -> None:
    if not holds:
        raise ApiError(500, f'option "{name}" must be of type {kind}')


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def keep_alive_seconds(value: Any) -> float | None:
    """Ollama's keep_alive: seconds or a Go duration, for ever where negative; None where not given. Raises ApiError."""
    if value is None:
        return None
    if isinstance(value, str):
        seconds = _go_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        kinds = {bool: "bool", list: "[]interface {}"}
        raise ApiError(400, f"Unsupported type: '{kinds.get(type(value), 'map[string]interface {}')}'")
    return math.inf if seconds < 0 else seconds


def _go_duration(text: str) -> float:
    if not _DURATION.fullmatch(text):
        number = re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)", text)
        raise ApiError(400, f'time: {"missing unit in" if number else "invalid"} duration "{text}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return -seconds if text.startswith("-") else seconds
