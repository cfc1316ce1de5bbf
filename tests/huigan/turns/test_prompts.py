"""What an answer is given to: history as it was picked and corrected, and never more of it than fits."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from huigan.turns.prompts import IMAGE_TOKENS, Line, beginning, estimate_tokens, fitted, history
from storage.records import Answer, Comparison, Ended, Message, Pick, Rating, Seen, Thumb
from tests.huigan.turns.conftest import AT


def message(number: int, parent: int | None = None) -> Message:
    return Message(number, 1, 1, f"m{number}", f"s{number}", parent, None, AT)


def answer(number: int, of: int, text: str | None = None) -> Answer:
    seen = Seen("", [], 0, "", {})
    words = f"a{number}" if text is None else text
    return Answer(number, number, of, 1, words, "", 1, 1, "t", seen, 1, 1, 1.0, 1.0, Ended.COMPLETE, AT)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


MESSAGES = [message(1), message(2), message(3)]
ANSWERS = [answer(1, 1), answer(2, 1), answer(3, 2)]


def test_the_last_answer_of_a_message_counts() -> None:
    assert texts(history(MESSAGES[2], MESSAGES, ANSWERS, [], [])) == ["m1", "a2", "m2", "a3"]


def test_a_picked_answer_counts_more_than_the_last_and_the_newest_pick_most() -> None:
    picks = [Comparison(1, 1, 2, 1, 1, Pick.LEFT, AT), Comparison(2, 1, 2, 1, 1, Pick.RIGHT, AT)]
    assert texts(history(MESSAGES[2], MESSAGES, ANSWERS, [], picks)) == ["m1", "a1", "m2", "a3"]
    tie = [*picks, Comparison(3, 1, 1, 2, 1, Pick.TIE, AT)]
    assert texts(history(MESSAGES[2], MESSAGES, ANSWERS, [], tie)) == ["m1", "a1", "m2", "a3"]


def test_a_correction_replaces_its_answer() -> None:
    ratings = [Rating(9, 2, 1, Thumb.DOWN, None, "better", AT)]
    lines = history(MESSAGES[2], MESSAGES, ANSWERS, ratings, [])
    assert texts(lines) == ["m1", "better", "m2", "a3"]
    assert (lines[1].kind, lines[1].id, lines[1].role) == ("correction", 9, "assistant")


def test_a_message_without_an_answer_is_left_out() -> None:
    assert texts(history(MESSAGES[2], MESSAGES, ANSWERS[:2], [], [])) == ["m1", "a2"]
    assert texts(history(MESSAGES[2], MESSAGES, [*ANSWERS[:2], answer(3, 2, "")], [], [])) == ["m1", "a2"]


def test_a_reply_to_an_answer_continues_from_it() -> None:
    reply = message(4, parent=1)
    assert texts(history(reply, [*MESSAGES, reply], ANSWERS, [], [])) == ["m1", "a1"]


LINES = st.lists(st.text(max_size=40), min_size=1, max_size=12).map(
    lambda said: [Line("answer" if n % 2 else "message", n, text) for n, text in enumerate(said)]
)


@given(LINES, st.integers(0, 200), st.floats(0.5, 3))
def test_what_is_kept_is_the_end_of_the_history_and_begins_with_a_message(
    lines: list[Line], budget: int, scale: float
) -> None:
    prompt = fitted("system", lines, budget, scale)
    assert list(prompt.lines) == lines[prompt.dropped :]
    assert prompt.lines[-1] == lines[-1]
    assert len(prompt.lines) == 1 or prompt.lines[0].role == "user"
    assert len(prompt.lines) == 1 or prompt.estimated_tokens * scale <= budget + 1e-6


def test_chinese_is_estimated_at_a_token_a_character() -> None:
    assert estimate_tokens("回甘茶馆") > estimate_tokens("") + 3
    assert estimate_tokens("abc" * 10) < estimate_tokens("回甘茶" * 10)


def test_the_history_begins_where_what_a_message_replies_to_is_not_among_its_messages() -> None:
    reply = message(4, parent=99)
    later = message(5)
    assert texts(history(later, [*MESSAGES, reply, later], [*ANSWERS, answer(4, 4)], [], [])) == ["m4", "a4"]


def version(number: int, of: int) -> Message:
    return Message(number, 1, 1, f"m{number}", f"s{number}", None, of, AT)


def test_an_edited_version_is_given_what_came_before_its_original() -> None:
    edited = version(4, of=2)
    assert texts(history(edited, [*MESSAGES, edited], ANSWERS, [], [])) == ["m1", "a2"]


def test_what_is_said_after_an_edited_version_was_answered_continues_from_it() -> None:
    """m3 was said between the original and the edit: that is another branch now."""
    edited, later = version(4, of=2), message(5)
    given = [*ANSWERS, answer(4, 3), answer(5, 4)]
    assert texts(history(later, [*MESSAGES, edited, later], given, [], [])) == ["m1", "a2", "m4", "a5"]


def test_a_reply_to_an_answer_of_the_other_branch_goes_on_there() -> None:
    edited, reply = version(4, of=2), message(5, parent=4)
    given = [*ANSWERS, answer(4, 3), answer(5, 4)]
    assert texts(history(reply, [*MESSAGES, edited, reply], given, [], [])) == ["m1", "a2", "m2", "a3", "m3", "a4"]


def test_what_was_said_between_the_edit_and_its_answer_sees_it_in_the_originals_place() -> None:
    edited, between, later = version(3, of=2), message(4), message(5)
    given = [*ANSWERS, answer(4, 4), answer(5, 3)]
    said = [*MESSAGES[:2], edited, between, later]
    assert texts(history(later, said, given, [], [])) == ["m1", "a2", "m3", "a5", "m4", "a4"]


def test_a_version_that_was_never_answered_is_nobodys_past_and_the_newest_answered_one_counts() -> None:
    first, second, third, later = version(4, of=2), version(5, of=2), version(6, of=2), message(7)
    given = [*ANSWERS[:2], answer(3, 2), answer(4, 4), answer(5, 5)]
    said = [*MESSAGES[:2], first, second, third, later]
    assert texts(history(later, said, given, [], [])) == ["m1", "a2", "m5", "a5"]


def test_images_stay_with_their_messages_and_count_in_the_budget() -> None:
    lines = history(MESSAGES[2], MESSAGES, ANSWERS, [], [], {1: ("a", "b")})
    assert [line.images for line in lines] == [("a", "b"), (), (), ()]
    question = Line("message", 3, "m3")
    assert fitted("", [*lines, question], 2 * IMAGE_TOKENS).dropped == 2
    assert fitted("", [*lines, question], 3 * IMAGE_TOKENS).dropped == 0


@given(st.text("茶a", max_size=60), st.integers(0, 60))
def test_the_beginning_of_a_text_holds_as_many_tokens_as_were_asked(text: str, tokens: int) -> None:
    kept = beginning(text, tokens)
    assert text.startswith(kept)
    assert estimate_tokens(kept) <= tokens + estimate_tokens("")
    assert kept == text or estimate_tokens(text[: len(kept) + 1]) > tokens + estimate_tokens("")
