"""The name of this machine's disk, kept on it: several machines may share a database, none reaches another's files."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

NAME = "disk-id"


def name_of(home: Path) -> str:
    """Given once; two processes that ask for it at the same time hear the same."""
    path = home / NAME
    if not path.is_file():
        home.mkdir(parents=True, exist_ok=True)
        part = home / f".{NAME}-{uuid.uuid4()}.part"
        part.write_text(str(uuid.uuid4()))
        with suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
    return path.read_text().strip()
