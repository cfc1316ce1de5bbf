"""Who is answered next: bounded, fair between users, one answer in flight a conversation. Knows no turn's content.

Everybody's first waiting turn comes before anybody's second, and so on; within that, who was served longest ago.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable


class Ticket:
    """A place in the queue. `position` counts from 1; 0 once it is its turn."""

    def __init__(self, user_id: int, conversation_id: int, moved: Callable[[int], None]) -> None:
        self.user_id = user_id
        self.conversation_id = conversation_id
        self.position = 0
        self.granted = asyncio.Event()
        self._moved = moved

    def move_to(self, position: int) -> None:
        if position != self.position:
            self.position = position
            self._moved(position)


class Queue:
    """At most `streams` tickets are granted at once, and at most `waiting` wait, of one user's half as many."""

    def __init__(self, streams: int, waiting: int) -> None:
        self._streams = streams
        self._limit = waiting
        self._waiting: list[Ticket] = []
        self._granted: list[Ticket] = []
        self._served: dict[int, int] = {}  # user → when last, counted in grants; forgotten when nobody is here

    def join(
        self, user_id: int, conversation_id: int, moved: Callable[[int], None] = lambda position: None
    ) -> Ticket | None:
        """None if the queue is full, or full of that user's. Every ticket must `leave`, granted or not."""
        theirs = sum(ticket.user_id == user_id for ticket in self._waiting)
        if len(self._waiting) >= self._limit or theirs >= max(1, self._limit // 2):
            return None
        ticket = Ticket(user_id, conversation_id, moved)
        self._waiting.append(ticket)
        self._advance()
        return ticket

    def step_aside(self, ticket: Ticket) -> None:
        """Let a granted ticket that cannot go yet make room for others, until it steps back."""
        self._granted.remove(ticket)
        ticket.granted.clear()
        self._advance()

    def step_back(self, ticket: Ticket) -> None:
        """Wait again, behind the others and whatever the limit: it had its place."""
        self._waiting.append(ticket)
        self._advance()

    def leave(self, ticket: Ticket) -> None:
        for group in (self._waiting, self._granted):
            if ticket in group:
                group.remove(ticket)
        self._advance()
        if not self._granted:
            self._served.clear()

    def _advance(self) -> None:
        while len(self._granted) < self._streams:
            busy = {ticket.conversation_id for ticket in self._granted}
            chosen = next((ticket for ticket in self._order() if ticket.conversation_id not in busy), None)
            if chosen is None:
                break
            self._waiting.remove(chosen)
            self._granted.append(chosen)
            self._served[chosen.user_id] = max(self._served.values(), default=0) + 1
            chosen.move_to(0)
            chosen.granted.set()
        for position, ticket in enumerate(self._order(), start=1):
            ticket.move_to(position)

    def _order(self) -> list[Ticket]:
        ahead = Counter(ticket.user_id for ticket in self._granted)
        ranked: list[tuple[int, int, Ticket]] = []
        for ticket in self._waiting:
            ranked.append((ahead[ticket.user_id], self._served.get(ticket.user_id, 0), ticket))
            ahead[ticket.user_id] += 1
        return [ticket for _, _, ticket in sorted(ranked, key=lambda each: each[:2])]  # stable: arrival comes last
