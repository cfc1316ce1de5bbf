"""What leads from data sets to people stays for as long as anything is there that was made of them, and no longer."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from huigan.operate import library, lineage, releases
from huigan.serving.client import Ollama
from huigan.turns import withdrawal
from storage import artefacts, audit, dataset_copies, dataset_people, datasets, holdings, outbox, runs, tables
from storage.db import Database, Session
from storage.records import Lineage, Run, RunState
from tests.fakes.ollama import FakeOllama
from tests.huigan.operate.conftest import ARTEFACT, AT, Desk, minutes
from tests.trainer.community import Community

DISK = "disk"
SAMPLED = {**ARTEFACT, "scorecard": {"samples": [{"question": "whose?"}], "effect": True}}


@pytest.fixture
def rater_id(db: Database) -> int:
    return Community(db).person().id


def taught(desk: Desk, rater_id: int, ends: RunState = RunState.RELEASED, *, goes_on_from: Run | None = None) -> Run:
    """A run with a data set that lies on a disk, and in which something of that person's is."""
    run = desk.running()
    desk.db.write(_learns, run, rater_id)
    if goes_on_from is not None:
        desk.db.write(runs.go_on_from, run.id, run.attempt, goes_on_from.id)
    if ends is RunState.RELEASED:
        desk.db.write(releases.publish, run.id, run.attempt, SAMPLED, desk.tag(run), AT)
    elif ends is not RunState.RUNNING:
        desk.db.write(runs.move, run.id, run.attempt, RunState.RUNNING, ends, AT)
    return run


def _learns(session: Session, run: Run, rater_id: int) -> None:
    line = Lineage("e", "train", None, None)
    data = datasets.add(session, run.id, "sft", (1, 0), {}, {}, f"{run.id:064d}", "/data", [line], AT)
    dataset_people.add(session, data.id, [("e", rater_id)])
    dataset_copies.add(session, data.id, DISK, "/data", AT)


def folder_goes(db: Database, run: Run) -> None:
    db.write(_forget_copies, run)


def _forget_copies(session: Session, run: Run) -> None:
    for data in datasets.all_of_run(session, run.id):
        for copy in dataset_copies.of(session, data.id):
            dataset_copies.remove(session, copy.id)


def led_to(db: Database) -> set[int]:
    """The runs from whose data sets rows lead to ratings, and to people: the same."""
    with db.engine.connect() as connection:
        found = [
            set(
                connection.scalars(select(tables.dataset.c.run_id).join(each, each.c.dataset_id == tables.dataset.c.id))
            )
            for each in (tables.dataset_example, tables.dataset_person)
        ]
    assert found[0] == found[1]
    return {number for number in found[0] if number is not None}


def test_a_run_that_led_to_nothing_is_let_go_with_its_folder_and_not_before(
    db: Database, desk: Desk, client: Ollama, rater_id: int
) -> None:
    rejected, failed = (taught(desk, rater_id, ends) for ends in (RunState.REJECTED, RunState.FAILED))
    library.prune(db, client, None, minutes(1))
    assert led_to(db) == {rejected.id, failed.id}
    folder_goes(db, rejected)
    library.prune(db, client, None, minutes(2), dry=True)
    assert led_to(db) == {rejected.id, failed.id}
    library.prune(db, client, None, minutes(2))
    assert led_to(db) == {failed.id}
    assert [each.act for each in db.read(audit.newest)].count("data.let_go") == 1
    library.prune(db, client, None, minutes(3))
    assert [each.act for each in db.read(audit.newest)].count("data.let_go") == 1


def test_a_release_is_let_go_once_its_tag_is_gone_too_with_its_samples(
    db: Database, desk: Desk, client: Ollama, fake: FakeOllama, rater_id: int
) -> None:
    old, before, live = (taught(desk, rater_id) for _ in range(3))
    for run in (old, before, live):
        folder_goes(db, run)
    library.prune(db, client, None, minutes(1))
    assert led_to(db) == {old.id, before.id, live.id}
    library.prune(db, client, 1, minutes(2))
    assert led_to(db) == {before.id, live.id}, "what a rollback needs stays"
    made = db.read(artefacts.of_run, old.id)
    assert made is not None
    assert made.scorecard == {"samples": [], "effect": True}
    assert made.verdict == ARTEFACT["verdict"]


def test_while_it_can_be_found_what_is_taken_back_is_found(
    db: Database, desk: Desk, client: Ollama, rater_id: int
) -> None:
    run = taught(desk, rater_id)
    folder_goes(db, run)
    library.prune(db, client, 1, minutes(1))
    db.write(withdrawal.decline, rater_id, minutes(2))
    assert db.read(holdings.of_run, run.id) is not None


def test_what_a_later_release_goes_on_from_stays_as_long_as_that(
    db: Database, desk: Desk, client: Ollama, fake: FakeOllama, rater_id: int
) -> None:
    first = taught(desk, rater_id)
    second = taught(desk, rater_id, goes_on_from=first)
    others = [taught(desk, rater_id) for _ in range(2)]
    folder_goes(db, first)
    library.prune(db, client, 1, minutes(1))
    assert f"huigan:run{second.id}-0123456789ab" not in fake.tags
    assert led_to(db) == {first.id, second.id, *(each.id for each in others)}, "the second one's folder lies there"
    folder_goes(db, second)
    library.prune(db, client, 1, minutes(2))
    assert led_to(db) == {each.id for each in others}


def test_a_run_that_goes_on_and_a_tag_that_became_no_release_keep_theirs(
    db: Database, desk: Desk, client: Ollama, fake: FakeOllama, rater_id: int
) -> None:
    killed = taught(desk, rater_id, RunState.FAILED)
    desk.tag(killed)
    going_on = taught(desk, rater_id, RunState.RUNNING)
    for run in (killed, going_on):
        folder_goes(db, run)
    library.prune(db, client, 1, minutes(1))
    assert led_to(db) == {killed.id, going_on.id}


def test_an_ollama_without_the_live_tag_says_nothing_of_what_is_gone(
    db: Database, desk: Desk, client: Ollama, fake: FakeOllama, rater_id: int
) -> None:
    old, live = taught(desk, rater_id), taught(desk, rater_id)
    taught(desk, rater_id)
    folder_goes(db, old)
    fake.tags.clear()
    library.prune(db, client, 1, minutes(1))
    assert old.id in led_to(db)
    assert live.id in led_to(db)


def test_what_is_needed_stays_though_ollama_has_lost_it(
    db: Database, desk: Desk, client: Ollama, fake: FakeOllama, rater_id: int
) -> None:
    before = taught(desk, rater_id)
    taught(desk, rater_id)
    folder_goes(db, before)
    del fake.tags[f"huigan:run{before.id}-0123456789ab"]
    library.prune(db, client, 1, minutes(1))
    assert before.id in led_to(db)


def test_a_letting_go_that_was_cut_short_is_gone_on_with(db: Database, desk: Desk, rater_id: int) -> None:
    first, second = (taught(desk, rater_id, RunState.REJECTED) for _ in range(2))
    for run in (first, second):
        folder_goes(db, run)
    [data] = db.read(datasets.all_of_run, first.id)
    db.write(dataset_people.let_go, data.id)
    assert lineage.let_go(db, set(), minutes(1)) == [first.id, second.id]
    assert led_to(db) == set()
    assert lineage.let_go(db, set(), minutes(2)) == []
    with db.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.dataset)) == 2, "what was made stays known"


def test_a_run_that_waits_to_be_taken_up_again_ends_and_admins_hear_of_it(
    db: Database, desk: Desk, rater_id: int
) -> None:
    run = taught(desk, rater_id, RunState.RUNNING)
    db.write(runs.release_worker, run, AT)  # its worker was lost
    db.write(withdrawal.take_back, [rater_id], minutes(1))
    assert db.read(runs.get, run.id).state is RunState.CANCELLED
    told = [each for each in db.read(outbox.unsent) if each.code == "run_cancelled"]
    assert [(each.params["run"], each.user_id) for each in told] == [(run.id, None)]
