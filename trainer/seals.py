"""Digests of what was written, so that what rotted since, or was half lost in a power cut, is found out before use.

A seal is one JSON file: SHA-256 by path. Knows neither stages nor checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def beside(path: Path) -> Path:
    """Where the seal of a file lies that many runs use."""
    return path.with_name(f"{path.name}.sha256")


def put(seal: Path, sealed: Path | None) -> None:
    """Seal a file, or every file in a folder. Written last, and there as a whole or not at all."""
    told, part = json.dumps(digests(sealed, seal)), seal.with_name(f"{seal.name}.part")
    part.write_text(told)
    part.replace(seal)


def holds(seal: Path, sealed: Path | None) -> bool:
    """Whether all that was sealed is as it was, whatever came beside it since. True where nothing was sealed."""
    if not seal.is_file():
        return True
    try:
        return json.loads(seal.read_bytes()).items() <= digests(sealed, seal).items()  # type: ignore[no-any-return]
    except ValueError:
        return False


def digests(sealed: Path | None, seal: Path) -> dict[str, str]:
    if sealed is None or not sealed.exists():
        return {}
    files = [path for path in sealed.rglob("*") if path.is_file()] if sealed.is_dir() else [sealed]
    return {str(path.relative_to(sealed.parent)): digest(path) for path in sorted(files) if path != seal}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
