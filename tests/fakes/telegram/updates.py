"""The queue between Telegram and the bot: what is delivered at all, in which order, and when it is forgotten.
It knows updates only as JSON with an id."""

from __future__ import annotations

from typing import Any

Update = dict[str, Any]

# Telegram's own default: everything but these, which a bot must ask for by name.
NOT_BY_DEFAULT = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
MOST_UPDATES = 100


class UpdateQueue:
    def __init__(self, first_id: int = 700_000_001) -> None:
        self.allowed: frozenset[str] | None = None
        self.pending: list[Update] = []
        self.delivered: list[Update] = []  # each the first time it left
        self._delivered_ids: set[int] = set()
        self.repeats: list[Update] = []
        self.not_allowed: list[tuple[str, Any]] = []
        self._next_id = first_id

    def add(self, kind: str, payload: Any) -> Update | None:
        """Queue it, if the bot has asked for this kind by now: asking later brings nothing back."""
        wanted = kind in self.allowed if self.allowed else kind not in NOT_BY_DEFAULT
        if not wanted:
            self.not_allowed.append((kind, payload))
            return None
        update = {"update_id": self._next_id, kind: payload}
        self._next_id += 1
        self.pending.append(update)
        return update

    def read(self, offset: int, limit: int) -> list[Update]:
        """getUpdates: everything below `offset` is confirmed and gone; a negative one counts from the end."""
        if offset < 0:
            self.pending = self.pending[offset:]
        elif offset > 0:
            self.pending = [update for update in self.pending if update["update_id"] >= offset]
        repeats, self.repeats = self.repeats, []
        found = [*repeats, *self.pending][: min(limit, MOST_UPDATES) if limit > 0 else MOST_UPDATES]
        self.mark_delivered(found)
        return found

    def mark_delivered(self, updates: list[Update]) -> None:
        self.delivered += [update for update in updates if update["update_id"] not in self._delivered_ids]
        self._delivered_ids |= {update["update_id"] for update in updates}

    def forget(self, update: Update) -> None:
        """Delivered by the webhook."""
        self.mark_delivered([update])
        if any(each is update for each in self.repeats):
            self.repeats = [each for each in self.repeats if each is not update]
        else:
            self.pending = [each for each in self.pending if each is not update]

    def repeat(self, update: Update) -> None:
        """Deliver it once more, whatever the bot has confirmed: a duplicate, as networks make them."""
        self.repeats.append(update)


def chat_of(update: Update) -> int:
    """The chat an update belongs to, so that a webhook keeps the order within it. 0: none."""
    payload = next(value for key, value in update.items() if key != "update_id")
    chat = payload.get("chat") or payload.get("message", {}).get("chat") or {}
    return int(chat.get("id", 0))
