"""Scores and generates with the very file that is to be served, in a child process of its own.

Log-probabilities of a given text are what no server tells, and a quantised file's are not its 16-bit weights': so the
gate asks llama.cpp itself. The child speaks JSON lines, ends when its parent does, and may crash without harm. It
knows token ids and texts, and nothing of examples, bars or verdicts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from huigan.llama import libllama
from huigan.llama.gguf import Floats, read
from huigan.llama.libllama import LlamaError, Model, Step

Progress = Callable[[str, int, int], None]
Pair = tuple[Sequence[int], Sequence[int]]
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# Texts a request: often enough for a progress bar, seldom enough to keep the child's batches full.
REQUEST_TEXTS = 32


class ScorerDied(RuntimeError):
    """The child process is gone; the message says how."""


@dataclass(frozen=True)
class Generation:
    text: str
    tokens: int
    ended: str
    """`stop` (the model ended its turn, or a stop string came) or `length`."""


class Scorer:
    """A GGUF in a child process. Use as a context manager; one caller at a time.

    Raises BadGguf before the child is started, LlamaError when llama.cpp refuses, ScorerDied when it crashes.
    """

    def __init__(
        self,
        gguf: Path,
        *,
        context_tokens: int = 2048,
        threads: int = 2,
        sequences: int = 4,
        adapter: Path | None = None,
    ) -> None:
        self.gguf = gguf
        self._settings = {
            "context_tokens": context_tokens,
            "sequences": sequences,
            "threads": threads,
            "adapter": adapter and str(adapter),
        }
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Scorer:
        read(self.gguf)
        paths = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        self._stderr = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "huigan.llama.score", str(self.gguf), json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            # A busy-waiting OpenMP thread beside any other process slows both a hundredfold.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths},
        )
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._stderr.close()

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        tokens: list[int] = self._ask("tokenize", text=text, special=special)
        return tokens

    def completion_logprobs(self, pairs: Sequence[Pair], *, progress: Progress | None = None) -> list[list[float]]:
        """For each (prompt tokens, completion tokens): the natural log-probability of each completion token."""
        return list(self._in_parts("logprobs", [(list(a), list(b)) for a, b in pairs], progress, what="score"))

    def distributions(self, pairs: Sequence[Pair], out: Path, *, progress: Progress | None = None) -> None:
        """Writes what is expected at each completion token: natural log-probabilities, float32 (tokens, vocabulary)."""
        out.unlink(missing_ok=True)
        texts = [(list(a), list(b)) for a, b in pairs]
        list(self._in_parts("distributions", texts, progress, what="expect", out=str(out)))

    def divergences(
        self, pairs: Sequence[Pair], expected: Path, *, progress: Progress | None = None
    ) -> list[tuple[float, bool, float, float]]:
        """For each completion token of all pairs, compared with what `distributions` of another file wrote for them:
        KL divergence in nats, whether the likeliest token is the same, and the token's log-probability there and here.
        """
        texts, before = [], 0
        for prompt, completion in pairs:
            texts.append((list(prompt), list(completion), before))
            before += len(completion)
        told = self._in_parts("divergences", texts, progress, what="compare", expected=str(expected))
        return [(kl, same, there, here) for kl, same, there, here in told]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[Generation]:
        """The greedy continuation of each prompt; stop strings are not part of the text.

        Prompts run side by side. The same prompts in the same order give the same texts; alone, a prompt may go another
        way at a near tie, as the kernels round otherwise for other batch sizes.
        """
        texts = [list(prompt) for prompt in prompts]
        answers = self._in_parts("generate", texts, progress, what="generate", max_tokens=max_tokens, stop=list(stop))
        return [Generation(**answer) for answer in answers]

    def _in_parts(
        self, do: str, texts: list[Any], progress: Progress | None, *, what: str, **options: Any
    ) -> Iterator[Any]:
        for start in range(0, len(texts), REQUEST_TEXTS):
            yield from self._ask(do, texts=texts[start : start + REQUEST_TEXTS], **options)
            if progress is not None:
                progress(what, min(start + REQUEST_TEXTS, len(texts)), len(texts))

    def _ask(self, do: str, **options: Any) -> Any:
        if self._process is None or self._process.stdin is None:
            raise ScorerDied("the scorer is not running: use it inside `with`")
        try:
            self._process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._obituary() from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._obituary()
        answer = json.loads(line)
        if "error" in answer:
            raise (ValueError if answer["kind"] == "ValueError" else LlamaError)(answer["error"])
        return answer["result"]

    def _obituary(self) -> ScorerDied:
        assert self._process is not None
        status = self._process.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        self._stderr.seek(0)
        last_words = " ".join(self._stderr.read().split()[-60:])
        return ScorerDied(f"llama.cpp ended with {how} while working on {self.gguf}. {last_words}")


def main(gguf: str, settings: str, requests: TextIO, replies: TextIO) -> None:
    """The child: one JSON answer a line for each JSON request a line, until there are no more."""
    options = json.loads(settings)
    try:
        adapter = options.pop("adapter")
        model = Model(Path(gguf), **options, adapter=adapter and Path(adapter))
        work = _Work(model, options["context_tokens"], options["sequences"])
        _reply(replies, {"result": None})
    except LlamaError as error:
        return _reply(replies, {"error": str(error), "kind": "LlamaError"})
    for line in requests:
        request = json.loads(line)
        try:
            _reply(replies, {"result": getattr(work, request.pop("do"))(**request)})
        except (LlamaError, ValueError) as error:
            _reply(replies, {"error": str(error), "kind": type(error).__name__})
    return None


def _reply(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


@dataclass
class _Text:
    """A text being generated."""

    index: int
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    raw: bytes = b""

    def first_steps(self, sequence: int) -> list[Step]:
        last = len(self.prompt) - 1
        return [Step(token, at, sequence, at == last) for at, token in enumerate(self.prompt)]

    def next_step(self, sequence: int) -> Step:
        return Step(self.tokens[-1], len(self.prompt) + len(self.tokens) - 1, sequence, True)


@dataclass(frozen=True)
class _Work:
    model: Model
    context_tokens: int
    sequences: int

    def tokenize(self, text: str, special: bool) -> list[int]:
        return self.model.tokenize(text, special=special)

    def logprobs(self, texts: list[Pair]) -> list[list[float]]:
        for prompt, completion in texts:
            self._check(prompt, completion, len(completion))
        return [self._score(prompt, completion) for prompt, completion in texts]

    def distributions(self, texts: list[Pair], out: str) -> list[None]:
        with Path(out).open("ab") as file:
            for prompt, completion in texts:
                self._check(prompt, completion, len(completion))
                file.writelines(_log_softmax(logits).tobytes() for logits in self._read(prompt, completion))
        return [None for _ in texts]

    def divergences(self, texts: list[tuple[list[int], list[int], int]], expected: str) -> list[Any]:
        there = np.memmap(expected, np.float32, "r").reshape(-1, self.model.vocabulary_size)
        found: list[Any] = []
        for prompt, completion, before in texts:
            self._check(prompt, completion, len(completion))
            if before + len(completion) > len(there):
                raise ValueError(f"{expected} was written for fewer tokens")
            at = before
            for logits in self._read(prompt, completion):
                tokens = np.asarray(completion[at - before :][: len(logits)])
                found += _compared(there[at : at + len(logits)], _log_softmax(logits), tokens)
                at += len(logits)
        return found

    def generate(self, texts: list[list[int]], max_tokens: int, stop: list[str]) -> list[dict[str, Any]]:
        for prompt in texts:
            self._check(prompt, (), max_tokens)
        return [answer for _, answer in sorted(self._generate(texts, max_tokens, stop), key=lambda pair: pair[0])]

    def _check(self, prompt: Sequence[int], completion: Sequence[int], more_tokens: int) -> None:
        if not prompt or more_tokens < 1:
            raise ValueError("a prompt and a completion need at least one token each")
        if len(prompt) + more_tokens > self.context_tokens:
            raise ValueError(f"{len(prompt)} + {more_tokens} tokens do not fit the context of {self.context_tokens}")
        if not all(0 <= token < self.model.vocabulary_size for token in (*prompt, *completion)):
            raise ValueError(f"token ids must lie in the vocabulary of {self.model.vocabulary_size}")

    def _score(self, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
        return _logprobs(self._read(prompt, completion), completion)

    def _read(self, prompt: Sequence[int], completion: Sequence[int]) -> Iterator[Floats]:
        """The logits that each completion token was to be chosen by, in parts: (tokens, vocabulary).

        One text at a time, so that its score does not depend, in the last digits, on its neighbours."""
        text = [*prompt, *completion]
        # The last token predicts nothing we ask for, so it is not decoded.
        steps = [Step(token, at, 0, at + 1 >= len(prompt)) for at, token in enumerate(text[:-1])]
        yield from self._decode(steps)
        self.model.forget(0)

    def _decode(self, steps: Sequence[Step]) -> Iterator[Floats]:
        for start in range(0, len(steps), libllama.BATCH_TOKENS):
            yield self.model.decode(steps[start : start + libllama.BATCH_TOKENS])

    def _generate(
        self, texts: list[list[int]], max_tokens: int, stop: list[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        waiting = deque(_Text(index, prompt) for index, prompt in enumerate(texts))
        running: dict[int, _Text] = {}
        while waiting or running:
            steps = [text.next_step(sequence) for sequence, text in running.items()]
            for sequence in set(range(self.sequences)) - running.keys():
                if waiting:
                    running[sequence] = waiting.popleft()
                    steps += running[sequence].first_steps(sequence)
            chosen = (int(token) for logits in self._decode(steps) for token in logits.argmax(axis=1))
            for sequence, token in zip([step.sequence for step in steps if step.output], chosen, strict=True):
                answer = self._grown(running[sequence], token, max_tokens, stop)
                if answer is not None:
                    self.model.forget(sequence)
                    yield running.pop(sequence).index, answer

    def _grown(self, text: _Text, token: int, max_tokens: int, stop: list[str]) -> dict[str, Any] | None:
        """The finished answer, if this token finishes it."""
        text.tokens.append(token)
        if self.model.ends(token):
            return _answer(text, text.raw, "stop")
        text.raw += self.model.piece(token)
        ends = [at for word in stop if (at := text.raw.find(word.encode())) >= 0]
        if ends:
            return _answer(text, text.raw[: min(ends)], "stop")
        return _answer(text, text.raw, "length") if len(text.tokens) == max_tokens else None


def _answer(text: _Text, raw: bytes, ended: str) -> dict[str, Any]:
    return {"text": raw.decode(errors="replace"), "tokens": len(text.tokens), "ended": ended}


def _logprobs(parts: Iterable[Floats], wanted: Sequence[int]) -> list[float]:
    """log softmax(logits)[token] of each row; `parts` are (rows, vocabulary), one row for each wanted token."""
    scores: list[float] = []
    for logits in parts:
        tokens = np.asarray(wanted[len(scores) : len(scores) + len(logits)])
        shifted: npt.NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(tokens)), tokens]
        scores += (chosen - np.log(np.exp(shifted, out=shifted).sum(axis=1))).tolist()
    return scores


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def _compared(there: Floats, here: Floats, tokens: npt.NDArray[Any]) -> list[tuple[float, bool, float, float]]:
    """KL(there || here), whether the likeliest is the same, and the tokens' own log-probabilities, row by row."""
    divergence = (np.exp(there) * (there - here)).sum(axis=1, dtype=np.float64)
    same = there.argmax(axis=1) == here.argmax(axis=1)
    rows = np.arange(len(tokens))
    columns = (divergence, same, there[rows, tokens], here[rows, tokens])
    return list(zip(*(each.tolist() for each in columns), strict=True))


if __name__ == "__main__":
    # Whatever a library prints goes to stderr: stdout carries answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.argv[1], sys.argv[2], sys.stdin, answers)
