"""A real engine as a process of its own, with the small real model in it."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

CHATML = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
SMOLLM2_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass
class Engine:
    """A running engine: its address, its folder, and a client for it."""

    process: subprocess.Popen[bytes]
    url: str
    models: Path
    log: Path
    client: httpx.Client

    def post(self, path: str, json: object) -> httpx.Response:
        return self.client.post(path, json=json)

    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def wait_until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def start(models: Path, log: Path, *options: str) -> Engine:
    command = [sys.executable, "-m", "huigan.engine", "--port", "0", "--models", str(models), *options]
    with log.open("ab") as sink:
        begins = log.stat().st_size
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    found: list[str] = []

    def listening() -> bool:
        assert process.poll() is None, log.read_text()
        found[:] = re.findall(r"listening on (http://\S+),", log.read_bytes()[begins:].decode())
        return bool(found)

    wait_until(listening)
    return Engine(process, found[0], models, log, httpx.Client(base_url=found[0], timeout=60, trust_env=False))


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Engine]]:
    """Start engines; a folder given again is the same folder after a restart."""
    started: list[Engine] = []

    def begin(*options: str, models: Path | None = None) -> Engine:
        models = models or tmp_path_factory.mktemp("models")
        started.append(start(models, models.parent / f"{models.name}.log", *options))
        return started[-1]

    yield begin
    for engine in started:
        engine.client.close()
        if engine.process.poll() is None:
            engine.process.terminate()
            engine.process.wait(timeout=20)


def endless(model: str, num_ctx: int = 1024) -> dict[str, Any]:
    """A generate request that this model goes on answering until it is stopped."""
    options = {"temperature": 0, "num_predict": -1, "num_ctx": num_ctx, "stop": []}
    return {"model": model, "raw": True, "prompt": "la " * 40, "options": options}


def upload(engine: Engine, path: Path) -> str:
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with path.open("rb") as file:
        assert engine.client.post(f"/api/blobs/{digest}", content=file).status_code in (200, 201)
    return digest


def create(engine: Engine, model: str, digest: str = SMOLLM2_DIGEST, **more: object) -> None:
    wanted = {"model": model, "files": {"m.gguf": digest}, "stream": False, **more}
    made = engine.post("/api/create", wanted)
    assert made.status_code == 200, made.text
