"""Every word a person reads: one catalogue a language, found by code. Knows nobody who asks and no channel.

A code is `section.name`. `text` is for codes written in our source: one that is missing is a bug, and a test reads the
source for it. `told` is for codes out of data (an error, a notice, a gate's reason), which a newer or older process may
have written: it never fails, and shows the bare code where it has no words.
"""

from __future__ import annotations

import functools
import logging
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

logger = logging.getLogger(__name__)

LOCALES = ("zh-Hans", "zh-Hant", "en")
DEFAULT_LOCALE = "zh-Hans"
_TRADITIONAL = frozenset({"hant", "tw", "hk", "mo"})


def text(locale: str | None, code: str, /, **params: object) -> str:
    """Raises KeyError for an unknown code or a missing parameter. An unknown locale reads the default one."""
    return catalogue(locale if locale in LOCALES else DEFAULT_LOCALE)[code].format_map(params)


def told(locale: str | None, section: str, code: str, params: Mapping[str, Any] | None = None) -> str:
    """The words for a code out of data; the code itself where there are none."""
    try:
        return text(locale, f"{section}.{code}", **(params or {}))
    except (KeyError, IndexError, ValueError):
        logger.warning("no words for %s.%s with %s", section, code, sorted(params or {}))
        return code


def locale_of(language_code: str | None) -> str:
    """The catalogue for an IETF language tag, as Telegram and the environment's LANG give them."""
    if not language_code:
        return DEFAULT_LOCALE
    parts = language_code.partition(".")[0].replace("_", "-").lower().split("-")
    if parts[0] in {"zh", "yue", "wuu", "cmn"}:
        is_traditional = parts[0] == "yue" or bool(_TRADITIONAL.intersection(parts))
        return "zh-Hant" if is_traditional and "hans" not in parts else "zh-Hans"
    return "en" if parts[0] not in {"c", "posix"} else DEFAULT_LOCALE


@functools.cache
def catalogue(locale: str) -> Mapping[str, str]:
    """All texts of one of LOCALES, by code."""
    raw = tomllib.loads(resources.files(__name__).joinpath(f"{locale}.toml").read_text(encoding="utf-8"))
    return {f"{section}.{name}": words for section, texts in raw.items() for name, words in texts.items()}
