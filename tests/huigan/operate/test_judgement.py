"""What becomes of a canary and of a live release, decided from figures alone."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from huigan.operate.betting import Thumbed
from huigan.operate.judgement import Act, Judgement, Reign, Service, Trial, of_canary, of_live
from huigan.texts import LOCALES, text
from storage.release_policy import Canary, Rollback

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RULES, BARS = Canary(share=0.5, max_days=14), Rollback()
COMPARING = replace(RULES, by="comparisons")


def thumbs(live: float, candidate: float, count: int) -> list[Thumbed]:
    rng = random.Random(1)
    found = []
    for _ in range(count):
        is_candidates = rng.random() < RULES.share
        found.append(Thumbed(is_candidates, RULES.share, rng.random() < (candidate if is_candidates else live)))
    return found


def trial(**known: Any) -> Trial:
    return Trial(**{"since_at": AT - timedelta(days=1), "raters": 9} | known)


def judged(known: Trial, rules: Canary = RULES, bars: Rollback = BARS) -> Judgement:
    return of_canary(known, rules, bars, AT)


def codes(judgement: Judgement) -> list[str]:
    return [each.code for each in judgement.reasons]


def test_proof_promotes_harm_withdraws_and_neither_waits() -> None:
    for live, candidate, act, code in (
        (0.5, 0.9, Act.PROMOTE, "thumbs_for"),
        (0.9, 0.5, Act.WITHDRAW, "thumbs_against"),
        (0.7, 0.7, Act.WAIT, "thumbs_undecided"),
    ):
        found = judged(trial(thumbs=thumbs(live, candidate, 200)))
        assert (found.act, codes(found)) == (act, [code])


def test_picks_decide_where_people_compare_and_thumbs_do_not() -> None:
    for picks, act, code in (
        ([1, 1, 0, 1, -1] * 30, Act.PROMOTE, "picks_for"),
        ([-1, -1, 0, -1, 1] * 30, Act.WITHDRAW, "picks_against"),
        ([1, -1, 0] * 30, Act.WAIT, "picks_undecided"),
    ):
        found = judged(trial(picks=picks, thumbs=thumbs(0.9, 0.1, 200)), COMPARING)
        assert (found.act, codes(found)) == (act, [code])


def test_nothing_is_decided_by_a_few_nor_by_a_few_people() -> None:
    clear = thumbs(0.0, 1.0, 200)
    assert judged(trial(thumbs=clear)).act is Act.PROMOTE
    few = judged(trial(thumbs=clear[:40]))
    assert (few.act, codes(few)) == (Act.WAIT, ["too_few_ratings", "thumbs_undecided"])
    alone = judged(trial(thumbs=clear, raters=4))
    assert (alone.act, codes(alone)) == (Act.WAIT, ["too_few_raters", "thumbs_undecided"])


def test_what_is_undecided_in_time_is_left_to_an_admin_and_what_is_decided_is_not() -> None:
    late = AT - timedelta(days=14)
    over = judged(trial(since_at=late, thumbs=thumbs(0.7, 0.7, 200)))
    assert (over.act, codes(over)) == (Act.END, ["time_over", "thumbs_undecided"])
    assert judged(trial(since_at=late)).act is Act.END
    assert judged(trial(since_at=late, thumbs=thumbs(0.5, 0.9, 200))).act is Act.PROMOTE


SOUND = Service(200, 2, (0.5,) * 100, (0.02,) * 100)


@pytest.mark.parametrize(
    ("service", "codes_wanted"),
    [
        (SOUND, []),
        (replace(SOUND, ended=30, failed=12), ["fails_more"]),
        (replace(SOUND, ended=29, failed=29), []),
        (replace(SOUND, ended=30, failed=4), []),
        (replace(SOUND, first_word_seconds=(1.4,) * 30), []),
        (replace(SOUND, first_word_seconds=(2.0,) * 30), ["first_word_later"]),
        (replace(SOUND, first_word_seconds=(9.0,) * 29), []),
        (replace(SOUND, first_word_seconds=(0.5,) * 30 + (99.0,) * 29), []),
        (replace(SOUND, token_seconds=(0.05,) * 30), ["slower"]),
        (replace(SOUND, token_seconds=(0.039,) * 30), []),
    ],
)
def test_failures_and_waiting_count_from_enough_answers_on_and_beyond_the_bars(
    service: Service, codes_wanted: list[str]
) -> None:
    found = judged(trial(candidate=service, live=SOUND))
    assert [each for each in codes(found) if each in {"fails_more", "first_word_later", "slower"}] == codes_wanted
    assert (found.act is Act.WITHDRAW) == bool(codes_wanted)
    rolled = of_live(Reign(AT, service=service, service_before=SOUND), BARS, AT)
    assert (codes(rolled), rolled.act is Act.ROLL_BACK) == (codes_wanted, bool(codes_wanted))


def reign(ups: float, count: int, **known: Any) -> Reign:
    rng = random.Random(2)
    given = [rng.random() < ups for _ in range(count)]
    before = [number % 10 < 8 for number in range(400)]
    return Reign(**{"since_at": AT - timedelta(days=1), "ups": given, "raters": 9, "ups_before": before} | known)


def test_a_release_that_is_less_liked_than_the_one_before_is_rolled_back() -> None:
    found = of_live(reign(0.4, 60), BARS, AT)
    assert (found.act, codes(found)) == (Act.ROLL_BACK, ["liked_less_than_before"])


@pytest.mark.parametrize(
    ("known", "bars"),
    [
        (reign(0.78, 400), BARS),  # about as much
        (reign(0.4, 25), BARS),  # few
        (reign(0.4, 60, raters=4), BARS),  # few people
        (reign(0.4, 60, ups_before=[True] * 20), BARS),  # nobody knows how the one before was liked
        (reign(0.4, 60), replace(BARS, automatic=False)),
        (reign(0.4, 60, since_at=AT - timedelta(days=8)), BARS),  # watched no longer
    ],
)
def test_else_it_stays(known: Reign, bars: Rollback) -> None:
    assert of_live(known, bars, AT) == Judgement(Act.WAIT, ())


def test_a_release_as_good_as_the_one_before_is_seldom_rolled_back() -> None:
    """Looked at after each thumb; what is known of the one before is itself a sample."""
    rolled = 0
    for number in range(100):
        rng = random.Random(number)
        ups = [rng.random() < 0.7 for _ in range(120)]
        before = [rng.random() < 0.7 for _ in range(100)]
        looks = (Reign(AT, ups[:count], 9, before) for count in range(30, 121, 10))
        rolled += any(of_live(each, BARS, AT).act is Act.ROLL_BACK for each in looks)
    assert rolled / 100 <= BARS.alpha + 0.03


@pytest.mark.parametrize("locale", LOCALES)
def test_every_reason_has_words(locale: str) -> None:
    slow = Service(30, 12, (9.0,) * 30, (9.0,) * 30)
    late = AT - timedelta(days=30)
    found = [
        *judged(trial(candidate=slow, live=SOUND)).reasons,
        *judged(trial(since_at=late, raters=1)).reasons,
        *judged(trial(since_at=late, raters=1), COMPARING).reasons,
        *of_live(reign(0.4, 60), BARS, AT).reasons,
    ]
    found += [each for ups in (0.1, 0.9) for each in judged(trial(thumbs=thumbs(0.5, ups, 200))).reasons]
    found += [each for pick in (1, -1) for each in judged(trial(picks=[pick] * 60), COMPARING).reasons]
    assert len({each.code for each in found}) == 13
    for reason in found:
        assert text(locale, f"canary.{reason.code}", **reason.params)
