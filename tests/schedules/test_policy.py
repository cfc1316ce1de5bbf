"""When a run is due, and every reason why it is not."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huigan.operate import quiet
from huigan.operate.cron import BadCron, firings
from schedules.policy import Bars, Decision, Facts, Reason, decide

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday
BARS = Bars(min_new_ratings=50, min_ratings=200, min_raters=5)
PLENTY = Facts(
    at=NOON,
    lane="default",
    has_base=True,
    has_weights=True,
    queued_run=None,
    running_run=None,
    last_queued_at=NOON - timedelta(days=3),
    last_ended_at=NOON - timedelta(days=3) + timedelta(hours=2),
    since_at=NOON - timedelta(days=30),
    lapsed_at=None,
    ratings=1000,
    raters=50,
    new_ratings=100,
    kinds={"answers": 700, "pairs": 200, "thumbs": 800},
    trainer_lives=True,
)
FIRST, LAST = (datetime.fromisoformat(f"{year}-01-01") for year in (2005, 2035))
NIGHTLY = firings("0 3 * * *", UTC)


def codes(facts: Facts, bars: Bars = BARS, cron: str | None = None) -> list[str]:
    decision = decide(facts, bars, firings(cron, UTC) if cron else None)
    assert not decision.enqueue
    return [reason.code for reason in decision.reasons]


def test_enough_new_ratings_make_a_run_due() -> None:
    decision = decide(PLENTY, BARS, None)
    assert (decision.enqueue, decision.why, decision.reasons, decision.next_at) == (True, "threshold", (), None)


def test_a_firing_since_the_last_run_makes_one_due_however_long_ago() -> None:
    decision = decide(replace(PLENTY, new_ratings=1), BARS, NIGHTLY)
    assert (decision.enqueue, decision.why) == (True, "schedule")
    assert decision.next_at == datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def test_a_run_since_the_last_firing_is_not_repeated() -> None:
    facts = replace(PLENTY, new_ratings=10, last_queued_at=NOON - timedelta(hours=1))
    assert codes(facts, cron="0 3 * * *") == ["not_yet", "too_few_new"]


def test_before_the_first_run_a_cron_counts_from_the_first_release() -> None:
    first = replace(PLENTY, last_queued_at=None, new_ratings=1)
    assert decide(replace(first, since_at=NOON - timedelta(days=1)), BARS, NIGHTLY).why == "schedule"
    assert decide(replace(first, since_at=NOON - timedelta(hours=1)), BARS, NIGHTLY).why is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"has_base": False, "has_weights": False}, "no_base"),
        ({"has_weights": False}, "no_weights"),
        ({"queued_run": 7}, "already_queued"),
        ({"running_run": 7}, "already_running"),
        ({"tried_release": 7}, "on_trial"),
        ({"ratings": 199}, "too_few_ratings"),
        ({"raters": 4}, "too_few_raters"),
    ],
)
def test_a_due_run_is_held_back_for_a_reason(change: dict[str, object], code: str) -> None:
    assert codes(replace(PLENTY, **change)) == [code]  # type: ignore[arg-type]


def test_a_firing_that_finds_too_little_lapses_and_the_next_is_waited_for() -> None:
    nothing = replace(PLENTY, new_ratings=0)
    decision = decide(nothing, BARS, NIGHTLY)
    assert ([each.code for each in decision.reasons], decision.lapses) == (["nothing_new"], True)
    rated_at_noon = replace(PLENTY, new_ratings=1, lapsed_at=NOON)
    assert codes(rated_at_noon, cron="0 3 * * *") == ["not_yet", "too_few_new"]
    night = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
    assert decide(replace(rated_at_noon, at=night), BARS, NIGHTLY).due_at == night


@pytest.mark.parametrize(
    "change",
    [{"queued_run": 7}, {"running_run": 7}, {"last_ended_at": NOON - timedelta(hours=1)}],
)
def test_a_firing_that_only_has_to_wait_stays_due(change: dict[str, object]) -> None:
    bars = replace(BARS, cool_down=timedelta(hours=12))
    decision = decide(replace(PLENTY, **change), bars, NIGHTLY)  # type: ignore[arg-type]
    assert (decision.enqueue, decision.lapses, decision.why) == (False, False, "schedule")
    assert decision.due_at == datetime(2026, 11, 22, 3, 0, tzinfo=UTC), "the oldest that was missed"


def test_a_run_cools_down_from_its_end_and_says_until_when() -> None:
    ended = replace(PLENTY, last_ended_at=NOON - timedelta(hours=5))
    bars = replace(BARS, cool_down=timedelta(hours=6))
    assert decide(ended, bars, None).reasons == (
        Reason("cooling_down", {"until": (NOON + timedelta(hours=1)).isoformat()}),
    )
    assert decide(replace(ended, at=NOON + timedelta(hours=1)), bars, None).enqueue


def test_quiet_hours_hold_back_what_is_due_until_they_end() -> None:
    until = NOON + timedelta(hours=9)
    decision = decide(PLENTY, BARS, NIGHTLY, lambda at: until if at < until else None)
    assert (decision.why, decision.lapses) == ("schedule", False)
    assert decision.reasons == (Reason("quiet_hours", {"until": until.isoformat()}),)
    assert decide(replace(PLENTY, at=until), BARS, NIGHTLY, lambda at: until if at < until else None).enqueue


def test_the_time_that_is_told_is_when_it_can_start_after_quiet_hours_and_the_pause() -> None:
    zone, spans = UTC, quiet.parse("02:00-06:00")

    def told(facts: Facts, cool_down: float = 0) -> datetime | None:
        bars = replace(BARS, min_new_ratings=None, cool_down=timedelta(hours=cool_down))
        return decide(facts, bars, NIGHTLY, lambda at: quiet.ends_at(spans, zone, at)).starts_at

    three = NOON + timedelta(hours=15)
    six, four = three + timedelta(hours=3), three + timedelta(hours=1)
    ran = replace(PLENTY, last_queued_at=NOON, last_ended_at=NOON)
    assert told(ran) == six
    assert told(ran, cool_down=20) == NOON + timedelta(hours=20)
    assert told(ran, cool_down=17) == six, "the pause ends in quiet hours"
    assert told(replace(ran, at=four)) == six, "due, and waiting"
    assert told(replace(ran, at=four, ratings=0)) == six + timedelta(days=1), "lapsed: the next"


@pytest.mark.parametrize(
    ("method", "kinds", "reason"),
    [
        ("sft", {"answers": 9}, Reason("too_few_answers", {"have": 9, "need": 10})),
        ("dpo", {"answers": 99, "pairs": 3}, Reason("too_few_pairs", {"have": 3, "need": 20})),
        ("orpo", {}, Reason("too_few_pairs", {"have": 0, "need": 20})),
        ("kto", {"thumbs": 29}, Reason("too_few_thumbs", {"have": 29, "need": 30})),
        ("auto", {"answers": 9, "pairs": 19, "thumbs": 29}, Reason("too_few_of_each", {
            "answers": 9, "pairs": 19, "thumbs": 29, "need_answers": 10, "need_pairs": 20, "need_thumbs": 30})),
        ("sft", {"answers": 10}, None), ("dpo", {"pairs": 20}, None), ("kto", {"thumbs": 30}, None),
        ("auto", {"pairs": 20}, None), ("auto", {"answers": 10}, None),
    ],
)  # fmt: skip
def test_each_method_has_a_bar_of_its_own_and_auto_takes_any(
    method: str, kinds: dict[str, int], reason: Reason | None
) -> None:
    bars = replace(BARS, method=method, min_kinds={"answers": 10, "pairs": 20, "thumbs": 30})
    assert decide(replace(PLENTY, kinds=kinds), bars, None).reasons == ((reason,) if reason else ())


def test_every_reason_is_told_at_once_with_its_figures() -> None:
    decision = decide(replace(PLENTY, ratings=3, raters=1, new_ratings=3), BARS, None)
    assert decision.reasons == (
        Reason("too_few_ratings", {"have": 3, "need": 200}),
        Reason("too_few_raters", {"have": 1, "need": 5}),
        Reason("too_few_new", {"have": 3, "need": 50}),
    )


def test_without_cron_and_threshold_it_says_so() -> None:
    assert codes(PLENTY, Bars(None, 1, 1)) == ["no_schedule"]


def test_a_run_is_queued_for_a_trainer_that_is_not_there_yet() -> None:
    decision = decide(replace(PLENTY, trainer_lives=False), BARS, None)
    assert (decision.enqueue, decision.reasons) == (True, (Reason("no_trainer"),))


@given(
    has_base=st.booleans(),
    queued=st.none() | st.integers(1, 9),
    running=st.none() | st.integers(1, 9),
    ratings=st.integers(0, 400),
    raters=st.integers(0, 10),
    new=st.integers(0, 100),
    hours=st.none() | st.integers(0, 99),
    min_new=st.none() | st.integers(1, 100),
    has_cron=st.booleans(),
)
def test_whoever_is_not_queued_is_told_why(
    has_base: bool, queued: int | None, running: int | None, ratings: int, raters: int, new: int, hours: int | None,
    min_new: int | None, has_cron: bool,
) -> None:  # fmt: skip
    last = None if hours is None else NOON - timedelta(hours=hours)
    facts = Facts(
        NOON, "default", has_base, has_base, queued, running,
        last, last, NOON if has_base else None, None, ratings, raters, new, {}, True,
    )  # fmt: skip
    decision = decide(facts, Bars(min_new, 200, 5), NIGHTLY if has_cron else None)
    assert decision.enqueue == (not decision.reasons)
    if decision.enqueue:
        assert has_base
        assert queued is None
        assert running is None
        assert ratings >= 200
        assert raters >= 5
        assert new > 0
        assert decision.why == "schedule" or (min_new is not None and new >= min_new)


@pytest.mark.parametrize(
    ("expression", "weekdays"),
    [
        ("0 3 * * 0", {6}),
        ("0 3 * * 7", {6}),
        ("0 3 * * 1", {0}),
        ("0 3 * * 1-5", {0, 1, 2, 3, 4}),
        ("0 3 * * 0-2", {6, 0, 1}),
        ("0 3 * * 5-7", {4, 5, 6}),
        ("0 3 * * 0,3", {6, 2}),
        ("0 3 * * */2", {6, 1, 3, 5}),
        ("0 3 * * 1-5/2", {0, 2, 4}),
        ("0 3 * * 4/1", {3, 4, 5, 6}),
        ("0 3 * * mon-wed", {0, 1, 2}),
        ("0 3 * * *", {0, 1, 2, 3, 4, 5, 6}),
    ],
)
def test_days_of_the_week_are_those_of_cron(expression: str, weekdays: set[int]) -> None:
    next_firing, at, fired = firings(expression, UTC), NOON, set()
    for _ in range(14):
        found = next_firing(at)
        assert found is not None
        at = found
        fired.add(at.weekday())
    assert fired == weekdays


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "0 3 * * * *", "61 3 * * *", "0 3 * * 8", "0 3 * * 5-1", "0 0 31 2 *", "@daily", "a b c d e"],
)
def test_what_is_no_cron_is_refused_with_an_example(expression: str) -> None:
    with pytest.raises(BadCron, match=r"0 3 \* \* \*"):
        firings(expression, UTC)


def test_a_firing_is_in_the_zone_it_was_written_for_and_strictly_later() -> None:
    shanghai = firings("0 3 * * *", ZoneInfo("Asia/Shanghai"))
    first = shanghai(NOON)
    assert first == datetime(2026, 11, 24, 19, 0, tzinfo=UTC)
    assert shanghai(first) == first + timedelta(days=1)


def test_a_cron_that_never_fires_makes_nothing_due() -> None:
    decision = decide(replace(PLENTY, new_ratings=1), BARS, lambda _: None)
    assert (decision.enqueue, decision.next_at) == (False, None)


# Zones whose clocks change by an hour, by half of one, in the other half of the year, not at all, or have leapt a day.
ZONES = (
    *("Asia/Shanghai", "Asia/Kolkata", "UTC", "Europe/Berlin", "America/New_York", "America/St_Johns"),
    *("America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"),
)
clocks = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
zones = st.sampled_from(ZONES).map(ZoneInfo)
crons = st.builds(lambda minute, hour: f"{minute} {hour} * * *", st.integers(0, 59), st.integers(0, 23))


@given(clocks, zones, crons)
def test_a_nightly_cron_fires_once_for_each_day_of_the_calendar(at: datetime, zone: ZoneInfo, expression: str) -> None:
    next_firing, fired = firings(expression, zone), [at]
    for _ in range(10):
        found = next_firing(fired[-1])
        assert found is not None
        assert found > fired[-1]
        fired.append(found)
    days = [each.astimezone(zone).date() for each in fired[1:]]
    assert len(set(days)) == len(days), "an hour that comes twice starts one run"
    gaps = {(later - earlier).days for earlier, later in pairwise(days)}
    assert gaps <= {1, 2}, "2: Samoa had no 30th of December in 2011"
    assert gaps == {1} or zone.key == "Pacific/Apia"


@given(clocks, zones, crons)
def test_a_firing_is_at_the_hour_that_was_written_unless_the_clock_leapt_over_it(
    at: datetime, zone: ZoneInfo, expression: str
) -> None:
    found = firings(expression, zone)(at)
    assert found is not None
    minute, hour = (int(each) for each in expression.split()[:2])
    local = found.astimezone(zone)
    written = local.replace(hour=hour, minute=minute, fold=0)
    leapt = written.astimezone(UTC).astimezone(zone).time() != written.time()
    assert (local.hour, local.minute) == (hour, minute) or leapt or local.hour == local.minute == 0


class Night:
    """A lane over weeks: ratings come, runs are queued by the policy and end, schedules is down for a while."""

    def __init__(self, at: datetime, zone: ZoneInfo, rng: random.Random) -> None:
        self.began_at, self.at, self.zone, self.rng = at, at, zone, rng
        self.ratings = self.since_last = 0
        self.queued: list[datetime] = []
        self.ended_at: datetime | None = None
        self.lapsed_at: datetime | None = None

    def facts(self) -> Facts:
        ends_at = self.queued[-1] + timedelta(hours=3) if self.queued else None
        is_running = ends_at is not None and self.at < ends_at
        return replace(
            PLENTY,
            at=self.at,
            running_run=1 if is_running else None,
            last_queued_at=self.queued[-1] if self.queued else None,
            last_ended_at=None if is_running else ends_at,
            since_at=self.began_at,
            lapsed_at=self.lapsed_at,
            ratings=self.ratings,
            new_ratings=self.since_last,
        )

    def look(self, bars: Bars, cron: str, spans: tuple[quiet.Span, ...]) -> Decision:
        decision = decide(self.facts(), bars, firings(cron, self.zone), lambda at: quiet.ends_at(spans, self.zone, at))
        if decision.lapses:
            self.lapsed_at = self.at
        if decision.enqueue:
            self.queued.append(self.at)
            self.since_last = 0
        return decision

    def passes(self, hours: float) -> None:
        self.at += timedelta(hours=hours)
        come = self.rng.choice((0, 0, 1, 30))
        self.ratings, self.since_last = self.ratings + come, self.since_last + come


@settings(max_examples=60)
@given(clocks, zones, crons, st.integers(0, 2**32), st.sampled_from(("", "08:00-23:00", "22:30-02:15", "01:00-02:00")))
def test_over_weeks_of_any_clock_no_run_starts_in_quiet_or_while_it_cools_or_twice_for_one_firing(
    at: datetime, zone: ZoneInfo, cron: str, seed: int, hours: str
) -> None:
    spans, bars = quiet.parse(hours), Bars(None, 20, 1, cool_down=timedelta(hours=5))
    night, next_firing = Night(at, zone, random.Random(seed)), firings(cron, zone)
    for _ in range(200):
        night.passes(night.rng.choice((0.2, 1.0, 3.0, 70.0)))
        before = night.queued[-1] if night.queued else None
        decision = night.look(bars, cron, spans)
        assert decision.enqueue or decision.reasons, "whoever waits is told why"
        if decision.enqueue:
            assert not quiet.is_quiet(spans, zone, night.at)
            fired_at = next_firing(before or at)
            assert fired_at is not None
            assert fired_at <= night.at
            if before is not None:
                assert night.at - before >= timedelta(hours=8), "three of training, five to cool down"


@settings(max_examples=60)
@given(clocks, zones, crons, st.integers(1, 200))
def test_however_long_nobody_looked_one_run_makes_up_for_it(at: datetime, zone: ZoneInfo, cron: str, days: int) -> None:
    night = Night(at, zone, random.Random(0))
    night.ratings = night.since_last = 100
    night.at += timedelta(days=days + 1)
    assert night.look(Bars(None, 20, 1), cron, ()).enqueue
    night.at += timedelta(hours=4)
    night.since_last = 1
    decision = night.look(Bars(None, 20, 1), cron, ())
    next_at = firings(cron, zone)(night.queued[0])
    assert next_at is not None
    assert decision.enqueue == (next_at <= night.at)
