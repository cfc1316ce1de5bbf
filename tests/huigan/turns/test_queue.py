"""Who is answered next."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from huigan.turns.queue import Queue, Ticket


def test_the_queue_is_bounded_and_a_place_becomes_free_when_somebody_leaves() -> None:
    queue = Queue(streams=1, waiting=1)
    first, second = queue.join(1, 1), queue.join(2, 2)
    assert first is not None
    assert second is not None
    assert queue.join(3, 3) is None
    queue.leave(first)
    assert second.granted.is_set()
    assert queue.join(3, 3) is not None


def test_one_conversation_never_has_two_answers_in_flight() -> None:
    queue = Queue(streams=2, waiting=9)
    first, second, other = queue.join(1, 1), queue.join(2, 1), queue.join(3, 2)
    assert [ticket.granted.is_set() for ticket in (first, second, other) if ticket] == [True, False, True]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=40), st.integers(1, 3), st.randoms())
def test_everybody_is_served_and_positions_count_from_one(
    arrivals: list[tuple[int, int]], streams: int, rng: object
) -> None:
    queue = Queue(streams, waiting=100)
    tickets = [queue.join(user, conversation) for user, conversation in arrivals]
    inside = [ticket for ticket in tickets if ticket is not None]
    assert len(inside) == len(arrivals)
    while inside:
        granted = [ticket for ticket in inside if ticket.granted.is_set()]
        assert 1 <= len(granted) <= streams
        assert len({ticket.conversation_id for ticket in granted}) == len(granted)
        waiting = sorted(ticket.position for ticket in inside if not ticket.granted.is_set())
        assert waiting == list(range(1, len(waiting) + 1))
        leaver: Ticket = granted[0]
        queue.leave(leaver)
        inside.remove(leaver)


def test_a_user_with_many_questions_is_served_once_a_round() -> None:
    queue = Queue(streams=1, waiting=9)
    tickets = {
        name: queue.join(user, n)
        for n, (name, user) in enumerate([("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2)])
    }
    order: list[str] = []
    while tickets:
        name = next(name for name, ticket in tickets.items() if ticket and ticket.granted.is_set())
        order.append(name)
        ticket = tickets.pop(name)
        assert ticket is not None
        queue.leave(ticket)
    assert order == ["a1", "b1", "a2", "b2", "a3"]


def test_one_user_cannot_fill_the_queue_for_everybody() -> None:
    queue = Queue(1, 8)
    mine = [queue.join(1, 1) for _ in range(9)]
    assert sum(ticket is not None for ticket in mine) == 1 + 4  # one is granted
    assert queue.join(2, 2) is not None
