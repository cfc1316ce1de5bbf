"""The facts that a preflight needs, from this machine and from a driver's library: a fake one is built for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import machine

REPOSITORY = Path(__file__).parents[2]
FAKE = REPOSITORY / "tests" / "fakes" / "nvml.c"
ASK = (
    "from dataclasses import astuple; from trainer.machine import card; found = card(); print(found and astuple(found))"
)
HAS = {"FAKE_NVML_TOTAL": str(24 * 2**30), "FAKE_NVML_FREE": str(5 * 2**30)}
THE_CARD = str(("NVIDIA Fake 24GB", 24 * 2**30, 5 * 2**30))


def test_this_machine_is_described(tmp_path: Path) -> None:
    found = machine.here(tmp_path)
    assert found.ram_bytes > 2**28
    assert found.disk_bytes > 0
    assert found.cores >= 1
    assert (found.gpu is None) == (found.vram_bytes is None)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a driver's library."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to build a driver's library with")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(FAKE)], check=True)
    return folder


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, THE_CARD),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, THE_CARD),
        ({"CUDA_VISIBLE_DEVICES": "GPU-fake"}, THE_CARD),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "None"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "None"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "None"),
        ({"FAKE_NVML_BROKEN": "1"}, "None"),
    ],
)
def test_the_first_card_that_cuda_sees_is_measured(driver: Path, environment: dict[str, str], told: str) -> None:
    library = {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(REPOSITORY)}
    given = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | HAS | library
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=given | environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == told


def test_without_a_driver_there_is_no_card(tmp_path: Path) -> None:
    given = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}
    if machine.card() is not None:
        pytest.skip("this machine has a driver")
    asked = subprocess.run([sys.executable, "-c", ASK], env=given, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "None"
