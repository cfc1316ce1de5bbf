"""Releases move in one transaction or not at all, whatever Ollama and other admins do meanwhile."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest

from huigan.operate import releases
from huigan.operate.refusals import Refusal
from huigan.operate.releases import Promoted, Rejected
from huigan.serving.client import Ollama
from huigan.serving.errors import NotRunning, OutOfMemory, ServingError
from storage import artefacts, audit, deployments, holdings, outbox, runs, users
from storage import releases as stored
from storage.db import Database
from storage.records import Release, RunState
from tests.fakes.ollama import OUT_OF_MEMORY, FakeOllama
from tests.huigan.operate.conftest import ARTEFACT, AT, Desk, minutes


def live(db: Database) -> int:
    found = db.read(deployments.live)
    assert found is not None
    return found.release.id


def state(db: Database, release: Release) -> RunState:
    run_id = db.read(artefacts.get, release.artefact_id).run_id
    assert run_id is not None
    return db.read(runs.get, run_id).state


def codes(db: Database) -> list[str]:
    return [notice.code for notice in db.read(outbox.unsent)]


def acts(db: Database) -> list[tuple[str, Any]]:
    return [(each.act, each.params.get("refused") or each.params.get("failed")) for each in db.read(audit.newest)]


def test_a_proposal_waits_and_its_promotion_swaps(db: Database, desk: Desk, fake: FakeOllama, client: Ollama) -> None:
    proposal = desk.proposed()
    assert (live(db), state(db, proposal), codes(db)) == (1, RunState.AWAITING_APPROVAL, ["run_awaiting_approval"])
    promoted = releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(1))
    assert isinstance(promoted, Promoted)
    assert (live(db), state(db, proposal)) == (proposal.id, RunState.RELEASED)
    assert promoted.before is not None
    assert promoted.before.id == 1
    assert proposal.tag in fake.loaded
    assert fake.tags["huigan:live"].digest == fake.tags[proposal.tag].digest
    assert codes(db)[-1] == "release_promote"
    assert acts(db)[0] == ("release.promote", None)


def test_a_published_run_answers_at_once(db: Database, desk: Desk) -> None:
    published = desk.published()
    assert (live(db), state(db, published), codes(db)) == (published.id, RunState.RELEASED, ["run_released"])


@pytest.mark.parametrize("end", [releases.propose, releases.publish])
def test_a_zombies_release_is_nowhere(db: Database, desk: Desk, end: Any) -> None:
    run = desk.running()
    db.write(runs.release_worker, run, minutes(1))
    assert db.write(end, run.id, run.attempt, ARTEFACT, desk.tag(run), minutes(2)) is None
    assert (live(db), db.read(artefacts.of_run, run.id), len(db.read(stored.newest)), codes(db)) == (1, None, 1, [])


@pytest.mark.parametrize("end", [releases.propose, releases.put_on_trial, releases.publish])
@pytest.mark.parametrize("before", [runs.ask_cancel, lambda session, run_id, at: holdings.mark(session, [run_id], at)])
def test_a_run_that_was_to_end_or_holds_what_was_taken_back_makes_no_release_at_the_last_moment(
    db: Database, desk: Desk, end: Any, before: Any
) -> None:
    run = desk.running()
    db.write(before, run.id, minutes(1))
    assert db.write(end, run.id, run.attempt, ARTEFACT, desk.tag(run), minutes(2)) is None
    assert db.read(runs.get, run.id).state is RunState.CANCELLED
    assert (live(db), db.read(artefacts.of_run, run.id), len(db.read(stored.newest))) == (1, None, 1)
    assert codes(db) == ["run_cancelled"]


def test_what_the_gate_refused_is_kept_and_not_released(db: Database, desk: Desk) -> None:
    run = desk.running()
    kept = db.write(releases.turn_down, run.id, run.attempt, ARTEFACT, minutes(1))
    assert kept is not None
    ended = db.read(runs.get, run.id)
    assert (ended.state, ended.artefact_id, live(db)) == (RunState.REJECTED, kept.id, 1)
    assert db.read(stored.of_artefact, kept.id) is None


def test_a_newer_proposal_supersedes_the_one_that_waits(db: Database, desk: Desk, client: Ollama) -> None:
    older, other_lane, newer = desk.proposed(), desk.proposed("experiments"), desk.proposed()
    assert [state(db, each) for each in (older, other_lane, newer)] == [
        RunState.SUPERSEDED,
        RunState.AWAITING_APPROVAL,
        RunState.AWAITING_APPROVAL,
    ]
    refused = releases.promote(db, client, older.id, by_user_id=None, at=minutes(1))
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.params["state"]) == ("release_not_open", RunState.SUPERSEDED)
    assert live(db) == 1


def test_a_rejected_proposal_can_be_promoted_no_more(db: Database, desk: Desk, client: Ollama) -> None:
    proposal = desk.proposed()
    admin = db.write(users.meet, "telegram", "1", "Ann", None, AT)
    rejected = releases.reject(db, proposal.id, by_user_id=admin.id, why="too curt", at=minutes(1))
    assert isinstance(rejected, Rejected)
    for again in (
        releases.reject(db, proposal.id, by_user_id=admin.id, why="still", at=minutes(2)),
        releases.promote(db, client, proposal.id, by_user_id=admin.id, at=minutes(3)),
    ):
        assert isinstance(again, Refusal)
        assert again.code == "release_not_open"
    assert live(db) == 1
    assert acts(db)[:3] == [
        ("release.promote", "release_not_open"),
        ("release.reject", "release_not_open"),
        ("release.reject", None),
    ]
    event = db.read(runs.events, rejected.run.id)[-1]
    assert event.detail == {"why": "too curt", "by": f"user {admin.id}"}


def test_what_is_no_release_or_live_already_is_refused(db: Database, desk: Desk, client: Ollama) -> None:
    assert releases.promote(db, client, 99, by_user_id=None, at=AT) == Refusal("unknown_release", {"release": 99})
    assert releases.reject(db, 99, by_user_id=None, why="", at=AT) == Refusal("unknown_release", {"release": 99})
    assert releases.promote(db, client, 1, by_user_id=None, at=AT) == Refusal("already_live", {"release": 1})
    assert isinstance(releases.reject(db, 1, by_user_id=None, why="", at=AT), Refusal)


def test_what_cannot_be_loaded_leaves_the_live_one(db: Database, desk: Desk, fake: FakeOllama, client: Ollama) -> None:
    proposal = desk.proposed()
    fake.inject("/api/generate", *OUT_OF_MEMORY)
    with pytest.raises(OutOfMemory):
        releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(1))
    assert (live(db), state(db, proposal)) == (1, RunState.AWAITING_APPROVAL)
    assert acts(db)[0] == ("release.promote", "out_of_memory")
    assert isinstance(releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(2)), Promoted)


def test_without_ollama_nothing_is_promoted(db: Database, desk: Desk) -> None:
    proposal = desk.proposed()
    with pytest.raises(NotRunning):
        releases.promote(db, Ollama("http://127.0.0.1:9"), proposal.id, by_user_id=None, at=minutes(1))
    assert live(db) == 1


def test_a_tag_that_ollama_lost_is_made_again_from_its_file(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama, tmp_path: Any
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    run = desk.running()
    artefact = {**ARTEFACT, "path": str(file), "sha256": hashlib.sha256(b"GGUF and more").hexdigest()}
    kept = db.write(releases.propose, run.id, run.attempt, artefact, "huigan:run1-0", AT)
    assert kept is not None
    assert isinstance(releases.promote(db, client, kept.id, by_user_id=None, at=minutes(1)), Promoted)
    assert fake.tags["huigan:run1-0"].system == ARTEFACT["system"]


def test_two_promotes_at_once_leave_one_live_and_both_in_the_audit(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    first, second = desk.proposed(), desk.proposed("experiments")
    fake.hang("/api/generate", times=2)  # both have looked, and load
    results: list[object] = []

    def promote(number: int) -> None:
        results.append(releases.promote(db, client, number, by_user_id=None, at=minutes(1), alias=None))

    threads = [threading.Thread(target=promote, args=(each,)) for each in (first.id, second.id)]
    for thread in threads:
        thread.start()
    fake.wait_for(lambda each: len(each.of("/api/generate")) >= 3)  # the base's own warming was the first
    fake.resume()
    for thread in threads:
        thread.join()
    assert all(isinstance(each, Promoted) for each in results)
    assert live(db) in {first.id, second.id}
    newest = db.read(deployments.history)
    assert newest[0].release_id == live(db)
    assert {each.release_id for each in newest[:2]} == {first.id, second.id}
    assert acts(db)[:2] == [("release.promote", None)] * 2


def test_one_proposal_promoted_and_rejected_at_once_ends_one_way(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    proposal = desk.proposed()
    fake.hang("/api/generate")
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.append(releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(1)))
    )
    thread.start()
    fake.wait_for(lambda each: len(each.of("/api/generate")) >= 2)
    assert isinstance(releases.reject(db, proposal.id, by_user_id=None, why="no", at=minutes(1)), Rejected)
    fake.resume()
    thread.join()
    assert isinstance(results[0], Refusal)
    assert (live(db), state(db, proposal)) == (1, RunState.REJECTED)


def test_an_alias_left_behind_does_not_undo_a_promotion(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    proposal = desk.proposed()
    fake.inject("/api/copy", 500, "no", times=9)
    try:
        promoted = releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(1))
    except ServingError as error:
        pytest.fail(f"the alias is best effort: {error}")
    assert isinstance(promoted, Promoted)
    assert live(db) == proposal.id
