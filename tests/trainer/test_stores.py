"""A disk stays in bounds and keeps what answers, what a rollback needs, what awaits approval and what goes on."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from huigan import disk
from huigan.operate import releases
from huigan.operate.keeping import Limits, Plan
from huigan.turns import withdrawal
from storage import audit, dataset_copies, dataset_people, datasets, deployments, runs
from storage.db import Database, Session
from storage.records import Run, RunState
from tests.trainer.community import AT, Community
from trainer import stores
from trainer.stages import folder_of

NOW = datetime.now(UTC)
VALUES = {"quantisation": "Q4_K_M", "template": "t", "system": "s", "parameters": {}}
BIG = ("candidate.gguf", "importance.gguf", "train/sft/adapter/a.safetensors", "train/sft/checkpoints/checkpoint-1/b")
SMALL = ("score.json", "dataset/answers/train.parquet", "train/sft/curves.jsonl")


@dataclass
class Machine:
    db: Database
    home: Path
    runs: list[Run] = field(default_factory=list)

    def run(self, *, ends: str = "published") -> Run:
        """One that left a folder behind, and was published, proposed or rejected, or still goes on."""
        self.db.write(runs.enqueue, "default", {}, "test", AT)
        run = self.db.write(runs.claim, "w", AT)
        assert run is not None
        for name in (*BIG, *SMALL):
            path = self.folder(run) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * (1000 if name in BIG else 10))
        if ends == "rejected":
            self.db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.REJECTED, AT)
        elif ends != "going on":
            act = releases.publish if ends == "published" else releases.propose
            self.db.write(self.end, act, run)
        self.runs.append(run)
        return run

    def end(self, session: Session, act: object, run: Run) -> None:
        artefact = {**VALUES, "path": str(self.folder(run) / "candidate.gguf")}
        act(session, run.id, run.attempt, artefact, f"huigan:run{run.id}", AT)  # type: ignore[operator]

    def has_data(self, run: Run, *people: int) -> int:
        """A data set of that run lies here, with something of theirs in it. Its number."""

        def write(session: Session) -> int:
            made = datasets.add(session, run.id, "sft", (1, 0), {}, {}, f"{run.id:064d}", "/moved", [], AT)
            dataset_people.add(session, made.id, [("e", each) for each in people])
            dataset_copies.add(session, made.id, disk.name_of(self.home), "/moved", AT)
            return made.id

        return self.db.write(write)

    def folder(self, run: Run) -> Path:
        return folder_of(self.home, run)

    def has(self, run: Run) -> tuple[bool, bool]:
        """Whether its big and its small files are all there; no half of either."""
        big, small = ({(self.folder(run) / name).is_file() for name in names} for names in (BIG, SMALL))
        assert len(big) == len(small) == 1
        return big.pop(), small.pop()

    def prune(self, *, dry: bool = False, **number: int) -> Plan:
        return stores.prune(self.db, self.home, Limits(number), NOW, dry=dry)  # type: ignore[arg-type]


@pytest.fixture
def machine(db: Database, tmp_path: Path) -> Machine:
    Community(db).live(weights="/w")
    return Machine(db, tmp_path)


def test_old_runs_lose_their_big_files_but_the_live_one_its_predecessor_and_what_awaits(machine: Machine) -> None:
    oldest, before, live = (machine.run() for _ in range(3))
    awaiting, going_on = machine.run(ends="proposed"), machine.run(ends="going on")
    machine.prune(artefact=1)
    assert machine.has(oldest) == (False, True)
    assert [machine.has(each) for each in (before, live, awaiting, going_on)] == [(True, True)] * 4


def test_rejected_nights_push_out_no_release_that_a_rollback_may_go_back_to(machine: Machine) -> None:
    first, *_ = released = [machine.run() for _ in range(3)]
    rejected = [machine.run(ends="rejected") for _ in range(4)]
    machine.prune(artefact=3, candidate=2)
    assert [machine.has(each)[0] for each in released] == [True] * 3
    assert [machine.has(each)[0] for each in rejected] == [False, False, True, True]
    machine.prune(artefact=2, candidate=2)
    assert not machine.has(first)[0]


def test_what_is_tried_on_a_share_stays(machine: Machine) -> None:
    tried, _, _ = (machine.run() for _ in range(3))
    machine.db.write(deployments.deploy, 2, "test", "conversations", AT, share=0.1)
    machine.prune(artefact=1)
    assert machine.has(tried) == (True, True)


def test_whole_folders_go_by_their_own_number(machine: Machine) -> None:
    first, second, *_ = (machine.run() for _ in range(4))
    machine.prune(artefact=1, run=3)
    assert not machine.folder(first).exists()
    assert machine.has(second) == (False, True)


def test_dry_says_the_same_and_deletes_nothing(machine: Machine) -> None:
    first, *_ = (machine.run() for _ in range(3))
    said = machine.prune(dry=True, artefact=1)
    assert machine.has(first) == (True, True)
    assert machine.prune(artefact=1) == said
    assert machine.prune(artefact=1).going == ()
    assert [each.act for each in machine.db.read(audit.newest)].count("disk.prune") == 1


def test_a_pruning_that_was_cut_short_is_gone_on_with(machine: Machine) -> None:
    first, second, *_ = (machine.run() for _ in range(4))
    (machine.folder(first) / "candidate.gguf").unlink()
    machine.folder(second).rename(machine.home / "runs" / f"{stores.GOING}{machine.folder(second).name}")
    machine.prune(artefact=1)
    assert machine.has(first) == (False, True)
    assert not list((machine.home / "runs").glob(f"{stores.GOING}*"))


def test_with_a_folder_goes_what_says_that_its_data_set_lies_here(machine: Machine) -> None:
    first, second = machine.run(ends="rejected"), machine.run(ends="rejected")
    data = [machine.has_data(each) for each in (first, second)]
    machine.prune(run=1)
    assert machine.db.read(dataset_copies.of, data[0]) == []
    assert len(machine.db.read(dataset_copies.of, data[1])) == 1


def test_a_kill_between_files_and_database_is_made_up_for(machine: Machine) -> None:
    run, other = machine.run(ends="rejected"), machine.run(ends="rejected")
    number = machine.has_data(run)
    going = machine.home / "runs" / f"{stores.GOING}{machine.folder(run).name}"
    machine.folder(run).rename(going)
    stranger = going.with_name(f"{stores.GOING}{other.id}-20250101T000000")
    stranger.mkdir()
    kept = machine.has_data(other)
    machine.prune()
    assert not list((machine.home / "runs").glob(f"{stores.GOING}*"))
    assert machine.db.read(dataset_copies.of, number) == []
    assert len(machine.db.read(dataset_copies.of, kept)) == 1, "that folder was another database's"


def test_what_was_taken_back_needs_no_clearing_where_the_folder_is_gone(machine: Machine) -> None:
    run = machine.run(ends="rejected")
    person = Community(machine.db).person()
    number = machine.has_data(run, person.id)
    machine.run(ends="rejected")
    machine.db.write(withdrawal.decline, person.id, AT)
    assert machine.db.read(dataset_people.withdrawn, number)
    machine.prune(run=1)
    assert machine.db.read(dataset_people.withdrawn, number) == {}
    assert machine.db.read(dataset_copies.to_clear) == []


def test_a_folder_where_somebody_works_and_one_of_another_database_are_left_alone(machine: Machine) -> None:
    first, *_ = (machine.run() for _ in range(3))
    stranger = machine.home / "runs/99-20250101T000000"
    stranger.mkdir()
    with (machine.folder(first) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine.prune(artefact=1, run=1)
    assert machine.has(first) == (True, True)
    machine.prune(artefact=1, run=1)
    assert not machine.folder(first).exists()
    assert stranger.is_dir()


def test_halves_that_a_kill_left_go_after_a_day(machine: Machine) -> None:
    run = machine.run()
    old, new = machine.folder(run) / "candidate.gguf.part", machine.folder(run) / "merge.part"
    half_a_folder = machine.home / "weights/x.part"
    half_a_folder.mkdir(parents=True)
    for path in (old, new, half_a_folder / "a"):
        path.write_bytes(b"")
    for path in (old, half_a_folder / "a", half_a_folder):
        os.utime(path, (0, (NOW - timedelta(days=2)).timestamp()))
    machine.prune()
    assert [path.exists() for path in (old, new, half_a_folder)] == [False, True, False]


def test_bases_are_kept_by_their_last_use_and_all_of_them_while_a_run_goes_on(machine: Machine) -> None:
    for age, name in enumerate(("new.f16.gguf", "old.f16.gguf")):
        path = machine.home / "bases" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, (NOW - timedelta(days=age)).timestamp()))
    going_on = machine.run(ends="going on")
    assert machine.prune(base=1).going == ()
    machine.db.write(machine.end, releases.publish, going_on)
    machine.prune(base=1)
    assert [path.name for path in (machine.home / "bases").iterdir()] == ["new.f16.gguf"]


def test_a_database_that_knows_no_run_prunes_none(machine: Machine, sqlite_db: Database) -> None:
    run = machine.run()
    assert stores.prune(sqlite_db, machine.home, Limits({"run": 1, "artefact": 1}), NOW).going == ()
    assert machine.has(run) == (True, True)
