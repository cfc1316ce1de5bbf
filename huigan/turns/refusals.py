"""Why nothing was done of what somebody asked for: a code for `huigan.texts`, with what its words need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refusal:
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
