"""Backups: one archive that holds the database and what it takes to go on with it, made, proved, kept and put back.

An archive has its name only once it is whole and was proved by loading it; what a killed process left is cleared by
the next. It holds no secret of the environment, and no weights: those come back from the hub, and the live release's
file, if Ollama has lost it, from a run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from storage import copies, deployments, settings
from storage.copies import Copied, CopyFailed
from storage.db import Database, Session
from storage.migrations import is_current, knows

FORMAT = 1
MANIFEST, ENVIRONMENT, LIVE = "manifest.json", "environment.json", "live.json"
STAMP = "%Y%m%dT%H%M%SZ"
NAMES = "huigan-*.tar.gz"
MADE_KEY = "backup_made"
WORK = ".making"


@dataclass(frozen=True)
class Backup:
    """An archive and what its manifest says."""

    file: Path
    made_at: datetime
    huigan: str
    copied: Copied
    is_proved: bool  # by loading it into a fresh database; else it was only read through
    sha256: Mapping[str, str]  # by the names of what is in it

    @property
    def size_bytes(self) -> int:
        return self.file.stat().st_size


@dataclass(frozen=True)
class Restored:
    backup: Backup
    beside: Path  # where recipes and the like have been put
    kept: Path | None  # the SQLite file that was there before


@dataclass(frozen=True)
class Last:
    """What is known of the nightly ones."""

    made_at: datetime | None
    failed_at: datetime | None  # None once a later one was made
    error: Mapping[str, Any] | None


def make(
    db: Database,
    folder: Path,
    *,
    keep: int,
    recipes: Sequence[Path],
    environment: Mapping[str, Any],
    version: str,
    at: datetime,
) -> Backup:
    """Write a new archive into `folder` and leave the `keep` newest there (0: all). Raises CopyFailed."""
    with _told_apart(folder), _alone(folder) as work:
        file = folder / f"huigan-{at.astimezone(UTC).strftime(STAMP)}.tar.gz"
        database = work / "database"
        copied = copies.take(db, database)
        if copied.revision is None:
            raise CopyFailed("no_tables")
        contents = {copies.FILE_NAMES[copied.dialect]: database}
        contents |= {f"recipes/{each.name}": each for each in recipes if each.is_file()}
        for name, told in ((ENVIRONMENT, environment), (LIVE, db.read(_live) if is_current(db) else None)):
            contents[name] = work / name
            contents[name].write_text(json.dumps(told, ensure_ascii=False, indent=1, default=str), encoding="utf-8")
        is_proved = copies.prove(db, database, copied, work / "proof")
        sums = {name: _sha256(path) for name, path in contents.items()}
        said = {"format": FORMAT, "huigan": version, "made_at": at.isoformat(), "is_proved": is_proved}
        manifest = work / MANIFEST
        manifest.write_text(json.dumps({**said, **asdict(copied), "sha256": sums}, indent=1), encoding="utf-8")
        _pack(work / file.name, {MANIFEST: manifest, **contents})
        _unpacked(work / file.name, work / "unpacked")  # what was written can be read
        (work / file.name).replace(file)
        _prune(folder, keep, file)
        db.write(_note, {"made_at": at.isoformat(), "file": str(file)}, at)
        return read(file)


def listed(folder: Path) -> list[Backup]:
    """Newest first; what is none is left out."""
    found = []
    for file in sorted(folder.glob(NAMES), reverse=True):
        with contextlib.suppress(CopyFailed):
            found.append(read(file))
    return found


def read(file: Path) -> Backup:
    """What it says of itself. Raises CopyFailed."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            first = archive.next()
            opened = archive.extractfile(first) if first is not None and first.name == MANIFEST else None
            told = json.loads(opened.read()) if opened is not None else {}
        if told.get("format") != FORMAT:
            raise CopyFailed("no_backup", file=str(file))
        copied = Copied(told["dialect"], told["revision"], told["counts"])
        made_at = datetime.fromisoformat(told["made_at"])
        return Backup(file, made_at, told["huigan"], copied, told["is_proved"], told["sha256"])
    except FileNotFoundError as error:
        raise CopyFailed("no_such_file", file=str(file)) from error
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CopyFailed("no_backup", file=str(file)) from error


def restore(url: str, file: Path, home: Path, *, force: bool, at: datetime) -> Restored:
    """Put its database in the place of the one at `url`, migrated to today, and the rest under `home`. Raises
    CopyFailed; `not_empty` where something would be lost and it is not forced."""
    backup = read(file)
    if not knows(backup.copied.revision):
        raise CopyFailed("newer", huigan=backup.huigan)
    if not (force or copies.is_empty(url)):
        raise CopyFailed("not_empty")
    beside = home / "restored" / file.name.removesuffix(".tar.gz")
    with _told_apart(home), _alone(home / "restored") as work:
        _unpacked(file, work / "unpacked")
        database = work / "unpacked" / copies.FILE_NAMES[backup.copied.dialect]
        kept = copies.load(url, database, backup.copied, at)
        database.unlink()
        shutil.rmtree(beside, ignore_errors=True)
        (work / "unpacked").rename(beside)
    return Restored(backup, beside, kept)


def last(session: Session) -> Last:
    kept = settings.get(session, MADE_KEY)
    told = kept.value if kept else {}
    made_at, failed_at = (
        datetime.fromisoformat(told[name]) if told.get(name) else None for name in ("made_at", "failed_at")
    )
    return Last(made_at, failed_at, told.get("error"))


def note_failure(session: Session, error: CopyFailed, at: datetime) -> None:
    kept = settings.get(session, MADE_KEY)
    told = {**(kept.value if kept else {}), "failed_at": at.isoformat(), "error": {"code": error.code, **error.params}}
    _note(session, told, at)


def _note(session: Session, told: Mapping[str, Any], at: datetime) -> None:
    settings.put(session, MADE_KEY, dict(told), None, at)


def _live(session: Session) -> dict[str, Any] | None:
    live = deployments.live(session)
    return asdict(live) if live else None


def _pack(file: Path, contents: Mapping[str, Path]) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # people's words are in it
    with os.fdopen(descriptor, "wb") as opened:
        with tarfile.open(fileobj=opened, mode="w:gz", compresslevel=6) as archive:
            for name, path in contents.items():
                archive.add(path, name, recursive=False)
        opened.flush()
        os.fsync(opened.fileno())


def _copied(archive: tarfile.TarFile, packed: tarfile.TarInfo, to: Path) -> None:
    """What is in it alone, whoever it says that it belongs to. (`extractall` knows its filters since 3.11.4.)"""
    to.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(packed)
    assert content is not None  # of a regular file
    with content, to.open("wb") as out:
        shutil.copyfileobj(content, out)


def _unpacked(file: Path, folder: Path) -> None:
    """Each thing in it as it was packed, and nothing else. Raises CopyFailed."""
    backup = read(file)
    names = {MANIFEST, *backup.sha256}
    try:
        with tarfile.open(file, "r:gz") as archive:
            members = [each for each in archive if each.name in names and each.isfile()]
            if any(PurePosixPath(each.name).is_absolute() or ".." in each.name for each in members):
                raise CopyFailed("no_backup", file=str(file))
            for each in members:
                _copied(archive, each, folder / each.name)
    except (tarfile.TarError, EOFError) as error:
        raise CopyFailed("damaged", detail=type(error).__name__) from error
    for name, sha256 in backup.sha256.items():
        if not (folder / name).is_file() or _sha256(folder / name) != sha256:
            raise CopyFailed("damaged", detail=name)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _prune(folder: Path, keep: int, made: Path) -> None:
    """What was just made is the newest, whatever a clock that was ahead has called the others."""
    if keep:
        for old in sorted(folder.glob(NAMES), key=lambda each: (each <= made, each), reverse=True)[keep:]:
            old.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A place to work in, empty at first and gone afterwards; one process at a time has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{WORK}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CopyFailed("under_way") from error
        work = folder / WORK
        shutil.rmtree(work, ignore_errors=True)  # a killed one's
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _told_apart(folder: Path) -> Iterator[None]:
    try:
        yield
    except CopyFailed as error:
        if "disk is full" in str(error.params.get("detail", "")):
            raise CopyFailed("disk_full", folder=str(folder)) from error
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise CopyFailed("disk_full", folder=str(folder)) from error
        raise CopyFailed("copy_failed", detail=f"{error.strerror}: {error.filename}") from error
