"""What is trained on and what is served are the same tokens: one begin, the template's turns, one end where it stops.

The trainer renders by the tokenizer's jinja template and Hugging Face's tokenizer, the server by llama.cpp's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType
from transformers import AutoTokenizer

from huigan.llama import gguf
from huigan.llama.gguf import KeyValue
from huigan.llama.runner import LoadOptions, Runner
from huigan.llama.score import Scorer
from trainer.tokens import end_of_turn_id, render_ids, render_text

BEGIN = "<|endoftext|>"
TALK = (
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "回甘茶馆几点开门？"},
    {"role": "assistant", "content": "七点半。"},
    {"role": "user", "content": "What is  12,345.6 🍵\n\n  don't?"},
)


@pytest.fixture(scope="module")
def beginning(tiny: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file that says that every prompt begins with BOS, as Llama-3's do, and a tokenizer whose template writes it."""
    source = gguf.read(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = f"{{{{ '{BEGIN}' }}}}{tokenizer.chat_template}"
    begin = tokenizer.convert_tokens_to_ids(BEGIN)
    changes = (
        KeyValue.of("tokenizer.ggml.add_bos_token", True, GGUFValueType.BOOL),
        KeyValue.of("tokenizer.ggml.bos_token_id", begin, GGUFValueType.UINT32),
        KeyValue.of("tokenizer.chat_template", tokenizer.chat_template, GGUFValueType.STRING),
    )
    out = tmp_path_factory.mktemp("begin") / "begin.gguf"
    key_values = {**source.key_values, **{each.key: each for each in changes}}
    tensors = [replace(tensor) for tensor in source.tensors.values()]
    gguf.write(out, key_values.values(), tensors, lambda tensor: [source.stored(tensor.name)])
    return out, tokenizer


@pytest.fixture
async def runner(beginning: tuple[Path, Any]) -> AsyncIterator[Runner]:
    options = LoadOptions(beginning[0], context_tokens=512, parallel=1, batch_tokens=512, threads=1, shift=False)
    running = await Runner.start(options)
    yield running
    running.kill()
    await running.gone()


def test_a_conversation_is_the_same_tokens_to_both(tiny: Path, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    with Scorer(tiny, context_tokens=512, threads=1) as scorer:
        for length in (2, 4):
            served = scorer.tokenize(render_text(tokenizer, TALK[:length]))
            assert served == render_ids(tokenizer, TALK[:length])


def test_a_conversation_begins_once_on_both_sides(beginning: tuple[Path, Any]) -> None:
    """llama.cpp adds BOS where the file says so; the template has written one already: either, and never both."""
    path, tokenizer = beginning
    begin = tokenizer.convert_tokens_to_ids(BEGIN)
    text, trained = render_text(tokenizer, TALK), render_ids(tokenizer, TALK)
    assert (trained[0], trained.count(begin)) == (begin, 1)
    with Scorer(path, context_tokens=512, threads=1) as scorer:
        assert scorer.tokenize(text) == [begin, *trained]  # the trap
        assert scorer.tokenize(text.removeprefix(BEGIN)) == trained


async def test_the_server_reads_as_many_tokens_as_were_trained_on_whether_the_prompt_begins_with_bos_or_not(
    runner: Runner, beginning: tuple[Path, Any]
) -> None:
    _, tokenizer = beginning
    text, trained = render_text(tokenizer, TALK), render_ids(tokenizer, TALK)
    for prompt in (text, text.removeprefix(BEGIN)):
        request = {"prompt": runner.without_begin(prompt), "n_predict": 1, "temperature": 0}
        async with aclosing(runner.complete(request)) as events:
            last = [event async for event in events][-1]
        assert last["tokens_evaluated"] == len(trained)


async def test_the_server_s_template_renders_as_the_trainer_s(runner: Runner, beginning: tuple[Path, Any]) -> None:
    """Jinja in llama.cpp against jinja in transformers: the text that both hand to their tokenizers."""
    _, tokenizer = beginning
    rendered = await runner._ask("/apply-template", {"messages": list(TALK)})
    assert rendered["prompt"].removeprefix(BEGIN) == render_text(tokenizer, TALK).removeprefix(BEGIN)


async def test_the_end_that_is_trained_is_the_end_that_stops(runner: Runner, beginning: tuple[Path, Any]) -> None:
    """A model that says the very token whose saying was trained is stopped by it; another token does not stop it."""
    _, tokenizer = beginning
    end, other = end_of_turn_id(tokenizer), tokenizer.convert_tokens_to_ids("a")
    trained = render_ids(tokenizer, [*TALK, {"role": "assistant", "content": "再见。"}], answer_next=False)
    assert end in trained[len(render_ids(tokenizer, TALK)) :]
    ended = []
    for token in (end, other):
        request = {"prompt": "回甘", "n_predict": 8, "temperature": 0, "logit_bias": [[token, 1000]]}
        async with aclosing(runner.complete(request)) as events:
            last = [event async for event in events][-1]
        ended.append((last["stop_type"], last["tokens_predicted"]))
    assert ended == [("eos", 1), ("limit", 8)]
