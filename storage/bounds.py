"""What a recipe's fields may hold, written beside each: `storage.recipe` holds it against them."""

from __future__ import annotations

from dataclasses import field
from typing import Any

SLUG = r"[a-z0-9][a-z0-9._-]{0,62}"


def between(low: float, high: float, default: Any) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


def matching(pattern: str, default: str | None) -> Any:
    return field(default=default, metadata={"pattern": pattern})
