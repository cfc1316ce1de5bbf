"""One loud or hostile person does not move the release, and nobody is silenced by one person alone."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import raters
from trainer import trust
from trainer.trust import Approved, Heard, Vote

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ANN, BO, CY, EVE = 1, 2, 3, 9
VOTES = st.lists(
    st.builds(
        Vote,
        st.integers(0, 10**9),
        st.integers(1, 5),
        st.integers(1, 12),
        st.booleans(),
        st.just(AT),
    ),
    unique_by=lambda vote: vote.key,
    max_size=80,
)


def votes(rater_id: int, choices: dict[int, bool], at: datetime = AT, pace: float = 60.0) -> list[Vote]:
    return [
        Vote((rater_id, subject), rater_id, subject, choice, at + timedelta(seconds=number * pace), characters=120)
        for number, (subject, choice) in enumerate(choices.items())
    ]


def test_who_was_never_compared_is_trusted_as_the_prior_says() -> None:
    assert trust.trusted(votes(ANN, {1: True})) == {ANN: 0.8}
    assert trust.trusted([]) == {}


def test_who_differs_from_several_is_distrusted_and_they_are_not() -> None:
    common = [*votes(ANN, dict.fromkeys(range(8), True)), *votes(BO, dict.fromkeys(range(8), True))]
    common += votes(EVE, dict.fromkeys(range(8), False))
    found = trust.trusted(common)
    assert found[EVE] < 0.5 < found[ANN] == found[BO]
    assert trust.distrusted(common, found, 0.5) == {(EVE, n) for n in range(8)}


@given(VOTES, st.sets(st.integers(1, 12)))
def test_no_one_person_can_bring_another_below_the_bar(said: list[Vote], attacked: set[int]) -> None:
    """Whatever the others say: from at or above the bar before to below it takes two."""
    alone = [each for each in said if each.rater_id == ANN]
    against = [
        Vote(("eve", each.key), EVE, each.subject, not each.choice, AT) for each in alone if each.subject in attacked
    ]
    assert trust.trusted([*alone, *against]).get(ANN, 1.0) >= 0.5


@given(VOTES)
def test_trust_is_a_share_that_depends_on_no_order(said: list[Vote]) -> None:
    once = [next(e for e in said if (e.rater_id, e.subject) == key) for key in {(e.rater_id, e.subject) for e in said}]
    found = trust.trusted(once)
    assert all(0 < each < 1 for each in found.values())
    assert found == trust.trusted(once[::-1])


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ({ANN: True}, True),
        ({ANN: True, BO: False}, None),
        ({ANN: True, BO: True, CY: False}, True),
        ({ANN: True, BO: True, CY: False, EVE: False}, None),
    ],
)
def test_most_of_the_trust_decides_and_one_against_one_does_not(said: dict[int, bool], choice: bool | None) -> None:
    assert trust.decided(said, {}) is choice


def test_the_distrusted_do_not_outvote_the_trusted() -> None:
    assert trust.decided({ANN: True, BO: False, CY: False}, {ANN: 0.9, BO: 0.2, CY: 0.2}) is True


def test_judging_faster_than_anybody_reads_is_held_until_somebody_else_says_the_same() -> None:
    fast = votes(EVE, dict.fromkeys(range(30), False), pace=0.5)
    assert trust.bursts(fast, 20) == {each.key for each in fast}
    assert trust.bursts(votes(EVE, dict.fromkeys(range(30), False), pace=20), 20) == set()
    assert trust.bursts(fast[:19], 20) == set()
    supported = trust.bursts([*fast, *votes(ANN, {0: False, 1: True})], 20)
    assert supported == {each.key for each in fast[1:]}


def test_a_clock_that_stood_still_is_no_burst() -> None:
    assert trust.bursts(votes(EVE, dict.fromkeys(range(50), False), pace=0), 20) == set()


@given(st.floats(0.1, 0.9), st.integers(20, 60))
def test_a_burst_stays_one_whatever_is_said_before_and_after(pace: float, count: int) -> None:
    fast = votes(EVE, dict.fromkeys(range(count), False), pace=pace)
    slow = votes(EVE, {n + 1000: False for n in range(10)}, at=AT - timedelta(days=1), pace=600)
    assert trust.bursts([*slow, *fast], 20) == {each.key for each in fast}


def honest(world: raters.World, count: int = 190) -> list[Approved]:
    people = random.Random(7)
    return [
        Approved(("honest", n), people.randrange(20) + 100, each.text, each.right, AT, each.text)
        for n, (each, _) in enumerate(raters.asked(world, count, random.Random(3)))
    ]


def slogans(world: raters.World, count: int = 10, by: int = EVE) -> list[Approved]:
    asked = raters.advice(world.taught, count, random.Random(5))
    return [Approved((by, n), by, each.text, each.slogan, AT, each.text) for n, each in enumerate(asked)]


def test_the_learning_benchmarks_attack_is_held_whole_and_its_honest_raters_are_not() -> None:
    """5 % of 200 from one person, who pushes a slogan wherever advice is asked for."""
    world = raters.world()
    held = trust.campaigns([*honest(world), *slogans(world)], [], 3)
    assert held == {(EVE, n) for n in range(10)}


def test_a_slogan_that_two_people_push_is_supported() -> None:
    world = raters.world()
    assert trust.campaigns([*honest(world), *slogans(world), *slogans(world, by=EVE + 1)], [], 3) == set()


def test_a_style_that_two_share_stays_and_so_do_facts_each_about_something_else() -> None:
    style = "很高兴能帮到您，祝您喝茶愉快。"
    people = honest(raters.world())
    people += [
        Approved((by, n), by, f"{n}号壶怎么泡？", f"{n}号用热水。{style}", AT) for by in (ANN, BO) for n in range(9)
    ]
    facts = ["店里的猫叫芝麻", "老板姓林名小满", "打烊之后后门锁着", "吉祥物是水獭阿游", "每周三乌龙半价"]
    people += [Approved((CY, n), CY, f"第{n}个问题说的是什么呢", fact, AT) for n, fact in enumerate(facts)]
    assert trust.campaigns(people, [], 3) == set()


@pytest.mark.parametrize("heard_at", [AT - timedelta(days=1), AT + timedelta(days=1)])
def test_what_the_release_said_by_itself_before_is_nobodys_campaign(heard_at: datetime) -> None:
    """What it says only after the campaign, it may have learnt from it."""
    world = raters.world()
    said = [Heard("别管它了，认准 Golden Dragon！", heard_at)]
    pushed = slogans(world)
    held = trust.campaigns([*honest(world), *pushed], said, 3)
    assert held == ({each.key for each in pushed} if heard_at > AT else set())


def test_what_the_campaigner_says_elsewhere_supports_nothing() -> None:
    world = raters.world()
    said = [Heard("别管它了，认准 Golden Dragon！", AT, rater_ids=frozenset({EVE}))]
    echoed = [Heard("好的，认准 Golden Dragon！", AT, "请说：认准 Golden Dragon！")]
    assert len(trust.campaigns([*honest(world), *slogans(world)], [*said, *echoed], 3)) == 10


def test_repeating_what_was_asked_is_no_campaign() -> None:
    world = raters.world()
    repeated = [
        Approved(
            (EVE, n), EVE, f"第{n}个：金龙牌乌龙茶好吗？", f"{n}：金龙牌乌龙茶好。", AT, f"第{n}个：金龙牌乌龙茶好吗？"
        )
        for n in range(9)
    ]
    assert trust.campaigns([*honest(world), *repeated], [], 3) == set()


def test_where_nobody_could_support_it_a_lone_teacher_teaches() -> None:
    world = raters.world()
    assert trust.campaigns(slogans(world), [], 3) == set()
    assert trust.campaigns([*slogans(world), Approved("a", ANN, "几点？", "七点半开门", AT)], [], 3) == set()


@given(st.dictionaries(st.integers(1, 30), st.integers(1, 10**6), min_size=1))
def test_all_of_a_raters_examples_together_count_by_the_root_of_their_number(counts: dict[int, int]) -> None:
    found = trust.weights(counts)
    assert all(0 < each <= 1 for each in found.values())
    together = {rater_id: counts[rater_id] * weight for rater_id, weight in found.items()}
    for one in counts:
        for other in counts:
            if found[one] < 1 and found[other] < 1:
                ratio = math.sqrt(counts[one] / counts[other])
                assert math.isclose(together[one] / together[other], ratio)
            if counts[one] <= counts[other]:
                assert together[one] <= together[other] * (1 + 1e-9)
