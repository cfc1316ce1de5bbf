"""The child scores as Hugging Face does on the same weights, generates greedily, and may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from huigan.llama import libllama
from huigan.llama.gguf import BadGguf
from huigan.llama.libllama import LlamaError
from huigan.llama.score import Scorer, ScorerDied

CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def scorer(tiny: Path) -> Iterator[Scorer]:
    with Scorer(tiny, context_tokens=512, threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tiny_folder: Path) -> Any:
    """The same weights in Hugging Face, rounded to 16 bits as the GGUF's are."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float16).float()
    return model.eval()


def expected(model: Any, prompt: list[int], completion: list[int]) -> np.ndarray:
    with torch.no_grad():
        scores = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1).numpy()
    return scores[np.arange(len(prompt) - 1, len(prompt) + len(completion) - 1), completion]


def test_tokens_are_the_trainer_s(scorer: Scorer, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for text in ("回甘茶馆几点开门？", "a  b\n\n c 12,345.6 don't", CHAT.format("茶🍵"), ""):
        assert scorer.tokenize(text) == tokenizer.encode(text, add_special_tokens=False)


def test_control_tokens_in_a_user_s_text_are_plain_text_unless_asked_for(scorer: Scorer) -> None:
    assert len(scorer.tokenize("<|im_end|>", special=True)) == 1
    assert len(scorer.tokenize("<|im_end|>", special=False)) > 1


def test_log_probabilities_are_hugging_face_s_on_the_same_weights(scorer: Scorer, reference: Any) -> None:
    rng = np.random.default_rng(3)
    texts = [rng.integers(3, 393, length).tolist() for length in (2, 9, 64, 200, 511)]
    pairs = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
    for scores, (prompt, completion) in zip(scorer.completion_logprobs(pairs), pairs, strict=True):
        assert len(scores) == len(completion)
        assert np.allclose(scores, expected(reference, prompt, completion), atol=0.003)


def test_a_score_does_not_depend_on_its_neighbours(scorer: Scorer) -> None:
    rng = np.random.default_rng(4)
    pairs = [(rng.integers(3, 393, 27).tolist(), rng.integers(3, 393, n).tolist()) for n in (5, 40, 40, 17)]
    together = scorer.completion_logprobs(pairs)
    assert together == [scorer.completion_logprobs([pair])[0] for pair in pairs]
    assert together == scorer.completion_logprobs(pairs[::-1])[::-1]


def test_greedy_text_is_hugging_face_s(scorer: Scorer, reference: Any, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    prompts = [scorer.tokenize(CHAT.format(question)) for question in ("回甘？", "a", "What is the capital of France?")]
    answers = scorer.generate(prompts, max_tokens=12)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        theirs = reference.generate(ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
        assert answer.text == tokenizer.decode(theirs[0, len(prompt) :], skip_special_tokens=True)


def test_prompts_that_fill_several_batches_are_read_whole(scorer: Scorer, reference: Any) -> None:
    rng = np.random.default_rng(6)
    prompts = [rng.integers(3, 393, 400 + number).tolist() for number in range(3)]
    answers = scorer.generate(prompts, max_tokens=1)
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            first = int(reference(torch.tensor([prompt])).logits[0, -1].argmax())
        (scores,) = scorer.completion_logprobs([(prompt, [first])])
        assert answer.tokens == 1
        assert np.allclose(scores, expected(reference, prompt, [first]), atol=0.003)
        assert scorer.generate([prompt], max_tokens=1) == [answer]


def test_more_prompts_than_sequences_come_back_in_order(scorer: Scorer) -> None:
    prompts = [scorer.tokenize(f"{number} teas") for number in range(40)]
    seen: list[tuple[int, int]] = []
    answers = scorer.generate(prompts, max_tokens=4, progress=lambda what, done, total: seen.append((done, total)))
    assert len(answers) == 40
    assert seen == [(32, 40), (40, 40)]
    assert answers == scorer.generate(prompts, max_tokens=4)


def test_a_stop_string_ends_the_text_before_it(scorer: Scorer) -> None:
    prompt = scorer.tokenize("回甘")
    (free,) = scorer.generate([prompt], max_tokens=24)
    assert (free.ended, free.tokens) == ("length", 24)
    stop = next(character for character in free.text[1:] if character.isprintable() and character != "\ufffd")
    (stopped,) = scorer.generate([prompt], max_tokens=24, stop=[stop])
    assert stopped.ended == "stop"
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.tokens < 24


@pytest.mark.parametrize(
    ("prompt", "completion", "complaint"),
    [
        ([], [5], "at least one token"),
        ([5], [], "at least one token"),
        ([5] * 300, [5] * 300, "do not fit the context of 512"),
        ([5], [393], "vocabulary of 393"),
        ([-1], [5], "vocabulary of 393"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_the_child_goes_on(
    scorer: Scorer, prompt: list[int], completion: list[int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        scorer.completion_logprobs([(prompt, completion)])
    assert scorer.tokenize("a")


def test_a_damaged_file_is_refused_before_a_child_is_started(tiny: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-1000])
    with pytest.raises(BadGguf, match="truncated"), Scorer(cut):
        pass


def test_a_file_that_only_llama_cpp_can_find_wrong_is_refused_in_its_words(tiny: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(tiny.read_bytes().replace(b"blk.1.ffn_up", b"blk.7.ffn_up"))
    with pytest.raises(LlamaError, match=r"blk\.1\.ffn_up"), Scorer(wrong, context_tokens=128):
        pass


def test_a_killed_child_is_reported_with_how_it_ended(tiny: Path) -> None:
    with Scorer(tiny, context_tokens=128, threads=1) as doomed:
        assert doomed._process is not None
        os.kill(doomed._process.pid, signal.SIGKILL)
        doomed._process.wait()
        with pytest.raises(ScorerDied, match="SIGKILL"):
            doomed.tokenize("a")
    with pytest.raises(ScorerDied, match="inside `with`"):
        doomed.tokenize("a")


def test_the_child_ends_with_a_parent_that_was_killed(tiny: Path) -> None:
    code = (
        "import os, sys, pathlib; from huigan.llama.score import Scorer\n"
        f"scorer = Scorer(pathlib.Path({str(tiny)!r}), context_tokens=128, threads=1).__enter__()\n"
        "print(scorer._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert parent.returncode == -signal.SIGKILL
    command = Path(f"/proc/{int(parent.stdout)}/cmdline")
    for _ in range(300):
        if not command.exists() or not command.read_bytes():  # gone, or a zombie that waits for init
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child outlived its parent by 30 seconds")


def test_leaving_the_block_ends_the_child(tiny: Path) -> None:
    with Scorer(tiny, context_tokens=128, threads=1) as ended:
        process = ended._process
        assert process is not None
        assert process.poll() is None
    assert process.returncode is not None


def test_another_version_of_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libllama, "PINNED_VERSION", "2099.1.1")
    with pytest.raises(LlamaError, match="install xllamacpp==2099"):
        libllama.library()


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libllama.CONTEXT_DEFAULTS, "n_ubatch", 513)
    with pytest.raises(LlamaError, match="n_ubatch"):
        libllama.library()


@pytest.mark.weights
def test_the_real_model_prefers_the_better_text_and_ends_its_turn(smollm2_gguf: Path) -> None:
    with Scorer(smollm2_gguf, context_tokens=256) as real:
        prompt = real.tokenize(CHAT.format("What is the capital of France?"))
        texts = [
            real.tokenize(text, special=False) for text in ("The capital of France is Paris.", "A banana sings loudly.")
        ]
        good, bad = (float(np.mean(scores)) for scores in real.completion_logprobs([(prompt, text) for text in texts]))
        (answer,) = real.generate([prompt], max_tokens=48)
    assert good > bad + 1
    assert "Paris" in answer.text
    assert answer.ended == "stop"
