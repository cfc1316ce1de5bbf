"""One file in one child: it completes, stops when asked, and dies alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from huigan.llama.runner import LoadOptions, RequestRefused, Runner, RunnerFailed

pytestmark = pytest.mark.weights

ENDLESS = {"prompt": "la " * 40, "temperature": 0, "n_predict": 5000}


def options(gguf: Path) -> LoadOptions:
    return LoadOptions(gguf, context_tokens=1024, parallel=2, batch_tokens=512, threads=2, shift=True)


@pytest.fixture
async def runner(smollm2_gguf: Path) -> AsyncIterator[Runner]:
    runner = await Runner.start(options(smollm2_gguf))
    yield runner
    runner.kill()
    await runner.gone()


async def test_closing_a_completion_frees_its_slot(runner: Runner) -> None:
    async with aclosing(runner.complete(ENDLESS)) as events:
        await anext(events)
        assert await runner.busy_slots() == 1
    for _ in range(200):
        if not await runner.busy_slots():
            break
        await asyncio.sleep(0.02)
    assert await runner.busy_slots() == 0


async def test_each_slot_has_the_whole_context(runner: Runner) -> None:
    with pytest.raises(RequestRefused) as refused:
        async for _ in runner.complete({"prompt": "la " * 3000, "n_predict": 1}):
            pass
    assert refused.value.status == 400
    assert '"n_ctx":1024' in refused.value.body


async def test_tokens_become_text_again(runner: Runner) -> None:
    text = "<|im_start|>user\n你好 😀 naïve<|im_end|>"
    assert await runner.detokenize(await runner.tokenize(text, special=True)) == text


async def test_a_child_that_dies_breaks_its_completion(runner: Runner) -> None:
    with pytest.raises(RunnerFailed):
        async for _ in runner.complete(ENDLESS):
            os.kill(runner.pid, signal.SIGKILL)
    assert await runner.gone() == -signal.SIGKILL


async def test_a_file_that_cannot_be_loaded_fails_with_llama_cpps_reason(smollm2_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2_gguf.read_bytes()[:5_000_000])
    with pytest.raises(RunnerFailed, match="error loading model"):
        await Runner.start(options(cut))
