"""One call of a Bot API method as it came over the wire: its parameters, however they were encoded, and what became of
it. Knows no method."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from .refusals import bad_request

_TEXTS = frozenset({"text", "caption", "secret_token", "url", "description", "name"})


@dataclass(frozen=True)
class Upload:
    name: str
    mime_type: str
    content: bytes = field(repr=False)


class Params:
    """Telegram sees every parameter as a string, whatever the encoding: so do we."""

    def __init__(self, values: dict[str, str], uploads: dict[str, Upload]) -> None:
        self.values = values
        self.uploads = uploads

    def text(self, name: str) -> str:
        value = self.values.get(name, "")
        if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise bad_request("strings must be encoded in UTF-8")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        try:
            return int(self.values.get(name, default))
        except ValueError:
            return default

    def flag(self, name: str) -> bool:
        return self.text(name).strip().lower() in ("true", "yes", "1")

    def decoded(self, name: str, what: str) -> Any:
        """A JSON-serialised parameter; None if it was not given. `what` is Telegram's word for it."""
        if not (value := self.text(name)):
            return None
        try:
            return json.loads(value)
        except ValueError:
            raise bad_request(f"can't parse {what} JSON object") from None

    def upload(self, name: str) -> Upload | None:
        return self.uploads.get(self.text(name).removeprefix("attach://")) or self.uploads.get(name)

    def for_tests(self) -> dict[str, Any]:
        return {name: _readable(name, value) for name, value in self.values.items()} | dict(self.uploads)


def _readable(name: str, value: str) -> Any:
    if name in _TEXTS or not value or not (value[0] in "[{-" or value[0].isdigit()):
        return {"true": True, "false": False}.get(value, value) if name not in _TEXTS else value
    try:
        return json.loads(value)
    except ValueError:
        return value


@dataclass(eq=False)
class Call:
    method: str
    params: dict[str, Any]
    at: float
    status: int | None = None  # None: not answered, or the connection was dropped
    description: str = ""
    injected: bool = False
    took_effect: bool = False
    result: Any = field(default=None, repr=False)

    @property
    def is_refusal(self) -> bool:
        return self.status is not None and 400 <= self.status < 500 and not self.injected


def read_params(query: str, content_type: str, body: bytes) -> Params:
    """From the query string and a body in any of the encodings Telegram takes."""
    values, uploads = dict(parse_qsl(query, keep_blank_values=True)), dict[str, Upload]()
    if content_type.startswith("application/json"):
        values |= _from_json(body)
    elif content_type.startswith("multipart/form-data"):
        fields, uploads = _from_multipart(body, content_type.partition("boundary=")[2].strip('"'))
        values |= fields
    elif body:
        values |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return Params(values, uploads)


def _from_json(body: bytes) -> dict[str, str]:
    try:
        decoded = json.loads(body or b"{}")
    except ValueError:
        raise bad_request("can't parse JSON object") from None
    if not isinstance(decoded, dict):
        raise bad_request("object expected")
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in decoded.items()
        if value is not None
    }


def _from_multipart(body: bytes, boundary: str) -> tuple[dict[str, str], dict[str, Upload]]:
    fields, uploads = dict[str, str](), dict[str, Upload]()
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n") if ": " in line)
        names = dict(each.split("=", 1) for each in head.decode().replace("\r\n", "; ").split("; ") if "=" in each)
        name = names["name"].strip('"')
        if "filename" in names:
            mime_type = headers.get("content-type", "application/octet-stream")
            uploads[name] = Upload(names["filename"].strip('"'), mime_type, content)
        else:
            fields[name] = content.decode()
    return fields, uploads
