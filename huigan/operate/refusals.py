"""Why an act was not carried out: a code for `huigan.texts`, with the parameters its words need. Knows no words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """Nothing was changed, and trying the same again changes nothing either."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
