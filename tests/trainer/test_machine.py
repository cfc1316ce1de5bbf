"""The facts that a preflight needs, from this machine and from what a driver's tool prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import machine


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = machine.here(tmp_path)
    assert found.ram_bytes > 2**28
    assert found.disk_bytes > 0
    assert found.cores >= 1
    assert (found.gpu is None) == (found.vram_bytes is None)


@pytest.mark.parametrize(
    ("told", "gpu"),
    [
        ("NVIDIA GeForce RTX 4090, 23028\n", ("NVIDIA GeForce RTX 4090", 23028 * 2**20)),
        ("NVIDIA H100, 80GB HBM3, 81000\nNVIDIA A10, 5\n", ("NVIDIA H100, 80GB HBM3", 81000 * 2**20)),
        ("No devices were found\n", None),
        ("NVIDIA Graphics, [N/A]\n", None),
        ("", None),
    ],
)
def test_the_first_card_is_read_from_the_drivers_table(told: str, gpu: tuple[str, int] | None) -> None:
    assert machine.parsed(told) == gpu
