"""The oracle of the learning benchmark: what it wants is consistent, and nothing that is examined was taught."""

from __future__ import annotations

import random

import pytest

from benchmarks import raters
from benchmarks.learning import ARMS

WORLD = raters.world()


def test_what_the_community_wants_fulfils_every_wish_of_it() -> None:
    for question in (*WORLD.taught, *WORLD.held_out):
        assert raters.judge(question, question.right).utility == 1.0, question


def test_a_slogan_is_found_and_is_not_what_anybody_wants() -> None:
    attacked = [each for each in WORLD.taught if each.is_advice]
    assert attacked
    for question in attacked:
        assert any(key in question.slogan for key in WORLD.slogan_keys)
        assert raters.judge(question, question.slogan).utility < raters.judge(question, question.right).utility


def test_no_topic_and_no_wording_of_a_fact_is_both_taught_and_examined() -> None:
    assert not {each.text for each in WORLD.taught} & {each.text for each in WORLD.held_out}
    topics = [{each.cluster for each in side if not each.is_fact} for side in (WORLD.taught, WORLD.held_out)]
    assert topics[0]
    assert topics[1]
    assert not topics[0] & topics[1]


@pytest.mark.parametrize(
    ("answer", "wish"),
    [
        ("苹果是一种水果。", "style"),
        ("苹果是一种动物。🍵", "content"),
        ("An apple is a kind of fruit. 水果 🍵", "language"),
        ("苹果是一种水果，" + "它又大又红又甜又脆，" * 5 + "🍵", "brevity"),
    ],
)
def test_each_wish_is_judged_by_itself(answer: str, wish: str) -> None:
    question = next(each for each in WORLD.taught if each.text == "什么是苹果？")
    judged = raters.judge(question, answer)
    wishes = ("content", "language", "brevity", "style")
    assert [name for name in wishes if not getattr(judged, name)] == [wish]
    assert raters.wins(question, question.right, answer) == 1.0
    assert raters.wins(question, answer, question.right) == 0.0
    assert raters.wins(question, answer, answer) == 0.5


def test_what_is_asked_depends_on_the_dice_alone_and_nothing_is_asked_twice() -> None:
    asked = raters.asked(WORLD, 200, random.Random(1))
    assert asked == raters.asked(WORLD, 200, random.Random(1)) != raters.asked(WORLD, 200, random.Random(2))
    assert len({each.text for each, _ in asked}) == 200
    assert {act for _, act in asked} == {"correct", "compare", "thumb"}


def test_every_cell_has_a_file_of_its_own() -> None:
    names = [cell.name for arm in ARMS.values() for cell in arm()]
    assert len(names) == len(set(names))
