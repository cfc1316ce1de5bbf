"""What machine this is, as far as it decides whether a run fits. Reads the system and knows nothing of runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from trainer.preflight import Machine

MEMORY = Path("/proc/meminfo")
MIB = 2**20


def here(folder: Path) -> Machine:
    """Free memory, the disk that holds `folder`, and the first CUDA device as its own tool tells of it."""
    gpu, vram_bytes = first_gpu() or (None, None)
    return Machine(
        available_memory_bytes(), shutil.disk_usage(folder).free, os.cpu_count() or 1, vram_bytes=vram_bytes, gpu=gpu
    )


def available_memory_bytes() -> int:
    """What may be used without swapping; where the kernel does not say, all that is built in."""
    if MEMORY.is_file():
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def first_gpu() -> tuple[str, int] | None:
    """(name, free bytes); None without an NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return parsed(told.stdout) if told.returncode == 0 else None


def parsed(told: str) -> tuple[str, int] | None:
    """The first line of nvidia-smi's table: `NVIDIA GeForce RTX 4090, 23028`."""
    name, _, free_mib = told.strip().partition("\n")[0].rpartition(", ")
    return (name, int(free_mib) * MIB) if name and free_mib.isdigit() else None
