"""Words of others as a terminal or a log may show them: nothing in them moves a cursor, sets a title, fills a clipboard
or turns the reading direction. Knows no words of ours."""

from __future__ import annotations

import re

# C0 and C1 controls but for tab and line feed; marks, embeddings and isolates of bidirectional text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with each such sign as its code, which does nothing; in JSON it still means the sign."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
