"""Takes what somebody took back out of the files on this machine's disk: data sets, and what runs learnt from them.

Of a data set the rows go and those of others stay. Of a run that was trained on it everything goes that could tell
them: checkpoints, adapters, the importance matrix, the samples in scorecard and report; figures and curves stay. The
file that is served stays until its release is withdrawn, one that led to no release goes. A clearing that is killed is
done over, and only what was cleared to its end is said to be.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from huigan import disk
from storage import audit, dataset_copies, dataset_people, datasets, holdings, releases, runs
from storage.db import Database, Session
from storage.records import DatasetCopy, Run, RunState
from trainer import report
from trainer.feedback import SPLITS, TASKS
from trainer.stages import folder_of, numbers_in

log = logging.getLogger(__name__)

FIGURES = frozenset({"curves.jsonl", "trained.json", "started.json", "tensorboard"})  # of a stage of training
LEARNT = ("candidate.gguf", "importance.gguf", "reference.gguf")
ACTIVE = frozenset({RunState.QUEUED, RunState.RUNNING})


class Busy(Exception):
    """Somebody works in that folder: it is cleared at a later look."""


def upkeep(db: Database, home: Path, at: datetime) -> None:
    """All of it, as often as wanted."""
    clear(db, home, at)
    withdraw_files(db, home)


def clear(db: Database, home: Path, at: datetime) -> int:
    """Everything on this disk that is to be cleared now. Gives how many data sets were. A run that still goes on has
    been asked to end, and waits for a later look."""
    cleared = 0
    for copy in db.read(dataset_copies.to_clear, [disk.name_of(home), dataset_copies.UNNAMED]):
        try:
            cleared += clear_copy(db, home, copy, at)
        except Busy:
            log.info("data set %d: its run still goes on, and it is cleared after that", copy.dataset_id)
        except OSError as error:  # the others' words are not to wait for it
            log.error("data set %d could not be cleared and will be tried again: %s", copy.dataset_id, error)
    return cleared


def clear_copy(db: Database, home: Path, copy: DatasetCopy, at: datetime) -> bool:
    """False where it lies on another disk. Raises Busy and OSError."""
    gone = db.read(dataset_people.withdrawn, copy.dataset_id)
    run = db.read(run_of, copy.dataset_id)
    folder = Path(copy.path) if run is None else folder_of(home, run) / "dataset"
    if not folder.is_dir() and copy.disk == dataset_copies.UNNAMED:
        return False
    if not gone:
        return False
    if folder.is_dir():
        with alone_in(folder if run is None else folder.parent, run):
            strip(folder, gone.keys(), at)
            if run is not None:
                unlearn(folder.parent, run, is_released=run.id in db.read(releases.runs_that_made_one))
    db.write(note, copy, gone, max(gone.values()), at)
    return True


def run_of(session: Session, dataset_id: int) -> Run | None:
    number = datasets.get(session, dataset_id).run_id
    return None if number is None else runs.get(session, number)


def note(session: Session, copy: DatasetCopy, gone: dict[str, datetime], up_to: datetime, at: datetime) -> None:
    """It is cleared; where every copy is, nothing leads from the data set to what was taken back any more."""
    dataset_copies.mark_cleared(session, copy.id, up_to)
    others = [each for each in dataset_copies.of(session, copy.dataset_id) if each.id != copy.id]
    if all(each.cleared_at is not None and each.cleared_at >= up_to for each in others):
        examples = [example for example, when in gone.items() if when <= up_to]
        dataset_people.forget(session, copy.dataset_id, examples)
        datasets.forget(session, copy.dataset_id, examples)
    audit.record(session, None, "data.clear", at, dataset=copy.dataset_id, rows=len(gone))


@contextmanager
def alone_in(folder: Path, run: Run | None) -> Iterator[None]:
    """Raises Busy. A run's folder has a lock in it; a data set's without a run is locked itself, as whoever writes it
    does (trainer.dataset)."""
    if run is not None and run.state in ACTIVE:
        raise Busy
    lock = os.open(folder, os.O_RDONLY) if run is None else os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy from error
        yield
    finally:
        os.close(lock)


def strip(folder: Path, gone: Collection[str], at: datetime) -> None:
    """A data set without those rows. Its manifest and card keep their figures, and say that rows went since."""
    rows = sum(strip_table(folder / task / f"{split}.parquet", gone) for task, split in product(TASKS, SPLITS))
    if rows == 0:
        return
    manifest = loaded(folder / "manifest.json")
    taken = manifest.get("taken_back", {}).get("rows", 0) + rows
    replace(folder / "manifest.json", written({**manifest, "taken_back": {"rows": taken, "at": at.isoformat()}}))
    card = folder / "README.md"
    if card.is_file():
        said = card.read_text(encoding="utf-8").partition(TAKEN_BACK)[0]
        replace(card, f"{said}{TAKEN_BACK} {taken}. The figures above are of the data set as it was made.\n")


TAKEN_BACK = "\nRows that people have taken back since, and that are not in the files any more:"


def strip_table(path: Path, gone: Collection[str]) -> int:
    """How many rows went; the file stays whole at any instant."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # of an earlier one that was killed, or of the data set's own writing
    if not path.is_file():
        return 0
    import pyarrow as pa
    from pyarrow import compute, parquet

    table = parquet.ParquetFile(path).read()
    kept = table.filter(compute.invert(compute.is_in(table["example"], value_set=pa.array(sorted(gone), pa.string()))))
    rows: int = table.num_rows - kept.num_rows
    if rows:
        parquet.write_table(kept, part)
        part.replace(path)
    return rows


def unlearn(folder: Path, run: Run, *, is_released: bool) -> None:
    """What a run left that could tell what it was taught, but the file of a release, which may be served."""
    for stage in folder.glob("train/*"):
        for each in stage.iterdir() if stage.is_dir() else ():
            if each.name not in FIGURES:
                remove(each)
    for name in LEARNT[1:] if is_released else LEARNT:
        remove(folder / name)
    card = loaded(folder / "score.json")
    if card.get("samples"):
        replace(folder / "score.json", written({**card, "samples": []}))
    page = folder / report.NAME
    if page.is_file():
        page.unlink()
        report.write(folder, run)


def withdraw_files(db: Database, home: Path) -> int:
    """The served files of releases that were withdrawn for it. How many went."""
    files = [folder_of(home, each) / LEARNT[0] for each in db.read(holdings.withdrawn_runs, numbers_in(home))]
    here = [file for file in files if file.is_file()]
    for file in here:
        file.unlink()
    return len(here)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def loaded(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes())) if path.is_file() else {}


def written(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)


def replace(path: Path, content: str) -> None:
    """Whole at any instant."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
