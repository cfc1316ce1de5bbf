"""The engine against llama.cpp's bare server, in the same minute on the same file: what our layer costs.

    python benchmarks/engine.py path/to/file.gguf

Prints tokens a second and the seconds to the first token of each, and the ratio. Rounds alternate, so that a busy
machine is busy for both.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from huigan.engine.server import physical_cores
from huigan.llama.runner import LoadOptions, Runner

PROMPT = "The river begins in the mountains, and "
TOKENS = 64
CONTEXT_TOKENS = 1024


@dataclass(frozen=True)
class Measured:
    first_token_seconds: float
    tokens_per_second: float


def measured(started: float, first: float, ended: float) -> Measured:
    return Measured(first - started, (TOKENS - 1) / (ended - first))


async def bare(runner: Runner) -> Measured:
    started, first = time.perf_counter(), 0.0
    request = {"prompt": PROMPT, "n_predict": TOKENS, "temperature": 0}
    async for _ in runner.complete(request):
        first = first or time.perf_counter()
    return measured(started, first, time.perf_counter())


async def through_engine(client: httpx.AsyncClient) -> Measured:
    started, first = time.perf_counter(), 0.0
    options = {"temperature": 0, "num_predict": TOKENS, "num_ctx": CONTEXT_TOKENS}
    body = {"model": "bench", "prompt": PROMPT, "raw": True, "options": options}
    async with client.stream("POST", "/api/generate", json=body) as response:
        async for _ in response.aiter_lines():
            first = first or time.perf_counter()
    return measured(started, first, time.perf_counter())


@contextmanager
def engine(gguf: Path) -> Iterator[str]:
    """An engine with the file in it as `bench`; gives its address."""
    with tempfile.TemporaryDirectory() as models:
        command = [sys.executable, "-m", "huigan.engine", "--port", "0", "--models", models]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            url = next(found[1] for line in process.stderr if (found := re.search(r"on (http://\S+),", line)))
            content = gguf.read_bytes()
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            httpx.post(f"{url}/api/blobs/{digest}", content=content, timeout=600).raise_for_status()
            wanted = {"model": "bench", "files": {"m.gguf": digest}, "stream": False}
            httpx.post(f"{url}/api/create", json=wanted, timeout=60).raise_for_status()
            yield url
            process.terminate()


async def compare(gguf: Path, url: str, rounds: int) -> list[tuple[Measured, Measured]]:
    """(bare, engine) of each round."""
    load = LoadOptions(gguf, CONTEXT_TOKENS, parallel=2, batch_tokens=512, threads=physical_cores(), shift=True)
    runner = await Runner.start(load)
    async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
        await bare(runner)  # both are loaded and warm before anything counts
        await through_engine(client)
        pairs = [(await bare(runner), await through_engine(client)) for _ in range(rounds)]
    runner.kill()
    await runner.gone()
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with engine(given.gguf) as url:
        rounds = asyncio.run(compare(given.gguf, url, given.rounds))
    for name in ("first_token_seconds", "tokens_per_second"):
        ours, theirs = (statistics.median(getattr(pair[side], name) for pair in rounds) for side in (1, 0))
        print(f"{name:>20}: engine {ours:8.3f}   bare {theirs:8.3f}   ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
