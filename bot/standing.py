"""What of a turn stands on the screen: the messages that are done, and the one that grows. As the database keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bot.render import THOUGHT_UNITS, clipped
from huigan.texts import text

MOST_CHARACTERS = 64 - 22  # of the database's, with room for one message more that is done and one that grows


@dataclass(frozen=True)
class Standing:
    """Written as "12", where 12 grows; "12,13,14", where the first two are done; "12,", where nothing grows (or it
    does in a draft); "900:12," where 900 units of what was thought are above the first."""

    done: tuple[int, ...] = ()
    growing: int | None = None
    thought_units: int = 0  # above the first that is done: they may be lost in a kill, and the rest begins by them

    def __str__(self) -> str:
        before = f"{self.thought_units}:" if self.thought_units else ""
        return before + ",".join([*map(str, self.done), str(self.growing or "")])

    def grown(self, message_id: int) -> Standing:
        return replace(self, growing=message_id)

    def finished(self, message_id: int, thought: str) -> Standing:
        units = self.thought_units if self.done else len(clipped(thought, THOUGHT_UNITS).encode("utf-16-le")) // 2
        return Standing((*self.done, message_id), None, units)


def standing(written: str | None) -> Standing:
    units, _, messages = (written or "").rpartition(":")
    *done, growing = messages.split(",")
    return Standing(tuple(map(int, done)), int(growing) if growing else None, int(units or 0))


def folded(locale: str, thought: str) -> str:
    """What was thought, as it stands above an answer."""
    return f"{text(locale, 'phase.thought')}\n{thought}" if thought.strip() else ""
