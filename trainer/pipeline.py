"""One run, from feedback to a release:

    dataset → train → merge → quantise → score → gate → release

A stage is finished when its `.json`, written last, lies in the run's folder. A run that is killed at any instant and
started again goes on after the last finished stage (training from its last checkpoint) and ends with the same verdict.
This module does not know how any stage does its work, nor who started the run.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from storage.records import RunState
from trainer import estimates, gate, report, seals, stages
from trainer.dataset import Built
from trainer.gate import Verdict
from trainer.release import Released, release, turned_away
from trainer.scorecard import Scorecard
from trainer.stages import Merged, Origin, Reference, Taught, Work, disk_full

log = logging.getLogger(__name__)

T = TypeVar("T")

STAGES = ("dataset", "train", "merge", "quantise", "score", "gate", "release")
LOCK_SECONDS = 0.5


def run(work: Work) -> Released:
    """Raises RunFailed and what the stages raise; whatever `work.tell` raises stops the run where it is."""
    with alone_in(work):
        return through_the_stages(work)


def through_the_stages(work: Work) -> Released:
    if work.run.dataset_only:
        estimates.foretell(work, once(work, "dataset", Built, lambda: stages.build(work)))
        return Released(RunState.BUILT, None, None)
    origin = once(work, "start", Origin, lambda: stages.start(work))
    built = once(work, "dataset", Built, lambda: stages.build(work))
    if (known := turned_away(work)) is not None:
        return known
    taught = once(work, "train", Taught, lambda: stages.train(work, origin, built), lambda taught: taught.adapter)
    merged = once(work, "merge", Merged, lambda: stages.merge(work, origin, built, taught), lambda merged: merged.path)
    reference = once(work, "quantise", Reference, lambda: stages.quantise(work, origin, taught, merged))
    card = once(work, "score", Scorecard, lambda: stages.score(work, built, taught, merged, reference))
    verdict = once(work, "gate", Verdict, lambda: gate.judge(card, work.recipe.gate))
    report.write(work.folder, work.run, work.locale)
    return once(work, "release", Released, lambda: release(work, origin, taught, merged, card, verdict))


@contextmanager
def alone_in(work: Work) -> Iterator[None]:
    """Waits for an earlier attempt that is still about to notice that it is over: two must not write one folder."""
    work.folder.mkdir(parents=True, exist_ok=True)
    with (work.folder / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                work.tell("start", "waiting", 0, 0)
                time.sleep(LOCK_SECONDS)
        yield


def once(
    work: Work, stage: str, kind: type[T], make: Callable[[], T], file: Callable[[T], Path | None] = lambda _: None
) -> T:
    """What the stage gave when it was finished, by this process or an earlier one; again, where another version of the
    program wrote what this one cannot read, or its file (a folder, too) is not what was written."""
    path, seal = work.folder / f"{stage}.json", work.folder / f"{stage}.sha256"
    adapter = TypeAdapter(kind)
    if path.is_file():
        try:
            kept = adapter.validate_json(path.read_bytes())
        except ValidationError:
            log.warning("run %d: %s was written by another version: it is made again", work.run.id, path.name)
        else:
            if seals.holds(seal, file(kept)):
                return kept
            log.warning("run %d: what %s names has rotted: it is made again", work.run.id, path.name)
            forget(work.folder, stage)
    work.tell(stage, "", 0, 0)
    with full_disk_named(work.folder):
        result = make()
        if (made := file(result)) is not None:
            seals.put(seal, made)
        write_whole(path, adapter.dump_json(result, indent=1))
    return result


def forget(folder: Path, stage: str) -> None:
    """With what it was made from in between, and what was made of it."""
    shutil.rmtree(folder / stage, ignore_errors=True)
    for later in STAGES[STAGES.index(stage) :]:
        (folder / f"{later}.json").unlink(missing_ok=True)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(folder) from error


def write_whole(path: Path, content: bytes) -> None:
    """The file is there whole, also after a power cut, or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
