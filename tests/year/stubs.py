"""Stages that take a moment and tiny files in place of weights, and what may befall a run on its way through them.

`starts`, `build`, the gate and the release are the product's own. What becomes of a run is drawn from the seed and its
number, so that the same year can be lived again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter

from trainer import child, pipeline, release, stages
from trainer.dataset import Built
from trainer.scorecard import Perplexity, Scorecard
from trainer.stages import Merged, Origin, Reference, RunFailed, Taught, Work
from trainer.tokens import TrainingFailed

STAGES = ("train", "merge", "quantise", "score")
MINUTES = {"train": 40, "merge": 5, "quantise": 5, "score": 15}
CANDIDATE_BYTES, ADAPTER_BYTES, BASE_BYTES = 40_000, 8_000, 120_000


USUAL = 0.6
LIKED = (0.95, 0.95, USUAL, 0.05, 0.05)


class Killed(BaseException):
    """The run's process is gone, as by kill -9: nothing of it says anything any more."""


class ScorerDied(Exception):
    """Called as the product's own is: what it is recorded as depends on the name alone."""


class BadGguf(Exception):
    pass


class ConverterMissing(Exception):
    pass


class WeightsUnavailable(Exception):
    pass


# What the stages and the libraries under them raise, each with the parameters that they give.
FAILURES: tuple[Callable[[], Exception], ...] = (
    lambda: TrainingFailed("no_end_of_turn", last="x"),
    lambda: TrainingFailed("bad_row", row=3, stage="sft"),
    lambda: TrainingFailed("template_not_a_prefix", prompt="x"),
    lambda: TrainingFailed("tokens_differ", row=None, stage="sft"),
    lambda: TrainingFailed("loss_not_finite", stage="sft", step=7),
    lambda: TrainingFailed("wrong_reference", reward=0.5),
    lambda: TrainingFailed("one_sided_feedback", liked=9, disliked=0),
    lambda: TrainingFailed("no_examples", stage="sft", skipped={"too_long": 4}),
    lambda: TrainingFailed("not_possible_here", key="train.optimizer", package="galore-torch", why="not_installed"),
    lambda: TrainingFailed("tracker_missing", name="wandb"),
    lambda: TrainingFailed("adapter_gone", tag="huigan:run1-0", folder="adapter"),
    lambda: TrainingFailed("adapter_of_another_kind", tag="huigan:run1-0", tune="lora"),
    lambda: TrainingFailed("process_died", returncode=-9),
    lambda: TrainingFailed("out_of_memory", batch=1),
    lambda: TrainingFailed("disk_full", folder="train", free_bytes=3),
    lambda: RunFailed("template_differs", tag="huigan:run1-0", served_tokens=3, trained_tokens=4),
    lambda: RunFailed("answers_nothing", tag="huigan:run1-0"),
    lambda: RunFailed("does_not_stop_when_served", tag="huigan:run1-0", tokens=256),
    lambda: WeightsUnavailable("the hub is away"),
    lambda: BadGguf("the header is cut"),
    lambda: ConverterMissing("there is no converter"),
    lambda: ScorerDied("it ended with -11"),
    lambda: MemoryError("no memory"),
    lambda: OSError(errno.ENOSPC, "No space left on device"),
    lambda: OSError(errno.ENOMEM, "Cannot allocate memory"),
    lambda: ValueError("what nobody foresaw"),
)


@dataclass(frozen=True)
class Fate:
    """What becomes of a run. `kills`: at which stage each attempt is killed; `silent`: its machine goes with it."""

    effect: bool = True
    ratio: float = 0.9  # of the candidate's perplexity to the live one's: below 1 the gate lets it pass
    kills: tuple[str, ...] = ()
    silent: bool = False
    liked: float = USUAL  # the share of its answers that people like
    failure: Exception | None = None
    fails_at: str = "train"


class Fates:
    """Each run's, by its number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._failures = 0
        self._known: dict[int, Fate] = {}

    def of(self, run_id: int) -> Fate:
        if run_id not in self._known:
            self._known[run_id] = self._drawn(random.Random(f"{self._seed} run {run_id}"))
        return self._known[run_id]

    def _drawn(self, rng: random.Random) -> Fate:
        kills = tuple(rng.choice(STAGES) for _ in range(rng.choice((1, 1, 2, 3)))) if rng.random() < 0.15 else ()
        dice, silent = rng.random(), rng.random() < 0.5
        if dice < 0.15:
            self._failures += 1
            raised = FAILURES[self._failures % len(FAILURES)]()
            return Fate(kills=kills, silent=silent, failure=raised, fails_at=rng.choice(STAGES))
        if dice < 0.2:
            return Fate(effect=False, kills=kills, silent=silent)
        return Fate(ratio=1.3 if dice < 0.35 else 0.9, kills=kills, silent=silent, liked=rng.choice(LIKED))


@dataclass(frozen=True)
class Stubs:
    """`passes(work, minutes)` lets time go by while a stage is at work; `now` is the simulated clock."""

    fates: Fates
    passes: Callable[[Work, int], None]
    now: Callable[[], Any]

    def train(self, work: Work, _origin: Origin, _built: Built) -> Taught:
        adapter = work.folder / "train" / "sft" / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter_model.safetensors").write_bytes(_bytes(work, "adapter", ADAPTER_BYTES))
        curves = adapter.parent / "curves.jsonl"
        curves.write_text('{"stage": "sft", "step": 1, "loss": 1.0}\n')
        work.point("sft", 1, {"loss": 1.0})
        self._at_work(work, "train")
        return Taught(work.home / "weights", adapter, (curves,), "<|im_end|>", ())

    def merge(self, work: Work, _origin: Origin, _built: Built, _taught: Taught) -> Merged:
        base = work.home / "bases" / "base.f16.gguf"
        base.parent.mkdir(exist_ok=True)
        base.write_bytes(b"GGUF" + bytes(BASE_BYTES))
        self._at_work(work, "merge")
        if not self.fates.of(work.run.id).effect:
            return Merged(base, None, "", 0)
        out, content = work.folder / "candidate.gguf", _bytes(work, "candidate", CANDIDATE_BYTES)
        out.write_bytes(content)
        return Merged(base, out, hashlib.sha256(content).hexdigest(), len(content))

    def quantise(self, work: Work, origin: Origin, _taught: Taught, merged: Merged) -> Reference:
        self._at_work(work, "quantise")
        if origin.path is not None and origin.path.is_file():
            return Reference(origin.path, "live")
        return Reference(merged.base, "base")

    def score(self, work: Work, _built: Built, _taught: Taught, merged: Merged, reference: Reference) -> Scorecard:
        self._at_work(work, "score")
        if merged.path is None:
            return Scorecard(effect=False)
        assert reference.path.is_file()
        ratio = self.fates.of(work.run.id).ratio
        read = Perplexity(40, 400, 10.0, 10.0 * ratio, ratio - 0.05, ratio + 0.05)
        return Scorecard(compared_with=reference.what, quantisation=work.recipe.quantisation, perplexity=read)

    def _at_work(self, work: Work, stage: str) -> None:
        fate, attempt = self.fates.of(work.run.id), work.run.attempt
        self.passes(work, MINUTES[stage])
        work.tell(stage, "half", 1, 2)
        if attempt <= len(fate.kills) and fate.kills[attempt - 1] == stage:
            raise Killed
        if fate.failure is not None and fate.fails_at == stage:
            raise fate.failure


class Tokenizer:
    """Counts as the fake Ollama does: one token for each character, four for the frame of a message."""

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "".join(f"{each['content']}...." for each in messages)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text)))}


@contextmanager
def in_place(stubs: Stubs) -> Iterator[None]:
    """Instead of the product's own stages, tokenizer and clock of a run, for as long as the year lasts."""
    changed: list[tuple[ModuleType, str, object]] = [(stages, name, getattr(stubs, name)) for name in STAGES]
    changed += [(release, "tokenizer_of", lambda _weights: Tokenizer()), (child, "now", stubs.now)]
    # What costs a run little costs a year much: schemas that each process builds once, and that no power fails here.
    changed += [(pipeline, "TypeAdapter", cache(TypeAdapter)), (os, "fsync", lambda _file: None)]
    before = [(module, name, getattr(module, name)) for module, name, _ in changed]
    for module, name, stub in changed:
        setattr(module, name, stub)
    try:
        yield
    finally:
        for module, name, own in before:
            setattr(module, name, own)


def _bytes(work: Work, what: str, count: int) -> bytes:
    return b"GGUF" + random.Random(f"{work.run.id} {what}").randbytes(count)
