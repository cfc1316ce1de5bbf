"""What people say of answers becomes examples, or is left out with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.recipe import Data, Recipe
from storage.records import Answer, Comparison, Ended, Pick, Rating, Seen, Thumb
from trainer import examples
from trainer.examples import Example, Exchange, Feedback, Selection

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ANN, BO, CY = 1, 2, 3
FREE = Data(held_out_share=0, rater_cap_share=1)


def exchange(
    answer_id: int, text: str, *, ended: Ended = Ended.COMPLETE, message_id: int = 1, q: str = "几点？"
) -> Exchange:
    seen = Seen("Be kind.", [["message", message_id]], 0, "digest", {})
    answer = Answer(
        answer_id, answer_id, message_id, message_id, text, "", None, None, "t", seen, 1, 1, 0.1, 0.1, ended, AT
    )
    return Exchange(answer, (("system", "Be kind."), ("user", q)), frozenset({ANN}))


def rating(rating_id: int, answer_id: int, thumb: Thumb, correction: str | None = None, by: int = ANN) -> Rating:
    return Rating(rating_id, answer_id, by, thumb, None, correction, AT)


def comparison(comparison_id: int, left: int, right: int, pick: Pick, by: int = ANN) -> Comparison:
    return Comparison(comparison_id, 1, left, right, by, pick, AT)


def select(
    exchanges: Iterable[Exchange],
    ratings: Iterable[Rating] = (),
    comparisons: Iterable[Comparison] = (),
    *,
    consenting: Iterable[int] = (ANN, BO, CY),
    data: Data = FREE,
) -> Selection:
    known = {each.answer.id: each for each in exchanges}
    return examples.select(Feedback([*ratings], [*comparisons], known, frozenset(consenting)), data, seed=20)


def made(selection: Selection) -> set[tuple[object, ...]]:
    return {(each.task, *each.answers, each.label) for each in selection.examples}


def dropped(selection: Selection) -> dict[str, int]:
    return dict(selection.counts["dropped"])


def test_a_correction_is_a_right_answer_and_beats_what_it_corrects() -> None:
    found = select([exchange(1, "八点")], [rating(5, 1, Thumb.DOWN, "七点半")])
    assert made(found) == {
        ("answers", "七点半", None),
        ("pairs", "七点半", "八点", None),
        ("thumbs", "八点", False),
    }
    assert all(each.rating_ids == {5} for each in found.examples)


def test_a_correction_that_changes_nothing_is_a_thumb() -> None:
    found = select([exchange(1, "八点")], [rating(5, 1, Thumb.DOWN, " 八点 ")])
    assert made(found) == {("thumbs", "八点", False)}


def test_thumbs_are_likes_and_dislikes_and_a_pair_where_both_meet_on_one_message() -> None:
    found = select([exchange(1, "好"), exchange(2, "坏")], [rating(5, 1, Thumb.UP), rating(6, 2, Thumb.DOWN)])
    assert made(found) == {
        ("answers", "好", None),
        ("thumbs", "好", True),
        ("thumbs", "坏", False),
        ("pairs", "好", "坏", None),
    }
    assert {frozenset(each.rating_ids) for each in found.of("pairs", "train")} == {frozenset({5, 6})}


@pytest.mark.parametrize(("pick", "pair"), [(Pick.LEFT, ("a", "b")), (Pick.RIGHT, ("b", "a"))])
def test_a_pick_is_a_pair_whichever_side_it_was_on(pick: Pick, pair: tuple[str, str]) -> None:
    found = select([exchange(1, "a"), exchange(2, "b")], comparisons=[comparison(7, 1, 2, pick)])
    assert made(found) == {("pairs", *pair, None)}
    assert found.examples[0].comparison_ids == {7}


def test_a_tie_teaches_nothing() -> None:
    found = select([exchange(1, "a"), exchange(2, "b")], comparisons=[comparison(7, 1, 2, Pick.TIE)])
    assert not found.examples
    assert dropped(found) == {"tie": 1}


def test_what_raters_disagree_on_is_left_out_whole() -> None:
    """Also where the two rated different answers that say the same, and where one of them wrote a correction."""
    rated = [rating(1, 1, Thumb.UP, by=ANN), rating(2, 2, Thumb.DOWN, "七点半", by=BO)]
    found = select([exchange(1, "八点"), exchange(2, "八点 ")], rated)
    assert not found.examples
    assert dropped(found) == {"disputed": 2}


def test_pairs_that_are_there_both_ways_round_are_left_out() -> None:
    both = [comparison(1, 1, 2, Pick.LEFT, by=ANN), comparison(2, 2, 1, Pick.LEFT, by=BO)]
    found = select([exchange(1, "a"), exchange(2, "b")], comparisons=both)
    assert not found.examples
    assert dropped(found) == {"disputed": 2}


def test_a_correction_that_others_dislike_as_an_answer_is_not_taught() -> None:
    rated = [rating(1, 1, Thumb.DOWN, "九点", by=ANN), rating(2, 2, Thumb.DOWN, by=BO)]
    found = select([exchange(1, "八点"), exchange(2, "九点")], rated)
    assert not found.of("answers", "train")


@pytest.mark.parametrize("ended", sorted(set(Ended) - {Ended.COMPLETE, Ended.LENGTH}))
def test_an_answer_that_did_not_end_whole_teaches_nothing_but_its_correction(ended: Ended) -> None:
    liked = select([exchange(1, "八", ended=ended)], [rating(5, 1, Thumb.UP)])
    assert not liked.examples
    assert dropped(liked) == {"not_whole": 1}
    corrected = select([exchange(1, "八", ended=ended)], [rating(5, 1, Thumb.DOWN, "七点半")])
    assert made(corrected) == {("answers", "七点半", None)}


def test_an_answer_cut_at_its_limit_may_be_disliked_but_never_imitated() -> None:
    cut = exchange(1, "八点到八点到", ended=Ended.LENGTH)
    assert not select([cut], [rating(5, 1, Thumb.UP)]).examples
    assert made(select([cut], [rating(5, 1, Thumb.DOWN)])) == {("thumbs", "八点到八点到", False)}


@pytest.mark.parametrize("consenting", [[], [ANN], [BO]])
def test_nothing_is_learnt_unless_rater_and_authors_consent(consenting: list[int]) -> None:
    asked_by_ann = exchange(1, "八点")
    found = select([asked_by_ann], [rating(5, 1, Thumb.UP, by=BO)], consenting=consenting)
    assert not found.examples
    assert dropped(found) == {"no_consent": 1}


def test_the_same_example_twice_is_one_with_both_raters() -> None:
    same = [rating(1, 1, Thumb.DOWN, "七点半", by=ANN), rating(2, 1, Thumb.DOWN, "七点半", by=BO)]
    found = select([exchange(1, "八点")], same)
    assert [each.rater_ids for each in found.of("answers", "train")] == [{ANN, BO}]
    assert dropped(found) == {"duplicate": 3}


def test_blank_answers_and_answers_alike_are_no_pairs() -> None:
    picks = [comparison(1, 1, 2, Pick.LEFT), comparison(2, 3, 4, Pick.LEFT)]
    found = select([exchange(1, "a"), exchange(2, " "), exchange(3, "b"), exchange(4, "b ")], comparisons=picks)
    assert not found.examples
    assert dropped(found) == {"empty": 1, "same_text": 1}


def test_no_rater_supplies_more_than_their_share() -> None:
    exchanges = [exchange(n, "x", message_id=n, q=str(n)) for n in range(1, 11)]
    rated = [rating(n, n, Thumb.DOWN, f"right {n}", by=ANN if n < 9 else BO) for n in range(1, 11)]
    found = select(exchanges, rated, data=replace(FREE, rater_cap_share=0.3))
    raters = [next(iter(each.rater_ids)) for each in found.of("answers", "train")]
    assert sorted(raters) == [ANN, ANN, ANN, BO, BO]
    assert dropped(found) == {"rater_cap": 15}  # five of each of the three tasks


@given(st.sets(st.integers(1, 10**9), min_size=1, max_size=60), st.floats(0, 0.5), st.integers(0, 2**31 - 1))
def test_a_conversation_never_crosses_the_split_however_the_data_grow(ids: set[int], share: float, seed: int) -> None:
    exchanges = [exchange(n, "x", message_id=n, q=str(n)) for n in ids]
    rated = [rating(n, n, Thumb.DOWN, "y") for n in ids]
    known = {each.answer.id: each for each in exchanges}
    data = replace(FREE, held_out_share=share)
    whole = examples.select(Feedback(rated, [], known, frozenset({ANN})), data, seed)
    part = examples.select(Feedback(rated[: len(rated) // 2], [], known, frozenset({ANN})), data, seed)
    splits = {each.sha256: each.split for each in whole.examples}
    assert all(splits[each.sha256] == each.split for each in part.examples)
    by_conversation = {(each.conversation_ids, each.split) for each in whole.examples}
    assert len(by_conversation) == len(ids)


def test_about_the_share_that_the_recipe_names_is_held_out() -> None:
    held_out = sum(examples.is_held_out(n, 20, 0.1) for n in range(1, 5001))
    assert 400 < held_out < 600


@pytest.mark.parametrize("first", ["train", "held_out"])
def test_what_is_said_on_both_sides_stays_on_the_side_where_it_was_said_first(first: str) -> None:
    apart = {n: examples.is_held_out(n, 20, 0.5) for n in range(1, 40)}
    inside, outside = next(n for n in apart if apart[n]), next(n for n in apart if not apart[n])
    order = (inside, outside) if first == "held_out" else (outside, inside)
    exchanges = [exchange(n, "x", message_id=conversation) for n, conversation in enumerate(order, 1)]
    rated = [rating(1, 1, Thumb.DOWN, "y", by=ANN), rating(2, 2, Thumb.DOWN, "y", by=BO)]
    found = select(exchanges, rated, data=replace(FREE, held_out_share=0.5))
    assert {each.split for each in found.examples} == {first}
    assert dropped(found) == {"crossed_split": 3}


@given(st.permutations(range(1, 9)))
def test_the_order_of_rows_does_not_show(order: list[int]) -> None:
    exchanges = [exchange(n, f"a{n % 3}", message_id=n, q=str(n % 4)) for n in range(1, 9)]
    rated = {
        n: rating(n, n, Thumb.UP if n % 2 else Thumb.DOWN, None if n % 5 else "right", by=n % 3 + 1) for n in order
    }
    data = Data(held_out_share=0.3, rater_cap_share=0.6)
    shuffled = select(exchanges, [rated[n] for n in order], data=data)
    assert shuffled == select(exchanges, [rated[n] for n in sorted(order)], data=data)


def test_every_rating_is_accounted_for() -> None:
    exchanges = [exchange(n, "x", message_id=n, q=str(n)) for n in range(1, 5)]
    rated = [rating(1, 1, Thumb.UP), rating(2, 2, Thumb.UP, by=9), rating(3, 3, Thumb.DOWN), rating(4, 77, Thumb.UP)]
    found = select(exchanges, rated)
    assert found.counts["seen"] == {"ratings": 4, "comparisons": 0}
    assert dropped(found) == {"answer_unknown": 1, "no_consent": 1}
    assert found.counts["kept"]["train"] == {"answers": 1, "pairs": 0, "thumbs": 2}
    assert (found.counts["raters"], found.counts["conversations"]) == (1, 2)


def test_replay_makes_up_its_share_and_repeats_nothing() -> None:
    taught = select(
        [exchange(n, "x", message_id=n, q=str(n)) for n in range(1, 9)], [rating(n, n, Thumb.UP) for n in range(1, 9)]
    )
    pool = [((("system", "s"), ("user", f"general {n}")), "answer") for n in range(10)]
    mixed = examples.with_replay(taught, [*pool, *pool], 0.2, seed=20)
    replayed = [each for each in mixed.of("answers", "train") if each.source == "replay"]
    assert len(replayed) == 2
    assert mixed.counts["replay"] == {"pool": 10, "wanted": 2, "kept": 2}
    assert len(examples.with_replay(taught, pool[:1], 0.5, seed=20).of("answers", "train")) == 9
    assert mixed == examples.with_replay(taught, reversed(pool), 0.2, seed=20)


def of(task: str, number: int, label: bool | None = None) -> list[Example]:
    return [Example(task, (("user", str(n)),), ("a",), "thumbs", label) for n in range(number)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "method", "stages"),
    [
        ([*of("answers", 2), *of("pairs", 1)], "auto", ("sft", "dpo")),
        ([*of("answers", 2), *of("thumbs", 1, True), *of("thumbs", 1, False)], "auto", ("sft", "kto")),
        ([*of("thumbs", 3, False)], "auto", ()),
        ([*of("answers", 2), *of("thumbs", 3, True)], "auto", ("sft",)),
        ([*of("pairs", 1)], "orpo", ("orpo",)),
        ([], "auto", ()),
    ],
)
def test_the_method_follows_from_what_there_is(held: list[Example], method: str, stages: tuple[str, ...]) -> None:
    recipe = Recipe.from_dict({"name": "r", "method": method})
    assert examples.choose_stages(Selection(tuple(held), {}), recipe) == stages


def test_rows_are_conversational_as_trl_reads_them() -> None:
    found = select([exchange(1, "八点")], [rating(5, 1, Thumb.DOWN, "七点半")])
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "几点？"}]
    right, wrong = [{"role": "assistant", "content": "七点半"}], [{"role": "assistant", "content": "八点"}]
    assert [found.of(task, "train")[0].row() for task in examples.TASKS] == [
        {"prompt": prompt, "completion": right},
        {"prompt": prompt, "chosen": right, "rejected": wrong},
        {"prompt": prompt, "completion": wrong, "label": False},
    ]
