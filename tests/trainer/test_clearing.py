"""What somebody takes back leaves every file of this disk that holds it, and nothing of anybody else's does."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, select

from huigan import disk
from huigan.turns import withdrawal
from huigan.turns.erasure import Forgotten, forget
from storage import (
    artefacts,
    audit,
    dataset_copies,
    dataset_people,
    datasets,
    holdings,
    outbox,
    runs,
    tables,
    users,
)
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Run, RunState, Thumb, User
from tests.trainer.community import AT, Community
from trainer import clearing, dataset
from trainer.feedback import SPLITS, TASKS
from trainer.stages import folder_of

RECIPE = Recipe.from_dict({"name": "r", "data": {"held_out_share": 0.3, "rater_cap_share": 1}})
ANNS, BOBS = "苹果", "香蕉"
LATER = AT + timedelta(hours=1)


@dataclass
class Trained:
    """Ann and Bob taught a run that has come to its end on this disk."""

    db: Database
    home: Path
    ann: User
    bob: User
    run: Run

    @property
    def folder(self) -> Path:
        return folder_of(self.home, self.run)

    def everything(self) -> str:
        """All that a search through the disk would find of texts, the Parquet files decoded."""
        found = [str(dataset.rows_of(self.folder / "dataset", task, split)) for task in TASKS for split in SPLITS]
        others = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        found += [path.read_text(errors="replace") for path in others]
        return "\n".join(found)

    def clear(self) -> int:
        return clearing.clear(self.db, self.home, LATER)


@pytest.fixture
def trained(db: Database, tmp_path: Path) -> Trained:
    community = Community(db)
    community.live(weights="/w")
    ann, bob, rater = community.person(), community.person(), community.person()
    for number in range(6):
        for person, word in ((ann, ANNS), (bob, BOBS)):
            answer, _ = community.ask(
                person, f"{word}问题 {number}？", f"{word}不知道 {number}", f"{word}也许 {number}"
            )
            community.rate(rater, answer, Thumb.DOWN, f"{word}答案是 {number}")
    db.write(runs.enqueue, "default", RECIPE.to_dict(), "test", AT)
    run = db.write(runs.claim, "w", AT)
    assert run is not None
    here = Trained(db, tmp_path / "home", ann, bob, run)
    built = dataset.build(db, RECIPE, here.folder / "dataset", AT, disk=disk.name_of(here.home), run_id=run.id)
    assert built.counts["kept"]["train"]["answers"]
    leave_what_a_run_leaves(here.folder)
    values = {"path": str(here.folder / "candidate.gguf"), "quantisation": "F16", "template": "t", "system": "s"}
    card = {"samples": [{"question": ANNS}], "effect": True}
    db.write(artefacts.add, run_id=run.id, parameters={}, scorecard=card, created_at=AT, **values)
    ended = db.write(runs.move, run.id, run.attempt, RunState.RUNNING, RunState.REJECTED, AT)
    assert ended is not None
    here.run = ended
    return here


def leave_what_a_run_leaves(folder: Path) -> None:
    stage = folder / "train/sft"
    for path in (stage / "adapter/a.safetensors", stage / "checkpoints/checkpoint-1/b.pt", stage / "curves.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for name in ("candidate.gguf", "importance.gguf"):
        (folder / name).write_text("")
    sample = {"kind": "taught", "question": ANNS, "live": "", "candidate": ANNS, "wanted": None, "about": ""}
    (folder / "score.json").write_text(json.dumps({"effect": True, "samples": [sample]}, ensure_ascii=False))
    (folder / "report.html").write_text(f"<p>{ANNS}</p>")
    (folder / "train.json").write_text(json.dumps({"curves": [], "stages": []}))


def test_who_forgets_is_in_no_file_any_more_and_the_others_stay(trained: Trained) -> None:
    assert ANNS in trained.everything()
    others = trained.everything().count(BOBS)
    assert isinstance(trained.db.write(forget, trained.ann.id, LATER), Forgotten)
    assert trained.clear() == 1
    assert ANNS not in trained.everything()
    assert trained.everything().count(BOBS) == others
    assert not list(trained.folder.glob("train/*/adapter"))
    assert not list(trained.folder.glob("train/*/checkpoints"))
    assert not (trained.folder / "importance.gguf").exists()
    assert not (trained.folder / "candidate.gguf").exists(), "the run led to no release"
    assert (trained.folder / "train/sft/curves.jsonl").is_file()
    assert (trained.folder / "report.html").is_file()


def test_the_run_is_marked_for_good_its_samples_go_and_admins_hear_of_it_once_a_day(trained: Trained) -> None:
    assert trained.db.read(holdings.of_run, trained.run.id) is None
    trained.db.write(withdrawal.decline, trained.ann.id, LATER)
    trained.db.write(withdrawal.decline, trained.bob.id, LATER)
    held = trained.db.read(holdings.of_run, trained.run.id)
    assert held is not None
    made = trained.db.read(artefacts.of_run, trained.run.id)
    assert made is not None
    assert made.scorecard == {"samples": [], "effect": True}
    assert [each.code for each in trained.db.read(outbox.unsent)] == ["data_withdrawn"]
    trained.clear()
    assert trained.db.read(holdings.of_run, trained.run.id) == held
    assert trained.db.read(audit.newest)[0].act == "data.clear"


def test_whoever_agrees_no_more_is_cleared_as_one_who_forgets(trained: Trained) -> None:
    declined = trained.db.write(withdrawal.decline, trained.ann.id, LATER)
    assert declined.consented_at is None
    trained.clear()
    assert ANNS not in trained.everything()
    assert BOBS in trained.everything()


def test_afterwards_no_row_leads_from_the_data_set_to_them(trained: Trained) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    with trained.db.engine.connect() as connection:
        rows = connection.execute(select(tables.dataset_person.c.user_id, tables.dataset_person.c.withdrawn_at)).all()
    assert trained.ann.id not in {user_id for user_id, _ in rows}
    [data] = trained.db.read(datasets.newest)
    gone = trained.db.read(dataset_people.withdrawn, data.id)
    assert gone
    trained.clear()
    assert trained.db.read(dataset_people.withdrawn, data.id) == {}
    assert {each.example for each in trained.db.read(datasets.lineage, data.id)}.isdisjoint(gone)
    assert trained.db.read(datasets.lineage, data.id)
    assert trained.clear() == 0


def test_a_clearing_that_was_cut_short_is_done_over(trained: Trained) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    [data] = trained.db.read(datasets.newest)
    table = trained.folder / "dataset/answers/train.parquet"
    assert clearing.strip_table(table, trained.db.read(dataset_people.withdrawn, data.id).keys())
    table.with_name("train.parquet.part").write_bytes(b"half")
    assert trained.clear() == 1
    assert ANNS not in trained.everything()
    assert not list(trained.folder.rglob("*.part"))


def test_a_disk_that_refuses_is_tried_again_and_nothing_is_said_to_be_done(trained: Trained) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    page = trained.folder / "report.html"
    page.unlink()
    page.mkdir()  # what the clearing is to make of it cannot be written
    score = trained.folder / "score.json.part"
    score.mkdir()
    assert trained.clear() == 0
    score.rmdir()
    page.rmdir()
    assert trained.clear() == 1
    assert ANNS not in trained.everything()


def test_a_folder_where_somebody_works_waits(trained: Trained) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    with (trained.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert trained.clear() == 0
    assert ANNS in trained.everything()
    assert trained.clear() == 1


def test_another_disk_clears_its_own(trained: Trained, tmp_path: Path) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    assert clearing.clear(trained.db, tmp_path / "elsewhere", LATER) == 0
    assert [each.disk for each in trained.db.read(dataset_copies.to_clear)] == [disk.name_of(trained.home)]
    assert trained.clear() == 1
    assert trained.db.read(dataset_copies.to_clear) == []


def test_what_is_taken_back_later_is_cleared_too(trained: Trained) -> None:
    trained.db.write(forget, trained.ann.id, LATER)
    trained.clear()
    trained.db.write(forget, trained.bob.id, LATER + timedelta(minutes=1))
    assert trained.clear() == 1
    assert BOBS not in trained.everything()
    manifest = json.loads((trained.folder / "dataset/manifest.json").read_bytes())
    [data] = trained.db.read(datasets.newest)
    kept = sum(sum(of.values()) for of in data.counts["kept"].values())
    assert manifest["taken_back"]["rows"] == kept


def test_a_run_that_still_goes_on_is_asked_to_end_and_what_went_on_from_one_is_marked_with_it(
    trained: Trained,
) -> None:
    db = trained.db
    db.write(runs.enqueue, "default", RECIPE.to_dict(), "test", AT)
    going = db.write(runs.claim, "w", AT)
    assert going is not None
    db.write(runs.go_on_from, going.id, going.attempt, trained.run.id)
    db.write(withdrawal.decline, trained.ann.id, LATER)
    assert db.read(holdings.of_run, going.id) is not None
    assert db.read(runs.get, going.id).cancel_asked_at is not None


@pytest.mark.parametrize("take_back", [forget, withdrawal.decline])
def test_what_is_taken_back_while_a_data_set_is_gathered_is_not_in_it_and_its_run_goes_on(
    trained: Trained, take_back: Callable[[Session, int, datetime], object]
) -> None:
    """Between reading the feedback and registering the data set, a minute may pass."""
    db = trained.db
    going = another(trained)
    # A read ends with it: here the one that gathers.
    event.listen(db.engine, "rollback", lambda _: db.write(take_back, trained.ann.id, LATER), once=True)
    folder = folder_of(trained.home, going) / "dataset"
    built = dataset.build(db, RECIPE, folder, LATER, disk=disk.name_of(trained.home), run_id=going.id)
    assert db.read(users.get, trained.ann.id).consented_at is None
    assert ANNS not in words_in(folder)
    assert BOBS in words_in(folder)
    assert [each.id for each in db.read(datasets.all_of_run, going.id)] == [built.dataset_id]
    assert db.read(runs.get, going.id).cancel_asked_at is None
    assert db.read(holdings.of_run, going.id) is None


def test_what_a_kill_left_of_a_data_set_that_was_being_written_is_cleared(trained: Trained) -> None:
    db, going = trained.db, another(trained)
    folder = folder_of(trained.home, going) / "dataset"
    (folder / "README.md").mkdir(parents=True)  # which is written last
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(IsADirectoryError):
        dataset.build(db, RECIPE, folder, LATER, disk=disk.name_of(trained.home), run_id=going.id)
    half = folder / "thumbs/train.parquet.part"
    half.parent.mkdir(exist_ok=True)
    half.write_text(ANNS)
    assert ANNS in words_in(folder)
    db.write(forget, trained.ann.id, LATER)
    db.write(runs.move, going.id, going.attempt, RunState.RUNNING, RunState.CANCELLED, LATER)
    trained.clear()
    assert ANNS not in words_in(folder)
    assert BOBS in words_in(folder)
    assert not half.exists()


def test_a_data_set_without_a_run_is_cleared_once_it_is_written(trained: Trained, tmp_path: Path) -> None:
    db, folder = trained.db, tmp_path / "by hand"
    built = dataset.build(db, RECIPE, folder, LATER, disk=disk.name_of(trained.home))
    db.write(forget, trained.ann.id, LATER)
    with dataset.locked(folder):  # somebody writes it anew
        trained.clear()
        assert ANNS in words_in(folder)
        left = db.read(dataset_copies.to_clear)
    assert [each.dataset_id for each in left] == [built.dataset_id]
    trained.clear()
    assert ANNS not in words_in(folder)
    assert BOBS in words_in(folder)


def another(trained: Trained) -> Run:
    trained.db.write(runs.enqueue, "default", RECIPE.to_dict(), "test", AT)
    claimed = trained.db.write(runs.claim, "w", AT)
    assert claimed is not None
    return claimed


def words_in(folder: Path) -> str:
    return str([dataset.rows_of(folder, task, split) for task in TASKS for split in SPLITS])


def test_two_processes_hear_one_name_of_a_disk(tmp_path: Path) -> None:
    assert disk.name_of(tmp_path / "a") == disk.name_of(tmp_path / "a")
    assert disk.name_of(tmp_path / "a") != disk.name_of(tmp_path / "b")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [disk.NAME]
