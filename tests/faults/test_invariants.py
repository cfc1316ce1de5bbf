"""Each invariant can fail: what is lost, doubled, stuck or different is found, and where all is well nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from storage import deployments, outbox, releases, runs
from storage.db import Database, Session
from storage.records import Run, RunState, Thumb
from tests.faults import invariants
from tests.faults.invariants import Ended, Found
from tests.trainer.community import AT, Community

SAID = ("test:2", "test:3")
GIVEN = {("1", "test:2"): "up"}
TAGS = {"base:1": "abc"}
ENDED = Ended("abc", {"passed": True}, {"effect": True})


@dataclass
class Screen:
    """One chat's answers, as the fake keeps them."""

    answers: list[Any]


@dataclass
class Shown:
    text: str
    deleted: bool = False


@pytest.fixture
def well(sqlite_db: Database) -> Database:
    """Two questions that were answered, one of them rated; a run that was built."""
    community = Community(sqlite_db)
    community.live(weights="/weights", sha256="abc")
    rater = community.person()
    (first,), _ = community.ask(rater, "一?", "一。"), community.ask(rater, "二?", "二。")
    community.rate(rater, first, Thumb.UP)
    queued = sqlite_db.write(runs.enqueue, "default", {}, "test", AT)
    assert queued is not None
    sqlite_db.write(runs.claim, "test", AT)
    sqlite_db.write(runs.move, queued.id, 1, RunState.RUNNING, RunState.BUILT, AT)
    return sqlite_db


CHECKS: dict[str, Callable[[Database], Found]] = {
    "messages kept": lambda db: invariants.messages_are_kept_once(db, SAID),
    "messages answered": invariants.messages_are_answered_once,
    "ratings": lambda db: invariants.ratings_are_kept_once(db, GIVEN),
    "open": invariants.nothing_is_left_open,
    "runs end": invariants.runs_come_to_an_end,
    "runs move": invariants.runs_move_as_runs_do,
    "live": lambda db: invariants.one_release_is_live(db, TAGS),
    "canary": lambda db: invariants.a_canary_is_a_proposal(db, TAGS),
    "talks": lambda db: invariants.conversations_keep_their_canary(db, dict.fromkeys(range(20), "base:1")),
    "notices": invariants.notices_are_put_once,
    "served": lambda db: invariants.what_is_served_is_what_was_judged(db, TAGS),
}
COPIED = "answer_id, user_id, thumb, rated_at"
TRIED = """INSERT INTO deployment (release_id, share, "by", why, since_at)
    SELECT release_id, 0.5, 'test', 'conversations', since_at FROM deployment"""
BREAKS = [
    ("messages kept", "UPDATE message SET source = 'test:9' WHERE source = 'test:3'", "test:3 was kept 0 times"),
    ("messages kept", "DELETE FROM message WHERE source = 'test:2'", "test:2 was kept 0 times"),
    ("messages answered", "DELETE FROM turn WHERE id = 1", "message 1 has 0 turns"),
    ("messages answered", "UPDATE turn SET message_id = 1", "message 1 has 2 turns"),
    ("messages answered", "UPDATE answer SET message_id = 1", "message 1 has 2 answers"),
    ("ratings", "DELETE FROM rating", "1 rated test:2: ['up'] was given and [] kept"),
    ("ratings", f"INSERT INTO rating ({COPIED}) SELECT {COPIED} FROM rating", "['up', 'up'] kept"),
    ("ratings", "UPDATE rating SET thumb = 'down'", "['down'] kept"),
    ("ratings", "UPDATE rating SET answer_id = 2", "1 rated test:3: "),
    ("open", "UPDATE turn SET closed_at = NULL WHERE id = 2", "turn 2 is open"),
    ("runs end", "UPDATE run SET state = 'QUEUED'", "run 1 is QUEUED"),
    ("runs end", "UPDATE run SET state = 'RUNNING'", "run 1 is RUNNING"),
    ("runs move", "UPDATE run SET state = 'FAILED'", "run 1 is FAILED"),
    ("runs move", "DELETE FROM run_event WHERE after = 'RUNNING'", "run 1 moved from RUNNING, and was QUEUED"),
    ("live", "DELETE FROM deployment", "no release is live"),
    ("live", "UPDATE release SET tag = 'lost:1'", "lost:1 is live and nowhere to be asked"),
    ("canary", TRIED, "the canary's run is nobody's"),
    ("canary", TRIED, "what is tried is live"),
    ("talks", "DELETE FROM deployment", "nothing answers in conversation 3"),
    ("served", "UPDATE artefact SET sha256 = 'other'", "base:1 is not the file that was judged"),
]


@pytest.mark.parametrize("check", CHECKS)
def test_where_all_is_well_nothing_is_found(well: Database, check: str) -> None:
    assert CHECKS[check](well) == []


@pytest.mark.parametrize(("check", "statement", "told"), BREAKS)
def test_what_is_broken_in_the_database_is_found(well: Database, check: str, statement: str, told: str) -> None:
    with well.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # not within a transaction
        connection.exec_driver_sql("BEGIN")
        connection.execute(sql(statement))
        connection.commit()
    found = CHECKS[check](well)
    assert any(told in each for each in found), found


def test_a_conversation_that_the_canary_loses_and_a_canary_that_cannot_be_asked_are_found(well: Database) -> None:
    def try_one(session: Session) -> None:
        deployments.deploy(session, releases.add(session, "new:1", 1, AT).id, "test", "conversations", AT, share=0.5)

    well.write(try_one)
    assert "new:1 is tried and nowhere to be asked" in invariants.a_canary_is_a_proposal(well, TAGS)
    found = invariants.conversations_keep_their_canary(well, dict.fromkeys(range(20), "new:1"))
    assert 0 < len(found) < 20
    assert all("was the canary's" in each for each in found)


def test_a_notice_that_is_put_twice_is_found(well: Database) -> None:
    for number in (1, 2, 2):
        well.write(outbox.put, "canary_begun", {"release": number}, AT)
    assert invariants.notices_are_put_once(well) == ["canary_begun is told 2 times"]


def test_an_answer_that_is_seen_twice_or_never_is_found() -> None:
    def seen(*texts: str) -> Found:
        chat: Any = Screen([Shown(text) for text in texts])
        return invariants.answers_are_seen_once([chat], ["答1毕", "答2毕"], {"答1毕"})

    assert seen("答1毕好") == seen("答1毕", "答2毕") == []
    assert seen("答2毕") == ["答1毕 is seen 0 times"]
    assert seen("答1毕", "答2毕答2毕") == ["答2毕 is seen 2 times"]


@pytest.mark.parametrize("name", ["sha256", "verdict", "scorecard"])
def test_another_verdict_is_found(name: str) -> None:
    assert invariants.the_verdict_is_the_undisturbed_one_s(ENDED, ENDED) == []
    other = replace(ENDED, **{name: None})
    assert invariants.the_verdict_is_the_undisturbed_one_s(other, ENDED) == [f"{name} differs"]


def test_half_a_file_is_found(tmp_path: Path) -> None:
    assert invariants.nothing_half_written_is_left(tmp_path) == []
    (tmp_path / "candidate.part").touch()
    assert invariants.nothing_half_written_is_left(tmp_path) == ["candidate.part was left"]


def test_a_failure_that_nobody_hears_of_or_nobody_foresaw_is_found(well: Database) -> None:
    run: Run = replace(well.read(runs.get, 1), error={"code": "disk_full"})
    assert invariants.a_failure_is_told(run, ["run_failed"]) == []
    assert invariants.a_failure_is_told(run, []) == ["nobody was told that run 1 failed"]
    for error in ({"code": "internal", "type": "KeyError"}, {"code": "no_such_words"}, None):
        (found,) = invariants.a_failure_is_told(replace(run, error=error), ["run_failed"])
        assert "nobody foresaw" in found
