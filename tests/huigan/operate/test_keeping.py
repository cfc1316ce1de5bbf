"""What goes of what piles up: never what is needed, the oldest first, and no more than has to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from huigan.operate import keeping
from huigan.operate.keeping import YIELDING, Kind, Limits, Thing

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KINDS: tuple[Kind, ...] = ("left", "log", "candidate", "artefact", "base", "run", "tag")


def thing(kind: Kind, order: int, size: int = 1, *, needed_for: str | None = None, days: int = 0) -> Thing:
    return Thing(kind, f"{kind}-{order}", size, order, AT - timedelta(days=days), needed_for)


def names(plan: keeping.Plan) -> list[str]:
    return [each.thing.name for each in plan.going]


def test_the_newest_of_a_kind_stay_and_what_is_needed_stays_and_counts() -> None:
    artefacts = [thing("artefact", 1, needed_for="rollback"), *(thing("artefact", each) for each in (2, 3, 4))]
    planned = keeping.plan(artefacts, Limits({"artefact": 2}), AT)
    assert sorted(names(planned)) == ["artefact-2"]
    assert {each.name for each in planned.kept} == {"artefact-1", "artefact-3", "artefact-4"}


def test_without_limits_only_what_was_left_by_a_kill_goes() -> None:
    present = [thing(kind, 1) for kind in KINDS]
    assert names(keeping.plan(present, Limits(), AT)) == ["left-1"]


def test_logs_go_by_age() -> None:
    present = [thing("log", 1, days=31), thing("log", 2, days=29)]
    assert names(keeping.plan(present, Limits(age={"log": timedelta(days=30)}), AT)) == ["log-1"]


def test_over_the_budget_files_of_old_runs_go_before_bases_and_folders_and_no_more_than_has_to() -> None:
    present = [thing("run", 1, 1), thing("base", 1, 5), thing("artefact", 1, 5), thing("artefact", 2, 5)]
    assert names(keeping.plan(present, Limits(budget_bytes=16), AT)) == []
    assert names(keeping.plan(present, Limits(budget_bytes=15), AT)) == ["artefact-1"]
    assert names(keeping.plan(present, Limits(budget_bytes=5), AT)) == ["artefact-1", "artefact-2", "base-1"]


def test_a_budget_that_what_is_needed_exceeds_is_told() -> None:
    planned = keeping.plan(
        [thing("artefact", 1, 9, needed_for="live"), thing("tag", 1, 50)], Limits(budget_bytes=5), AT
    )
    assert (planned.going, planned.over_bytes) == ((), 4)


@given(
    st.lists(
        st.builds(
            Thing,
            st.sampled_from(KINDS),
            st.uuids().map(str),
            st.integers(0, 100),
            st.integers(0, 50).map(float),
            st.integers(0, 60).map(lambda days: AT - timedelta(days=days)),
            st.sampled_from([None, "live"]),
        )
    ),
    st.dictionaries(st.sampled_from(KINDS), st.one_of(st.none(), st.integers(1, 5))),
    st.one_of(st.none(), st.integers(0, 500)),
)
def test_nothing_that_is_needed_ever_goes_nothing_is_lost_and_a_second_time_nothing_more_goes(
    present: list[Thing], number: dict[Kind, int | None], budget: int | None
) -> None:
    limits = Limits(number, {"log": timedelta(days=30)}, budget)
    planned = keeping.plan(present, limits, AT)
    assert all(each.thing.needed_for is None for each in planned.going)
    assert sorted([*(each.thing.name for each in planned.going), *(each.name for each in planned.kept)]) == sorted(
        each.name for each in present
    )
    assert keeping.plan(planned.kept, limits, AT).going == ()
    if budget is not None and planned.over_bytes:
        free = [each for each in planned.kept if each.kind in YIELDING and each.needed_for is None and each.size_bytes]
        assert free == []
