"""What fails at every round fills no log: it is told once, and once more when it is over."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import text

from huigan.health.outage import AGAIN_SECONDS, Outage
from storage.db import connect

LOGGER = logging.getLogger("test")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lost(tmp_path: Path) -> Exception:
    """What a database that is gone raises."""
    db = connect(f"sqlite:///{tmp_path / 'gone.db'}")
    try:
        with pytest.raises(Exception) as raised:
            db.read(lambda session: session.execute(text("SELECT * FROM what_people_wrote")))
    finally:
        db.close()
    return raised.value


def test_an_outage_is_told_when_it_begins_and_when_it_ends(said: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    outage, error = Outage("a round", LOGGER, clock=lambda: 0.0), lost(tmp_path)
    outage.over()
    for _ in range(1000):
        outage.tell(error)
    outage.over()
    outage.over()
    assert [each.levelname for each in said.records] == ["ERROR", "INFO"]
    assert said.records[0].message == (
        "the database cannot be used, a round is tried again and again: no such table: what_people_wrote"
    )
    assert said.records[0].exc_info is None
    assert said.records[1].message == "a round succeeds again"


def test_one_that_lasts_is_told_every_hour(said: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    times = iter([0.0, 1.0, AGAIN_SECONDS - 1, AGAIN_SECONDS, AGAIN_SECONDS + 1])
    outage, error = Outage("a round", LOGGER, clock=lambda: next(times)), lost(tmp_path)
    for _ in range(5):
        outage.tell(error)
    assert len(said.records) == 2


def test_a_mistake_of_ours_is_told_with_where_it_was_made_and_another_one_anew(
    said: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("a round", LOGGER)
    for error in (KeyError("a"), KeyError("b"), ValueError("c")):
        outage.tell(error)
    assert [type(each.exc_info[1]) for each in said.records if each.exc_info] == [KeyError, ValueError]


def test_it_ends_no_loop_but_what_ends_the_process_passes(said: pytest.LogCaptureFixture) -> None:
    outage = Outage("a round", LOGGER)
    with outage:
        raise ValueError
    with outage:
        pass
    assert [each.levelname for each in said.records] == ["ERROR", "INFO"]
    with pytest.raises(KeyboardInterrupt), outage:
        raise KeyboardInterrupt
