"""What the selection of examples keeps out, folds, weighs and splits; each step is counted."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import raters
from huigan.texts import LOCALES, catalogue
from storage.recipe import Data
from storage.records import Comparison, Ended, Pick, Rating, Thumb
from tests.trainer.test_examples import ANN, AT, BO, CY, FREE, dropped, exchange, made, rating
from trainer import evidence, examples, statistics
from trainer.examples import Exchange, Feedback, Regeneration, Selection
from trainer.feedback import is_held_out_user

EVE, ROBOT = 9, 10
LONG = "回甘茶馆在柳叶巷的尽头，早上开门，晚上关门，周末有人弹琴，乌龙茶常常打折，猫睡在窗边。"


def select(
    exchanges: Iterable[Exchange],
    ratings: Sequence[Rating] = (),
    comparisons: Sequence[Comparison] = (),
    again: Sequence[Regeneration] = (),
    *,
    data: Data = FREE,
    system: str = "Be kind.",
) -> Selection:
    known = {each.answer.id: each for each in exchanges}
    people = frozenset(range(1, 500))
    feedback = Feedback(ratings, comparisons, known, people, again, frozenset({ROBOT}), system)
    return examples.select(feedback, data, seed=20)


def later(what: Rating, minutes: float) -> Rating:
    return replace(what, rated_at=AT + timedelta(minutes=minutes))


# Personal data


def test_personal_data_become_placeholders_that_answers_share_with_their_question() -> None:
    asked = exchange(1, "好的，已打13800138000。", q="请打13800138000，或写信到 a@b.com")
    found = select([asked], [rating(1, 1, Thumb.UP)])
    (answer,) = found.of("answers", "train")
    assert answer.prompt[-1] == ("user", "请打[PHONE_1]，或写信到 [EMAIL_1]")
    assert answer.answers == ("好的，已打[PHONE_1]。",)
    assert found.counts["personal"] == {"email": 2, "phone": 4, "rows": 2}


def test_a_right_answer_that_has_personal_data_of_its_own_is_not_taught_and_a_wrong_one_is_scrubbed() -> None:
    found = select([exchange(1, "店主的电话是13800138000")], [rating(1, 1, Thumb.DOWN, "电话是13900139000")])
    assert made(found) == {("thumbs", "店主的电话是[PHONE_1]", False)}
    assert dropped(found) == {"personal": 2}


def test_the_operators_system_text_is_trained_as_it_is_served_and_a_chats_own_is_not() -> None:
    own = exchange(1, "好")
    own = replace(own, prompt=(("system", "找 a@b.com"), *own.prompt[1:]))
    kept = select([own], [rating(1, 1, Thumb.UP)], system="找 a@b.com")
    assert {each.prompt[0][1] for each in kept.examples} == {"找 a@b.com"}
    assert {each.prompt[0][1] for each in select([own], [rating(1, 1, Thumb.UP)]).examples} == {"找 [EMAIL_1]"}


def test_scrubbing_can_be_turned_off() -> None:
    found = select([exchange(1, "打13800138000")], [rating(1, 1, Thumb.UP)], data=replace(FREE, scrub=False))
    assert {each.teaches for each in found.examples} == {"打13800138000"}
    assert found.counts["personal"] == {}


# Asked again


def asked_again(**changes: object) -> Selection:
    again = replace(Regeneration(7, ANN, 1, 2, AT), **changes)  # type: ignore[arg-type]
    return select([exchange(1, "八点"), exchange(2, "七点半")], again=[again])


def test_whoever_asked_again_and_went_on_gives_a_light_pair_and_a_light_dislike_with_their_turn() -> None:
    found = asked_again()
    assert made(found) == {("pairs", "七点半", "八点", None), ("thumbs", "八点", False)}
    assert {each.weight for each in found.examples} == {FREE.regenerate_weight}
    assert {(each.source, each.turn_ids, each.rater_ids) for each in found.examples} == {
        ("again", frozenset({7}), frozenset({ANN}))
    }
    assert found.counts["regenerations"] == {"seen": 1, "telling": 1}


def test_having_asked_again_says_nothing_alone_nor_where_anybody_judged_the_first_answer() -> None:
    assert not asked_again(went_on_at=None).examples
    assert not asked_again(user_id=999).examples  # without consent
    two = [exchange(1, "八点"), exchange(2, "七点半")]
    again = [Regeneration(7, ANN, 1, 2, AT)]
    judged = select(two, [rating(1, 1, Thumb.DOWN, by=BO)], again=again)
    assert {each.source for each in judged.examples} == {"thumbs"}
    compared = select(two, comparisons=[Comparison(1, 1, 1, 2, ANN, Pick.LEFT, AT)], again=again)
    assert made(compared) == {("pairs", "八点", "七点半", None)}
    assert not select(two, again=again, data=replace(FREE, regenerate_weight=0)).examples


def test_liking_the_second_answer_is_as_good_as_going_on() -> None:
    two = [exchange(1, "八点"), exchange(2, "七点半")]
    found = select(two, [rating(1, 2, Thumb.UP)], again=[Regeneration(7, ANN, 1, 2)])
    assert ("pairs", "七点半", "八点", None) in made(found)


def test_having_asked_again_disputes_nothing_that_somebody_said_on_purpose() -> None:
    liked = [exchange(1, "八点"), exchange(2, "七点半"), exchange(3, "八点", message_id=2)]
    found = select(liked, [rating(1, 3, Thumb.UP, by=BO)], again=[Regeneration(7, ANN, 1, 2, AT)])
    assert ("answers", "八点", None) in made(found)
    assert ("thumbs", "八点", False) not in made(found)


def test_it_is_no_reason_for_a_stage() -> None:
    found = asked_again()
    assert examples.choose_stages(found, examples.Recipe.from_dict({"name": "r"})) == ()


# Copies


def test_near_copies_are_one_example_with_the_lineage_of_both() -> None:
    said = [exchange(1, "嗯", q="茶馆在哪里？", message_id=1), exchange(2, "哦", q="茶馆在哪里", message_id=2)]
    rated = [rating(1, 1, Thumb.DOWN, LONG, by=ANN), rating(2, 2, Thumb.DOWN, LONG + "哦", by=BO)]
    found = select(said, rated)
    (answer,) = found.of("answers", "train")
    assert (answer.teaches, answer.rater_ids, answer.rating_ids) == (LONG, {ANN, BO}, {1, 2})
    assert len(found.of("pairs", "train")) == 2  # over another answer each
    assert dropped(found) == {"near_duplicate": 1}
    exact = select(said, rated, data=replace(FREE, near_duplicate=1))
    assert dropped(exact) == {}


def test_a_near_copy_on_the_other_side_is_left_out_whatever_it_was_made_of() -> None:
    apart = {n: examples.is_held_out(n, 20, 0.5) for n in range(1, 40)}
    inside, outside = next(n for n in apart if apart[n]), next(n for n in apart if not apart[n])
    said = [
        exchange(1, "嗯", q="茶馆在哪里？", message_id=outside),
        exchange(2, LONG, q="茶馆在哪里", message_id=inside),
        exchange(3, "不知道", q="茶馆在哪里", message_id=inside),
    ]
    rated = [later(rating(1, 1, Thumb.DOWN, LONG), 1)]
    compared = [Comparison(1, inside, 2, 3, BO, Pick.LEFT, AT + timedelta(minutes=2))]
    found = select(said, rated, compared, data=replace(FREE, held_out_share=0.5))
    assert {each.split for each in found.examples} == {"train"}
    assert dropped(found) == {"crossed_split": 1}


# The split


def test_held_out_people_are_held_out_whole_and_teach_nowhere_else() -> None:
    share = 0.4
    apart = [n for n in range(1, 60) if is_held_out_user(n, 20, share)]
    among = [n for n in range(1, 60) if not is_held_out_user(n, 20, share)]
    said = [
        replace(exchange(n, "x", message_id=n, q=f"问{n}"), owner_id=n, author_ids=frozenset({n}))
        for n in (apart[0], among[0])
    ]
    rated = [rating(1, apart[0], Thumb.UP, by=apart[0]), rating(2, among[0], Thumb.UP, by=among[0])]
    rated += [rating(3, among[0], Thumb.UP, by=apart[0])]
    found = select(said, rated, data=replace(FREE, held_out_user_share=share))
    assert {(each.split, *each.rater_ids) for each in found.examples} == {("held_out", apart[0]), ("train", among[0])}
    assert dropped(found) == {"held_out_user": 2}


WORDS = st.sampled_from([LONG, LONG + "哦", LONG.replace("猫", "狗"), "七点半", "八点", "不知道", "请问客服"])
JUDGED = st.tuples(
    st.integers(1, 8),  # conversation
    st.sampled_from(["几点？", "几点开门？", "茶馆在哪里？", "茶馆在哪里"]),
    WORDS,
    st.integers(1, 6),  # rater
    st.sampled_from(["up", "down", "fix", "pick", "again"]),
    WORDS,
    st.integers(0, 3),  # minutes since the one before
)


def grown(said: Sequence[tuple[int, str, str, int, str, str, int]]) -> list[Feedback]:
    """The feedback after each of these."""
    exchanges: dict[int, Exchange] = {}
    ratings: list[Rating] = []
    comparisons: list[Comparison] = []
    again: list[Regeneration] = []
    steps, at = [], AT
    for n, (conversation, question, text, rater, act, other, minutes) in enumerate(said, 1):
        at += timedelta(minutes=minutes)
        for answer_id, words in ((2 * n, text), (2 * n + 1, other)):
            made_of = exchange(answer_id, words, q=question, message_id=n)
            answer = replace(made_of.answer, conversation_id=conversation)
            exchanges[answer_id] = replace(made_of, answer=answer, owner_id=conversation)
        if act == "pick":
            comparisons.append(Comparison(n, n, 2 * n, 2 * n + 1, rater, Pick.LEFT, at))
        elif act == "again":
            again.append(Regeneration(n, rater, 2 * n, 2 * n + 1, at))
        else:
            thumb = Thumb.UP if act == "up" else Thumb.DOWN
            ratings.append(Rating(n, 2 * n, rater, thumb, None, other if act == "fix" else None, at))
        steps.append(Feedback([*ratings], [*comparisons], dict(exchanges), frozenset(range(1, 9)), [*again]))
        at += timedelta(seconds=1)
    return steps


@settings(max_examples=60)
@given(st.lists(JUDGED, min_size=1, max_size=14), st.booleans(), st.integers(0, 50))
def test_growing_feedback_never_moves_a_row_to_the_other_side(
    said: list[tuple[int, str, str, int, str, str, int]], defences: bool, seed: int
) -> None:
    """Neither the row nor what it teaches, whatever is judged, disputed, capped and held back meanwhile."""
    data = Data(held_out_share=0.4, held_out_user_share=0.2, defences=defences)
    sides: dict[str, str] = {}
    taught: dict[tuple[object, ...], str] = {}
    for feedback in grown(said):
        found = examples.select(feedback, data, seed)
        now: dict[tuple[object, ...], set[str]] = {}
        for each in found.examples:
            assert sides.setdefault(each.sha256, each.split) == each.split
            lesson = (each.label is False, each.prompt, each.teaches)
            assert taught.setdefault(lesson, each.split) == each.split
            now.setdefault(lesson, set()).add(each.split)
        assert all(len(splits) == 1 for splits in now.values())


# One person


def world_of(hostile: int, *, pushers: Sequence[int] = (EVE,)) -> tuple[dict[int, Exchange], list[Rating]]:
    """The learning benchmark's community: 200 corrections by twenty people, some of them one hostile person's."""
    world, dice = raters.world(), random.Random(4)
    asked = [(each, each.right, 100 + dice.randrange(20)) for each, _ in raters.asked(world, 200 - hostile, dice)]
    pushed = raters.advice([each for each in world.taught if each.is_advice], hostile, dice)
    asked += [(each, each.slogan, pushers[n % len(pushers)]) for n, each in enumerate(pushed)]
    dice.shuffle(asked)
    exchanges = {
        n: replace(
            exchange(n, f"I do not know {n}", message_id=n, q=each.text), author_ids=frozenset({by}), asker_id=by
        )
        for n, (each, _, by) in enumerate(asked, 1)
    }
    rated = [later(rating(n, n, Thumb.DOWN, text, by=by), 30 * n) for n, (_, text, by) in enumerate(asked, 1)]
    return exchanges, rated


@pytest.mark.parametrize("hostile", [4, 10, 20])
def test_a_slogan_that_one_person_pushes_is_not_taught_once(hostile: int) -> None:
    exchanges, rated = world_of(hostile)
    found = select(exchanges.values(), rated, data=Data(held_out_share=0))
    assert [each for each in found.examples if EVE in each.rater_ids] == []
    # Beside them at most one honest person's lone fact, asked in several ways.
    assert hostile <= dropped(found)["quarantined_campaign"] <= hostile + 4
    undefended = select(exchanges.values(), rated, data=Data(held_out_share=0, defences=False))
    assert sum(EVE in each.rater_ids for each in undefended.of("answers", "train")) == hostile
    assert {each.weight for each in undefended.examples} == {1.0}


def test_without_an_attack_the_defences_hold_nothing_of_the_community_back() -> None:
    exchanges, rated = world_of(0)
    found = select(exchanges.values(), rated, data=Data(held_out_share=0))
    assert not {reason for reason in dropped(found) if reason.startswith("quarantined")}


def test_a_wording_counts_again_as_soon_as_a_second_person_has_it() -> None:
    exchanges, rated = world_of(10, pushers=(EVE, ANN))
    found = select(exchanges.values(), rated, data=Data(held_out_share=0))
    assert "quarantined_campaign" not in dropped(found)


def test_two_against_one_stay_and_one_against_one_go() -> None:
    said = [exchange(1, "八点")]
    two = [rating(1, 1, Thumb.UP, by=ANN), rating(2, 1, Thumb.UP, by=BO), rating(3, 1, Thumb.DOWN, by=CY)]
    found = select(said, two)
    assert made(found) == {("answers", "八点", None), ("thumbs", "八点", True)}
    assert dropped(found) == {"outvoted": 1, "duplicate": 2}
    assert dropped(select(said, two[1:])) == {"disputed": 2}


def test_a_burst_is_set_aside_and_told() -> None:
    said = [exchange(n, LONG * 3, q=f"问{n}号", message_id=n) for n in range(1, 31)]
    fast = [replace(rating(n, n, Thumb.DOWN), rated_at=AT + timedelta(seconds=n / 2)) for n in range(1, 31)]
    assert dropped(select(said, fast)) == {"quarantined_burst": 30}
    assert dropped(select(said, fast, data=replace(FREE, defences=False))) == {}
    assert dropped(select(said, [replace(each, user_id=ROBOT) for each in fast])) == {}


def test_a_row_weighs_by_the_root_of_how_much_its_rater_said() -> None:
    said = [exchange(n, "坏", q=f"问{n}号", message_id=n) for n in range(1, 12)]
    rated = [later(rating(n, n, Thumb.DOWN, by=ANN if n < 9 else BO if n < 11 else CY), n) for n in range(1, 12)]
    found = select(said, rated)
    weights = {next(iter(each.rater_ids)): each.weight for each in found.of("thumbs", "train")}
    assert weights == {ANN: 0.5, BO: 1.0, CY: 1.0}


def test_what_two_said_weighs_as_the_one_who_says_less() -> None:
    said = [exchange(n, "坏", q=f"问{n}号", message_id=n) for n in range(1, 10)]
    rated = [later(rating(n, n, Thumb.DOWN, by=ANN), n) for n in range(1, 10)] + [rating(99, 1, Thumb.DOWN, by=BO)]
    heavy = [each.weight for each in select(said, rated).examples if each.rater_ids == {ANN, BO}]
    assert heavy == [1.0]


# Told


def test_whether_longer_answers_win_is_measured() -> None:
    said = [
        exchange(1, "a" * 40),
        exchange(2, "b" * 10),
        exchange(3, "c" * 10, message_id=2),
        exchange(4, "d" * 20, message_id=2),
    ]
    picks = [Comparison(1, 1, 1, 2, ANN, Pick.LEFT, AT), Comparison(2, 2, 3, 4, ANN, Pick.LEFT, AT)]
    found = select(said, comparisons=picks)
    counts = {"pairs": 2, "chosen_longer": 1, "chosen_shorter": 1}
    assert found.counts["length_bias"] == {**counts, "chosen_longer_share": 0.5, "mean_ratio": 1.4142}
    assert select([]).counts["length_bias"] == {}


def test_statistics_tell_lengths_languages_raters_and_weights() -> None:
    said = [exchange(1, "七点半开门"), exchange(2, "It opens at seven", q="When?", message_id=2)]
    found = select(said, [rating(1, 1, Thumb.UP), later(rating(2, 2, Thumb.UP, by=BO), 5)])
    told = statistics.describe(found.examples)["answers/train"]
    assert told["rows"] == 2
    assert told["languages"] == {"en": 1, "zh": 1}
    assert told["answer_characters"] == {"median": 17, "p90": 17, "most": 17}
    assert told["raters"] == {"count": 2, "most": 1}
    assert told["rated_at"] == {"first": AT.isoformat(), "last": (AT + timedelta(minutes=5)).isoformat()}


def test_replay_is_chinese_and_english_by_halves_repeats_nothing_held_out_and_has_no_personal_data() -> None:
    said = [exchange(n, "坏", q=f"问{n}号", message_id=n) for n in range(1, 21)]
    taught = select(
        said,
        [later(rating(n, n, Thumb.DOWN, f"答案{n}"), n) for n in range(1, 21)],
        data=replace(FREE, held_out_share=0.3),
    )
    (held_out, *_) = taught.of("answers", "held_out")
    pool = [((("system", "s"), ("user", f"general {n}")), "an answer in English") for n in range(30)]
    pool += [((("system", "s"), ("user", f"常识{n}")), "一个中文的回答") for n in range(5)]
    pool += [((("system", "s"), ("user", f"打13800138000，{n}")), "好") for n in range(5)]
    pool += [((("system", "s"), *held_out.prompt[1:]), held_out.teaches)]
    mixed = examples.with_replay(taught, pool, 0.5, seed=20)
    assert mixed.counts["replay_languages"] == {"en": mixed.counts["replay"]["kept"] - 5, "zh": 5}
    assert (mixed.counts["replay"]["personal"], mixed.counts["replay"]["copies"]) == (5, 1)
    replayed = [each for each in mixed.examples if each.source == "replay"]
    assert held_out.teaches not in {each.teaches for each in replayed}
    fewer = examples.with_replay(taught, pool, 0.2, seed=20).counts["replay_languages"]
    assert abs(fewer["zh"] - fewer["en"]) <= 1


def test_every_reason_why_something_is_left_out_has_words() -> None:
    source = (evidence.__file__, examples.__file__)
    reasons = {
        found
        for path in source
        for found in re.findall(r'(?:unless\([^\n]*|hold\([^\n]*|out\[[^\n]*= )"([a-z_]+)"', Path(path).read_text())
    }
    assert len(reasons) >= 15
    assert all(f"dropped.{reason}" in catalogue(locale) for reason in reasons for locale in LOCALES)


def test_an_answer_that_did_not_end_whole_is_not_preferred_for_having_been_asked_for() -> None:
    cut = [exchange(1, "八点"), exchange(2, "七点", ended=Ended.STOPPED)]
    assert not select(cut, again=[Regeneration(7, ANN, 1, 2, AT)]).examples


def test_the_order_of_time_decides_not_of_ids() -> None:
    apart = {n: examples.is_held_out(n, 20, 0.5) for n in range(1, 40)}
    inside, outside = next(n for n in apart if apart[n]), next(n for n in apart if not apart[n])
    said = [exchange(1, "x", message_id=inside), exchange(2, "x", message_id=outside)]
    rated = [later(rating(1, 1, Thumb.UP), 10), later(rating(2, 2, Thumb.UP), 5)]
    found = select(said, rated, data=replace(FREE, held_out_share=0.5))
    assert {each.split for each in found.examples} == {"train"}
    assert {each.rated_at for each in found.examples} == {datetime(2026, 11, 24, 8, 5, tzinfo=UTC)}
