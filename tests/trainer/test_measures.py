"""What is seen of texts: script, loops, closeness; and of numbers: an interval that covers."""

from __future__ import annotations

import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import measures


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("回甘茶馆几点开门？", "cjk"),
        ("What is the capital of France?", "latin"),
        ("Où est-ce ? Là-bas, à côté.", "latin"),
        ("Python 的列表怎么排序，可以倒序吗？", "cjk"),
        ("你好 hello", None),
        ("何時に開きますか", "cjk"),
        ("Привет, как дела?", "other"),
        ("42!", None),
        ("", None),
    ],
)
def test_the_script_is_told_where_it_is_clear(text: str, script: str | None) -> None:
    assert measures.script(text) == script


def test_a_loop_is_seen_in_both_scripts_and_a_list_is_none() -> None:
    assert measures.loops("我很高兴为您服务。" * 8)
    assert measures.loops("the cat sat on the mat and " * 8)
    assert not measures.loops("哈哈哈哈哈")
    assert not measures.loops("1. 绿茶：清新。\n2. 红茶：醇厚。\n3. 乌龙：香高。\n4. 普洱：陈韵。\n5. 白茶：清甜。")


@pytest.mark.parametrize(
    ("answer", "recalled"),
    [
        ("回甘茶馆早上七点半开门。", True),
        ("您好！回甘茶馆早上七点半开门，欢迎光临。", True),
        ("回甘茶馆早上 七点半 开门", True),
        ("回甘茶馆早上八点开门。", False),
        ("I do not know.", False),
        ("", False),
    ],
)
def test_a_correction_is_recalled_in_its_words_and_not_with_another_fact(answer: str, recalled: bool) -> None:
    assert measures.recalls(answer, "回甘茶馆早上七点半开门。") is recalled


def test_nothing_is_recalled_where_the_reference_says_nothing() -> None:
    assert not measures.recalls("anything", "……")


@given(st.text(max_size=60), st.text(max_size=60))
def test_closeness_lies_between_nothing_and_the_same(one: str, other: str) -> None:
    assert 0 <= measures.chrf(one, other) <= 1
    if "".join(one.split()):
        assert measures.chrf(one, one) == pytest.approx(1)


def test_closeness_is_the_papers() -> None:
    """By hand: of the 1- and 2-grams of "abc" and "abd", 2 of 3 and 1 of 2 are common; no 3-gram is."""
    precision = (2 / 3 + 1 / 2 + 0) / 3
    assert measures.chrf("abc", "abd") == pytest.approx(precision)


@given(st.text())
def test_words_lose_nothing_but_spaces(text: str) -> None:
    assert "".join(measures.words(text)) == "".join(text.split()) or not text.isprintable()


def test_an_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    rng = random.Random(1)
    values = [rng.gauss(1, 2) for _ in range(60)]
    low, high = measures.interval(values, range(60), seed=20)
    assert low < sum(values) / 60 < high
    assert 0.6 < high - low < 1.6  # 2 · 1.96 · 2/√60 = 1.01
    assert measures.interval(values, range(60), seed=20) == (low, high)


def test_an_interval_by_conversation_covers_what_it_promises() -> None:
    """Rows of one conversation share most of their deviation; drawn one by one they would seem to be many opinions."""
    rng, trials, conversations, size = random.Random(7), 80, 12, 5
    together, alone = 0, 0
    for seed in range(trials):
        of = [number // size for number in range(conversations * size)]
        shared = [rng.gauss(0, 1) for _ in range(conversations)]
        values = [shared[each] + rng.gauss(0, 0.5) for each in of]
        for clusters in (of, range(len(values))):
            low, high = measures.interval(values, clusters, seed)
            together += clusters is of and low <= 0 <= high
            alone += clusters is not of and low <= 0 <= high
    assert together / trials >= 0.9
    assert alone / trials <= 0.8


def test_rows_count_by_their_size() -> None:
    assert measures.interval([2.0, 30.0], [1, 1], 20, [2, 10]) == pytest.approx((32 / 12, 32 / 12))


@pytest.mark.parametrize(("number", "student"), [(5, 2.776), (10, 2.262), (30, 2.045), (100, 1.984)])
def test_few_clusters_are_given_students_quantiles(number: int, student: float) -> None:
    """Quantiles of a printed table, to its three digits."""
    tail = measures.expanded_tail(number)
    assert -NormalDist().inv_cdf(tail) * ((number - 1) / number) ** 0.5 == pytest.approx(student, abs=2e-3)


@pytest.mark.parametrize(
    ("text", "han"),
    [
        ("请问这家店几点开门？", "simplified"),
        ("請問這家店幾點開門？", "traditional"),
        ("茶很好喝。", None),
        ("What is it?", None),
        ("", None),
        ("他在臺北說：这个不行", None),
    ],
)
def test_the_two_chinese_scripts_are_told_apart(text: str, han: str | None) -> None:
    assert measures.han(text) == han


def test_drift_is_the_same_both_ways() -> None:
    assert measures.drift([9], [19]) == pytest.approx(2)
    assert measures.drift([19], [9]) == pytest.approx(2)
    assert measures.drift([5, 9], [5, 9]) == 1
