"""Nights in simulated time, one after the other, with everything that may befall a server that is left alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from storage import deployments, runs
from storage.db import Database
from tests.fakes.ollama import FakeOllama
from tests.year import invariants
from tests.year.crowd import Given
from tests.year.world import Year

# A week before the clocks are put back, and two before November, in which releases are tried on people first.
AUTUMN = date(2027, 10, 22)


def lived(db: Database, folder: Path, nights: int, seed: int) -> tuple[Year, list[str]]:
    """With every trouble that was seen."""
    with FakeOllama().running() as fake:
        year = Year(db, folder / "home", fake, seed, AUTUMN)
        troubles: list[str] = []
        with year.begun():
            for night in year.live(nights):
                troubles += invariants.after_night(year, night)
            troubles += invariants.at_the_end(year)
    return year, troubles


@pytest.mark.slow
def test_after_two_weeks_of_nights_everything_that_must_hold_holds(sqlite_db: Database, tmp_path: Path) -> None:
    year, troubles = lived(sqlite_db, tmp_path, nights=14, seed=1)
    assert troubles == []
    assert year.counts["attempts"] > 2
    assert year.crowd.counts["ratings"] > 20
    assert year.counts["runs as clocks were put back"] == 1
    assert year.acts()["canary.begin by itself"] > 0


def test_what_goes_wrong_is_seen(sqlite_db: Database, tmp_path: Path) -> None:
    with FakeOllama().running() as fake:
        year = Year(sqlite_db, tmp_path / "home", fake, seed=1)
        with year.begun():
            assert [trouble for night in year.live(1) for trouble in invariants.after_night(year, night)] == []
            year.crowd.gone["kalolo"] = year.clock.at
            folder = year.home / "runs" / "1-20270101T000000"
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text('"kalolo"')
            year.crowd.ledger.ratings[1_000_000] = Given((1, 2), year.clock.at)
            run = sqlite_db.write(runs.enqueue, "default", year.recipe().to_dict(), "test", year.clock.at)
            assert run is not None
            sqlite_db.write(runs.claim, "gpu", year.clock.at)
            live = sqlite_db.read(deployments.live)
            assert live is not None
            del fake.tags[live.release.tag]
            assert ["is needed for: live" in trouble for trouble in invariants.answering(year)] == [True]
            assert ["nobody works on it" in trouble for trouble in invariants.stuck(year)] == [True]
            assert ["ratings lost: [1000000]" in trouble for trouble in invariants.ratings(year)] == [True]
            assert ["words of kalolo" in trouble for trouble in invariants.forgotten(year)] == [True]
