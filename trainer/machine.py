"""What machine this is, as far as it decides whether a run fits. Reads the system and knows nothing of runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainer.preflight import Machine

MEMORY = Path("/proc/meminfo")


def here(folder: Path) -> Machine:
    """Free memory, the disk that holds `folder`, and the first CUDA device as its driver tells of it."""
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


@dataclass(frozen=True)
class Card:
    """A graphics card, as far as its driver tells."""

    name: str
    total_bytes: int
    free_bytes: int


def first_gpu() -> tuple[str, int] | None:
    """(name, free bytes); None without an NVIDIA driver."""
    found = card()
    return (found.name, found.free_bytes) if found else None


def card() -> Card | None:
    """The first one that CUDA may see, measured now by the driver's own library: whoever holds memory on it counts.
    None where there is none, or nothing to measure it with."""
    try:
        import pynvml
    except ImportError:
        return None
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if wanted.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(wanted))
        else:  # `GPU-…` or `MIG-…`; what is neither, or empty, shows CUDA no card
            handle = pynvml.nvmlDeviceGetHandleByUUID(wanted)
        name, memory = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Card(name, int(memory.total), int(memory.free))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
