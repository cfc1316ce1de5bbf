"""A release that holds what somebody took back answers only until there is one that does not."""

from __future__ import annotations

from huigan.operate import library, releases, rollbacks, withdrawals
from huigan.operate.refusals import Refusal
from huigan.operate.releases import Promoted
from huigan.serving.client import Ollama
from storage import artefacts, deployments, holdings, outbox, runs
from storage.db import Database
from storage.records import Release, RunState
from tests.fakes.ollama import FakeOllama
from tests.huigan.operate.conftest import Desk, minutes


def take_back(db: Database, release: Release, at: float = 1) -> int:
    """Somebody takes back what its run was trained on. Gives the run."""
    run_id = db.read(artefacts.get, release.artefact_id).run_id
    assert run_id is not None
    db.write(holdings.mark, [run_id], minutes(at))
    return run_id


def live(db: Database) -> int:
    found = db.read(deployments.live)
    assert found is not None
    return found.release.id


def test_the_one_that_answers_goes_on_until_a_clean_one_does_and_is_withdrawn_then(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    held = desk.published()
    run_id = take_back(db, held)
    assert withdrawals.withdraw(db, client, minutes(2)) == []
    assert live(db) == held.id
    clean = desk.published()
    assert withdrawals.withdraw(db, client, minutes(3)) == [held]
    assert held.tag not in fake.tags
    assert clean.tag in fake.tags
    marked = db.read(holdings.of_run, run_id)
    assert marked is not None
    assert marked.withdrawn_at == minutes(3)
    assert withdrawals.withdraw(db, client, minutes(4)) == []
    assert [each.code for each in db.read(outbox.unsent)].count("release_withdrawn") == 1


def test_it_never_follows_one_that_holds_nothing(db: Database, desk: Desk, client: Ollama) -> None:
    held, clean = desk.published(), desk.published()
    take_back(db, held)
    assert rollbacks.rollback(db, client, by_user_id=None, at=minutes(2), to=held.id) == Refusal(
        "data_withdrawn", {"release": held.id}
    )
    assert live(db) == clean.id


def test_of_two_that_both_hold_some_either_may_answer(db: Database, desk: Desk, client: Ollama) -> None:
    first, second = desk.published(), desk.published()
    take_back(db, first)
    take_back(db, second)
    assert isinstance(rollbacks.rollback(db, client, by_user_id=None, at=minutes(2)), Promoted)
    assert live(db) == first.id


def test_a_proposal_that_holds_some_is_turned_away_where_a_clean_one_answers(
    db: Database, desk: Desk, client: Ollama
) -> None:
    proposal = desk.proposed()
    run_id = take_back(db, proposal)
    assert isinstance(releases.promote(db, client, proposal.id, by_user_id=None, at=minutes(2)), Refusal)
    assert withdrawals.withdraw(db, client, minutes(3)) == [proposal]
    assert db.read(runs.get, run_id).state is RunState.REJECTED


def test_an_ollama_that_is_away_is_asked_again(db: Database, desk: Desk, fake: FakeOllama, client: Ollama) -> None:
    held = desk.published()
    desk.published()
    take_back(db, held)
    fake.inject("/api/delete", 500, "away")
    assert withdrawals.withdraw(db, client, minutes(2)) == []
    assert withdrawals.withdraw(db, client, minutes(3)) == [held]


def test_a_tag_that_is_gone_already_is_no_hindrance(db: Database, desk: Desk, fake: FakeOllama, client: Ollama) -> None:
    held = desk.published()
    desk.published()
    take_back(db, held)
    del fake.tags[held.tag]
    assert withdrawals.withdraw(db, client, minutes(2)) == [held]


def test_a_rebuild_is_wanted_for_what_answers_or_awaits_or_was_ended_for_it(db: Database, desk: Desk) -> None:
    old = desk.published()
    take_back(db, desk.published(), at=1)
    assert db.read(withdrawals.rebuild_asked_at, "default") == minutes(1)
    desk.published()
    assert db.read(withdrawals.rebuild_asked_at, "default") is None
    take_back(db, old, at=2)  # which answers no more
    assert db.read(withdrawals.rebuild_asked_at, "default") is None
    take_back(db, desk.proposed(), at=3)
    assert db.read(withdrawals.rebuild_asked_at, "default") == minutes(3)
    desk.published()
    ended = desk.running()
    db.write(holdings.mark, [ended.id], minutes(4))
    db.write(runs.move, ended.id, ended.attempt, RunState.RUNNING, RunState.CANCELLED, minutes(4))
    assert db.read(withdrawals.rebuild_asked_at, "default") == minutes(4)


def test_no_rebuild_is_wanted_while_one_that_was_made_since_awaits_approval(db: Database, desk: Desk) -> None:
    live = desk.published()
    take_back(db, live, at=-1)
    proposal = desk.proposed()
    assert db.read(withdrawals.rebuild_asked_at, "default") is None
    take_back(db, proposal, at=5)  # somebody else's words are in that one, too
    assert db.read(withdrawals.rebuild_asked_at, "default") == minutes(5)


def test_one_that_is_tried_on_a_share_answers_nobody_before_its_tag_goes(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    tried, clean = desk.published(), desk.published()
    db.write(deployments.deploy, tried.id, "test", "conversations", minutes(1), share=0.1)
    take_back(db, tried)
    assert withdrawals.withdraw(db, client, minutes(2)) == [tried]
    assert [(each.release_id, each.share) for each in db.read(deployments.history, 1)] == [(tried.id, 0.0)]
    assert live(db) == clean.id


def test_one_that_was_withdrawn_is_no_rollback_target_that_anybody_puts_back(
    db: Database, desk: Desk, client: Ollama
) -> None:
    held, clean = desk.published(), desk.published()
    assert held.tag in db.read(library.needs)
    take_back(db, held)
    withdrawals.withdraw(db, client, minutes(2))
    assert held.tag not in db.read(library.needs)
    assert clean.tag in db.read(library.needs)
