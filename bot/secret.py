"""A secret that takes as long to be compared with a wrong guess as with one that is nearly right."""

from __future__ import annotations

import hmac


class Secret(str):
    """For libraries that compare with == or !=: Python asks the right side first where it is of a type of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and hmac.compare_digest(_bytes(self), _bytes(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def _bytes(text: str) -> bytes:
    """A header may hold anything."""
    return str.encode(text, "utf-8", "surrogatepass")
