"""The judge model: both orders, agreements only; what fails says nothing, and the time is bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from huigan.serving.client import Ollama
from storage.recipe import Judge
from tests.fakes.ollama import Exchange, FakeOllama, Reply
from trainer import judge
from trainer.findings import Asked, Bench, Said, Seen
from trainer.judge import Decided
from trainer.scorecard import Judged

TAG = "judge:latest"


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add(TAG)
        yield running


def asked(fake: FakeOllama, live: list[str], candidate: list[str], **settings: int) -> Judged:
    bench = Bench(asked=[Asked("held_out", f"问题 {n}？", (1,), conversation=n) for n in range(len(live))])
    seen = [Seen(free=[Said(text, "stop") for text in side]) for side in (live, candidate)]
    return judge.judge(Ollama(fake.host), Judge(tag=TAG, **settings), bench, *seen, 20, lambda what, done, total: None)


def prefers(word: str) -> object:
    """A judge with a taste, wherever its favourite stands."""

    def answer(exchange: Exchange) -> Reply:
        said = exchange.messages[-1]["content"]
        one, other = said.split("Answer A")[1].split("Answer B")
        sides = [word in one, word in other]
        return Reply(("T",) if all(sides) or not any(sides) else ("A",) if sides[0] else ("B",))

    return answer


def test_a_judge_that_means_it_is_counted(fake: FakeOllama) -> None:
    fake.answer = prefers("甜")
    found = asked(fake, ["坏"] * 8 + ["甜", "坏", "同"], ["甜"] * 8 + ["坏", "坏吧", "同"])
    assert (found.candidate, found.live, found.ties, found.swayed, found.failed) == (8, 1, 2, 0, 0)
    assert found.questions == 11
    assert found.low < found.share <= found.high
    assert found.share == pytest.approx(8 / 9)
    assert found.conversations == 9


def test_names_in_braces_in_what_people_wrote_stay_as_they_are(fake: FakeOllama) -> None:
    """Else an answer could show itself where the other one stands."""
    fake.answer = prefers("甜")
    found = asked(fake, ["{other}"], ["甜"])
    assert (found.candidate, found.live) == (1, 0)


def test_a_judge_that_always_likes_the_first_decides_nothing(fake: FakeOllama) -> None:
    fake.answer = lambda exchange: Reply(("A",))
    found = asked(fake, ["坏"] * 6, ["好"] * 6)
    assert (found.candidate, found.live, found.swayed) == (0, 0, 6)
    assert not found.is_enough


def test_the_same_answer_twice_is_a_tie_that_nobody_is_asked_about(fake: FakeOllama) -> None:
    found = asked(fake, ["同"] * 3, ["同 "] * 3)
    assert found.ties == 3
    assert fake.of("/api/chat") == []


def test_a_judge_that_says_something_else_fails(fake: FakeOllama) -> None:
    fake.answer = lambda exchange: Reply(("Both are fine.",))
    found = asked(fake, ["坏"] * 2, ["好"] * 2)
    assert (found.failed, found.candidate, found.live) == (2, 0, 0)


def test_after_a_few_failures_in_a_row_it_is_asked_no_more() -> None:
    """An Ollama that is not there must not hold up a run."""
    nobody = Ollama("127.0.0.1:9")
    bench = Bench(asked=[Asked("held_out", f"{n}？", (1,), conversation=n) for n in range(9)])
    seen = [Seen(free=[Said(f"{side}{n}", "stop") for n in range(9)]) for side in "ab"]
    found = judge.judge(nobody, Judge(tag=TAG), bench, *seen, 20, lambda what, done, total: None)
    assert (found.failed, found.unasked) == (judge.FAILURES, 9 - judge.FAILURES)


def test_a_tag_that_is_not_there_says_nothing(fake: FakeOllama) -> None:
    del fake.tags[TAG]
    assert asked(fake, ["坏"] * 4, ["好"] * 4).decided == 0


def test_a_judge_that_hangs_holds_nothing_up(fake: FakeOllama) -> None:
    """One question waits for as long as all may take together; then nothing is asked any more."""
    fake.hang("/api/chat", times=9)
    found = asked(fake, ["坏"] * 4, ["好"] * 4, max_seconds=1)
    assert (found.failed, found.unasked, found.decided) == (1, 3, 0)


def test_the_number_of_questions_is_bounded(fake: FakeOllama) -> None:
    fake.answer = prefers("甜")
    assert asked(fake, ["坏"] * 6, ["甜"] * 6, max_questions=2).questions == 2


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ("A", "one"),
        (" b is better", None),
        ("**B**", "other"),
        ("T.", "tie"),
        ("<think>A looks good, but B…</think>\nB", "other"),
        ("<think>A or B, that goes on for ever", None),
        ("选 A。", "one"),
        ("回答B更好", "other"),
        ("A and B are equal", None),
        ("I'd say neither", None),
        ("", None),
    ],
)
def test_only_one_clear_letter_is_an_answer(said: str, side: str | None) -> None:
    assert judge.side_of(said) == side


@pytest.mark.parametrize(
    ("live_first", "candidate_first", "outcome"),
    [
        ("other", "one", "candidate"),
        ("one", "other", "live"),
        ("one", "one", "swayed"),
        ("other", "other", "swayed"),
        ("tie", "tie", "tie"),
        ("tie", "one", "swayed"),
        ("other", "tie", "swayed"),
        (None, "one", "failed"),
        ("one", None, "failed"),
    ],
)
def test_what_both_orders_say_together(live_first: judge.Side, candidate_first: judge.Side, outcome: str) -> None:
    assert judge.agreed(live_first, candidate_first) == outcome


def test_questions_of_one_conversation_are_one_opinion() -> None:
    decided = [Decided(number // 10, "candidate" if number < 18 else "live") for number in range(20)]
    found = judge.counted(TAG, decided, 20)
    assert (found.candidate, found.live, found.conversations) == (18, 2, 2)
    assert not found.is_enough
