"""What piles up on a trainer's disk: run folders and the big files in them, 16-bit bases, logs, and what a kill left.

Each is looked up as it lies there, so a pruning that is killed anywhere is gone on with at the next. Folders of runs
that this database does not know are left alone: it may be the wrong database. So are downloaded weights and backups.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from huigan import disk
from huigan.operate import keeping, library
from huigan.operate.keeping import Limits, Plan, Thing
from storage import artefacts, audit, dataset_copies, dataset_people, datasets, releases, runs
from storage.db import Database, Session
from storage.records import Run
from trainer import clearing, seals
from trainer.clearing import ACTIVE, FIGURES, LEARNT, Busy, alone_in, remove
from trainer.stages import folder_of, numbers_in

log = logging.getLogger(__name__)

GOING = ".gone-"  # what a folder is renamed to before it is deleted: half a folder is never taken for one
STALE = timedelta(days=1)  # nobody writes to one file for so long
EVERY_RUN = 1_000_000
TRAINING = "training"  # why a run's folder is needed while it goes on


def prune(db: Database, home: Path, limits: Limits, at: datetime, *, dry: bool = False) -> Plan:
    """What goes goes one by one; what is in use or cannot be deleted waits for the next call. `dry`: only say which."""
    planned = keeping.plan(db.read(things, home, at), limits, at)
    if dry:
        return planned
    gone = [each for each in planned.going if _removed(db, home, each.thing, at)]
    if gone:
        freed = sum(each.thing.size_bytes for each in gone)
        db.write(audit.record, None, "disk.prune", at, things=len(gone), bytes=freed)
        log.info("%d things went from the disk, %d bytes", len(gone), freed)
    if planned.over_bytes:
        log.warning("the disk budget is exceeded by %d bytes, and all that is left is needed", planned.over_bytes)
    return planned


def things(session: Session, home: Path, at: datetime) -> list[Thing]:
    found: list[Thing] = []
    wanted, released = needed(session), releases.runs_that_made_one(session)
    for run in runs.many(session, numbers_in(home)):
        folder = folder_of(home, run)
        if folder.is_dir():
            kind: keeping.Kind = "artefact" if run.id in released else "candidate"
            found += _of_run(folder, run, kind, wanted.get(run.id))
    why = TRAINING if TRAINING in wanted.values() else None
    found += [replace(_aged("base", path), needed_for=why) for path in sorted(home.glob("bases/*.gguf"))]
    found += [_aged("log", path) for path in sorted(home.glob("logs/run-*.stderr"))]
    return [*found, *_left(home, at)]


def needed(session: Session) -> dict[int | None, str]:
    """Runs whose files are of use, and what for."""
    released = {artefacts.get(session, each.artefact_id).run_id: why for each, why in library.needed(session)}
    return released | {each.id: TRAINING for each in runs.newest(session, EVERY_RUN, states=ACTIVE)}


def _of_run(folder: Path, run: Run, kind: keeping.Kind, why: str | None) -> Iterator[Thing]:
    heavy = sum(map(size_of, heavy_of(folder)))
    if heavy:
        yield Thing(kind, str(folder), heavy, run.id, run.queued_at, why)
    yield Thing("run", str(folder), size_of(folder) - heavy, run.id, run.queued_at, why)


def heavy_of(folder: Path) -> list[Path]:
    """The served file, checkpoints and adapters: all but figures, the data set, and what a report is made of."""
    trained = [each for stage in folder.glob("train/*") if stage.is_dir() for each in stage.iterdir()]
    named = [folder / name for name in LEARNT]
    return [each for each in (*trained, *named) if each.name not in FIGURES and each.exists()]


def _left(home: Path, at: datetime) -> Iterator[Thing]:
    """Halves of files and folders, of which nobody has written anything for a day; and folders that were to go."""
    for path in sorted(home.glob(f"runs/{GOING}*")):
        yield _aged("left", path)
    for path in sorted({*home.glob("*/*.part"), *home.glob("runs/**/*.part"), *home.glob(".*.part")}):
        if at - datetime.fromtimestamp(_newest(path), UTC) > STALE and path.parent.name != "backups":
            yield _aged("left", path)


def _removed(db: Database, home: Path, thing: Thing, at: datetime) -> bool:
    path = Path(thing.name)
    try:
        if thing.kind in ("run", "artefact", "candidate"):
            return _run_removed(db, home, thing, at)
        if thing.kind == "base" and TRAINING in db.read(needed).values():
            return False
        if path.name.startswith(GOING):
            _remove_for_good(db, home, path, at)
        else:
            remove(path)
            seals.beside(path).unlink(missing_ok=True)
    except Busy:
        return False
    except OSError as error:
        log.error("%s could not be deleted: %s", thing.name, error.strerror)
        return False
    return True


def _run_removed(db: Database, home: Path, thing: Thing, at: datetime) -> bool:
    """Looked at once more: it may have been promoted, or taken up again, since it was planned."""
    run, why = db.read(_now, int(thing.order))
    folder = Path(thing.name)
    if why is not None or not folder.is_dir():
        return False
    with alone_in(folder, run):
        if thing.kind == "run":
            _remove_for_good(db, home, folder.rename(folder.with_name(f"{GOING}{folder.name}")), at)
        else:
            for each in heavy_of(folder):
                remove(each)
    return True


def _remove_for_good(db: Database, home: Path, folder: Path, at: datetime) -> None:
    """One that was renamed to go. It goes last itself, so what a kill cut short is gone on with at the next pruning."""
    for each in folder.iterdir():
        remove(each)
    run_id = folder.name.removeprefix(GOING).partition("-")[0]
    if run_id.isdecimal():
        db.write(note_gone, home, int(run_id), folder.name.removeprefix(GOING), disk.name_of(home), at)
    folder.rmdir()


def note_gone(session: Session, home: Path, run_id: int, name: str, disk_name: str, at: datetime) -> None:
    """What people took back of it meanwhile needs no clearing here; its data sets lie elsewhere, or nowhere."""
    try:
        run = runs.get(session, run_id)
    except LookupError:
        return  # another database's
    if folder_of(home, run).name != name:
        return
    for each in datasets.all_of_run(session, run_id):
        gone = dataset_people.withdrawn(session, each.id)
        for copy in dataset_copies.of(session, each.id):
            if copy.disk in {disk_name, dataset_copies.UNNAMED}:
                if gone:
                    clearing.note(session, copy, gone, max(gone.values()), at)
                dataset_copies.remove(session, copy.id)


def _now(session: Session, run_id: int) -> tuple[Run, str | None]:
    run = runs.get(session, run_id)
    return run, needed(session).get(run_id)


def _aged(kind: keeping.Kind, path: Path) -> Thing:
    """The one that was touched last is the newest."""
    touched = path.stat().st_mtime
    return Thing(kind, str(path), size_of(path), touched, datetime.fromtimestamp(touched, UTC))


def _files(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                yield from _files(Path(each.path))
            elif each.is_file():
                yield each


def _stats(path: Path) -> Iterator[os.stat_result]:
    return (each.stat() for each in _files(path)) if path.is_dir() else iter([path.stat()])


def size_of(path: Path) -> int:
    """Of a file, or of all that lie in a folder."""
    return sum(each.st_size for each in _stats(path))


def _newest(path: Path) -> float:
    return max((each.st_mtime for each in _stats(path)), default=path.stat().st_mtime)
