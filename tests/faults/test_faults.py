"""The short form: every kind of fault once. `python -m benchmarks.faults` is the long one; of it, what kills a canary's
acts at every instant is here too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.grounds import Grounds
from tests.faults.matrix import Fault, NotHere
from tests.faults.table import FAULTS, ROUGH, SELDOM, SHORT, of_trials


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Grounds:
    return Grounds(tmp_path_factory.mktemp("grounds"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: fault.name)
def test_whatever_breaks_what_must_hold_holds(fault: Fault, grounds: Grounds, tmp_path: Path) -> None:
    try:
        came = fault.strike(grounds, tmp_path / "cell", seed=1)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert came.broken == [], came.how


@pytest.mark.long
@pytest.mark.parametrize("fault", of_trials(), ids=lambda fault: fault.name)
def test_an_act_of_a_canary_is_killed_at_every_instant_and_ends_as_one_left_alone(
    fault: Fault, grounds: Grounds, tmp_path: Path
) -> None:
    assert fault.strike(grounds, tmp_path / "cell", seed=1).broken == []


def test_every_kind_of_fault_has_its_place_in_the_short_form() -> None:
    assert len(SHORT) == len(SELDOM) + 1, "a place is misspelt"
    strikes = {strike for strike, _ in ROUGH}
    left = [fault for fault in FAULTS if fault.kind not in {each.kind for each in SHORT}]
    assert {strike for fault in left for strike, _ in fault.told.get("strikes", ())} <= strikes


def test_no_two_faults_have_one_name() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
