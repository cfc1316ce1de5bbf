"""A small disk that can be filled up: a tmpfs, where one may be mounted."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.matrix import NotHere
from tests.trainer.world import small_disk

OTHERS = "others"  # files that are none of ours


@dataclass(frozen=True)
class Disk:
    folder: Path

    def fill(self, leave_bytes: int = 0) -> None:
        """Somebody else may write meanwhile, too: what counts is that there is no room."""
        try:
            (self.folder / OTHERS).write_bytes(bytes(max(0, shutil.disk_usage(self.folder).free - leave_bytes)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def clear(self) -> None:
        (self.folder / OTHERS).unlink()


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Disk]:
    folder.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(small_disk(folder, size))
        except pytest.skip.Exception as reason:
            raise NotHere(str(reason)) from None
        yield Disk(folder)
