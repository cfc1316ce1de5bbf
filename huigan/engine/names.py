"""Ollama's tag names: `[host/][namespace/]model[:tag]`, with defaults filled in. Knows nothing of what is stored.

The shape and limits follow Ollama's types/model/name.go, so that a models folder can be shared with it. A valid part
begins with a letter, digit or underscore: no name can climb out of the folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, order=True)
class Name:
    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """The shortest form that means this name; the tag is always written."""
        short = f"{self.model}:{self.tag}"
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    def matches(self, other: Name) -> bool:
        """Names that differ only in case are one name, as on case-insensitive file systems."""
        return self.full.casefold() == other.full.casefold()


def parse(text: str) -> Name | None:
    """A name with its defaults filled in, or None where it is none."""
    tag = DEFAULT_TAG
    if text.rfind(":") > text.rfind("/"):
        text, _, tag = text.rpartition(":")
    rest, _, model = text.rpartition("/")
    host, _, namespace = rest.rpartition("/")
    if "/" in text and not namespace:
        return None
    return _checked(Name(host.rpartition("://")[2] or DEFAULT_HOST, namespace or DEFAULT_NAMESPACE, model, tag))


def _checked(name: Name) -> Name | None:
    parts = ((_HOST, name.host), (_NAMESPACE, name.namespace), (_PART, name.model), (_PART, name.tag))
    return name if all(pattern.fullmatch(part) for pattern, part in parts) else None
