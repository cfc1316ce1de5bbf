"""Measures the quantised candidate beside the file that answers now, in the same quantisation.

Log-probabilities on held-out feedback say how it judges, free greedy answers say what it does: a broken file can score
perfectly on the first and fail the second. This module does not know bars, runs or training.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from storage.recipe import Recipe, Stage
from trainer import measures
from trainer.dataset import controls_of, rows_of
from trainer.examples import TASKS
from trainer.replay import Control
from trainer.scorecard import Controls, Fidelity, Free, Lacking, Perplexity, Preferences, Recall, Sample, Scorecard
from trainer.tokens import Span, end_of_turn_id, render_ids, sequences

if TYPE_CHECKING:
    from huigan.llama.score import Generation, Scorer

Kind = Literal["taught", "held_out", "control"]
What = Literal["live", "base"]

# Two quantisations of nearly the same weights differ by about this much a token.
NOISE_NATS_A_TOKEN = 0.01
MIN_LENGTHS = 3
SAMPLES = 24
SEQUENCES = 8


@dataclass(frozen=True)
class Scored:
    """What to measure with: the run's data set, its recipe, and the tokenizer that was trained with."""

    dataset: Path
    recipe: Recipe
    tokenizer: Any
    threads: int | None
    tell: Callable[[str, int, int], None]
    # The 16-bit GGUF that was merged into, and what was: without them it is not told how much merging has kept.
    base: Path | None = None
    taught: Path | None = None


@dataclass(frozen=True)
class Asked:
    """A question put to both files. `wanted` are corrections or approved answers to it."""

    kind: Kind
    question: str
    ids: tuple[int, ...]
    wanted: tuple[str, ...] = ()
    corrected: bool = False
    control: Control | None = None


@dataclass(frozen=True)
class Bench:
    """Everything that both files are put to."""

    pairs: list[tuple[Span, Span]]
    answers: list[Span]
    asked: list[Asked]


@dataclass(frozen=True)
class Seen:
    """What one file did: log-probabilities of each pair's and answer's tokens, and its free answers."""

    pairs: list[tuple[list[float], list[float]]]
    answers: list[list[float]]
    free: list[Generation]

    @property
    def finite(self) -> bool:
        sides = (side for pair in self.pairs for side in pair)
        return all(math.isfinite(each) for side in (*sides, *self.answers) for each in side)


def compare(scored: Scored, *, live: Path, candidate: Path, compared_with: What) -> Scorecard:
    """Raises BadGguf, LlamaError or ScorerDied where a file cannot be loaded."""
    bench = bench_of(scored)
    before, after = look(scored, live, bench, "live"), look(scored, candidate, bench, "candidate")
    found = card(scored.recipe, bench, before, after, compared_with)
    return replace(found, fidelity=fidelity_of(scored, bench, candidate) if found.finite else None)


def fidelity_of(scored: Scored, bench: Bench, candidate: Path) -> Fidelity | None:
    """None where nothing is held out, or what was trained is no adapter that could be worn."""
    from huigan.llama import adapter, fidelity, gguf

    texts = [*few_tokens(scored, [*bench.answers, *(pair[0] for pair in bench.pairs)])]
    if scored.base is None or scored.taught is None or not texts:
        return None
    base = gguf.read(scored.base)
    deltas = adapter.read(scored.taught, base)
    if not all(isinstance(each, adapter.Delta) for each in deltas.values()):
        return None
    threads = scored.threads or os.cpu_count() or 1
    reading = fidelity.Reading(candidate.parent, scored.recipe.data.max_tokens, threads, scored.tell)
    worn = candidate.with_name("worn.gguf")
    try:
        fidelity.write_adapter(worn, deltas, base.architecture)
        found = fidelity.divergence(scored.base, candidate, texts, reading, adapter=worn)
    finally:
        worn.unlink(missing_ok=True)
    return Fidelity(found.tokens, found.mean, found.p99, found.same_top, found.perplexity_ratio)


def few_tokens(scored: Scored, given: Sequence[Span]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """(prompt, answer) of the first texts, until their answers have as many tokens as the recipe wants compared."""
    left = scored.recipe.gate.max_fidelity_tokens
    for each in given:
        if left <= 0:
            return
        answer = each.ids[each.prompt_tokens :][:left]
        left -= len(answer)
        yield each.ids[: each.prompt_tokens], answer


def bench_of(scored: Scored) -> Bench:
    bars, folder = scored.recipe.gate, scored.dataset
    return Bench(
        [(pair[0], pair[1]) for pair in spans(scored, rows_of(folder, "pairs", "held_out"), "dpo", bars.max_pairs)],
        [each[0] for each in spans(scored, rows_of(folder, "answers", "held_out"), "sft", bars.max_answers)],
        [*questions(scored)],
    )


def spans(scored: Scored, rows: Sequence[Mapping[str, Any]], stage: Stage, most: int) -> list[list[Span]]:
    """The token sequences of the first rows (which lie in the order of a hash) that fit, up to the end of turn."""
    end = end_of_turn_id(scored.tokenizer)
    found = []
    for row in rows[:most]:
        made = [up_to(end, each) for each in sequences(scored.tokenizer, row, stage, end)]
        if all(len(each.ids) <= scored.recipe.data.max_tokens for each in made):
            found.append(made)
    return found


def up_to(end_of_turn: int, span: Span) -> Span:
    """Without what a template writes after the end of turn: nobody generates that."""
    length = len(span.ids) - span.ids[::-1].index(end_of_turn)
    return Span(span.ids[:length], span.prompt_tokens)


def questions(scored: Scored) -> Iterator[Asked]:
    """Corrected questions that were trained on, held-out ones, and controls; each prompt once."""
    most = scored.recipe.gate.max_generations
    corrected = [row for row in rows_of(scored.dataset, "answers", "train") if row["source"] == "correction"]
    yield from asked(scored, corrected, "taught", most)
    held_out = [row for task in TASKS for row in rows_of(scored.dataset, task, "held_out")]
    yield from asked(scored, held_out, "held_out", most)
    for control in controls_of(scored.dataset):
        messages = [
            {"role": "system", "content": scored.recipe.system.text},
            {"role": "user", "content": control.question},
        ]
        yield Asked("control", control.question, tuple(render_ids(scored.tokenizer, messages)), control=control)


def asked(scored: Scored, rows: Sequence[Mapping[str, Any]], kind: Kind, most: int) -> Iterator[Asked]:
    by_prompt: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        ids = tuple(render_ids(scored.tokenizer, row["prompt"]))
        if len(ids) <= scored.recipe.data.max_prompt_tokens:
            by_prompt.setdefault(ids, []).append(row)
    for ids, same in list(by_prompt.items())[:most]:
        wanted = dict.fromkeys(text for row in same if (text := approved(row)) is not None)
        is_corrected = any(row["source"] == "correction" for row in same)
        yield Asked(kind, same[0]["prompt"][-1]["content"], ids, tuple(wanted), is_corrected)


def approved(row: Mapping[str, Any]) -> str | None:
    """The answer in a row that people want more of."""
    if "chosen" in row:
        return str(row["chosen"][0]["content"])
    return str(row["completion"][0]["content"]) if row.get("label", True) else None


def look(scored: Scored, gguf: Path, bench: Bench, name: str) -> Seen:
    from huigan.llama.score import Scorer

    recipe = scored.recipe
    most = min(recipe.gate.max_generated_tokens, recipe.generate.num_predict)  # served answers are cut there, too
    longest = max(recipe.data.max_tokens, recipe.data.max_prompt_tokens + most)
    threads = scored.threads or os.cpu_count() or 1

    def progress(what: str, done: int, total: int) -> None:
        scored.tell(f"{name}: {what}", done, total)

    with Scorer(gguf, context_tokens=longest, threads=threads, sequences=SEQUENCES) as scorer:
        both = logprobs(scorer, [side for pair in bench.pairs for side in pair], progress)
        answers = logprobs(scorer, bench.answers, progress)
        stop = [scored.tokenizer.decode([end_of_turn_id(scored.tokenizer)])]
        free = scorer.generate([each.ids for each in bench.asked], max_tokens=most, stop=stop, progress=progress)
    return Seen(list(zip(both[::2], both[1::2], strict=True)), answers, free)


def logprobs(scorer: Scorer, given: Sequence[Span], progress: Callable[[str, int, int], None]) -> list[list[float]]:
    pairs = [(each.ids[: each.prompt_tokens], each.ids[each.prompt_tokens :]) for each in given]
    return scorer.completion_logprobs(pairs, progress=progress)


def card(
    recipe: Recipe, bench: Bench, live: Seen, candidate: Seen, compared_with: Literal["live", "base"]
) -> Scorecard:
    if not candidate.finite:
        return Scorecard(finite=False, compared_with=compared_with, quantisation=recipe.quantisation)
    free = free_answers(bench, live, candidate)
    found = Scorecard(
        compared_with=compared_with,
        quantisation=recipe.quantisation,
        preferences=preferences(live, candidate, recipe.seed) if bench.pairs and live.finite else None,
        perplexity=perplexity(live, candidate) if bench.answers and live.finite else None,
        recall=recall(bench, live, candidate, "taught"),
        held_out_recall=recall(bench, live, candidate, "held_out"),
        free=free,
        controls=controls(bench, live, candidate),
        samples=tuple(samples(bench, live, candidate)),
    )
    return replace(found, lacking=tuple(lacking(found)))


def preferences(live: Seen, candidate: Seen, seed: int) -> Preferences:
    gains, points = [], []
    for before, after in zip(live.pairs, candidate.pairs, strict=True):
        gain = (sum(after[0]) - sum(after[1])) - (sum(before[0]) - sum(before[1]))
        noise = NOISE_NATS_A_TOKEN * (len(after[0]) + len(after[1]))
        gains.append(gain)
        points.append(1.0 if gain > noise else 0.5 if gain >= -noise else 0.0)
    low, high = measures.interval(gains, seed)
    return Preferences(len(gains), fmean(points), fmean(gains), low, high, NOISE_NATS_A_TOKEN)


def perplexity(live: Seen, candidate: Seen) -> Perplexity:
    def of(seen: Seen) -> float:
        return math.exp(-fmean([each for answer in seen.answers for each in answer]))

    return Perplexity(len(live.answers), sum(map(len, live.answers)), of(live), of(candidate))


def recall(bench: Bench, live: Seen, candidate: Seen, kind: Kind) -> Recall | None:
    chosen = [at for at, each in enumerate(bench.asked) if each.kind == kind and each.corrected]
    if not chosen:
        return None

    def share(seen: Seen) -> float:
        return fmean(
            any(measures.recalls(seen.free[at].text, want) for want in bench.asked[at].wanted) for at in chosen
        )

    def closeness(seen: Seen) -> float:
        return fmean(max(measures.chrf(seen.free[at].text, want) for want in bench.asked[at].wanted) for at in chosen)

    return Recall(len(chosen), share(live), share(candidate), closeness(live), closeness(candidate))


def free_answers(bench: Bench, live: Seen, candidate: Seen) -> Free | None:
    if not bench.asked:
        return None
    told = list(zip(bench.asked, live.free, candidate.free, strict=True))
    matches = [match for each in told if (match := in_the_askers_script(*each)) is not None]
    lengths = [pair for each in told if (pair := comparable_lengths(*each)) is not None]
    return Free(
        len(told),
        stop_share(candidate.free),
        fmean(measures.loops(each.text) for each in candidate.free),
        fmean(matches) if matches else None,
        measures.drift(*zip(*lengths, strict=True)) if len(lengths) >= MIN_LENGTHS else None,
        stop_share(live.free),
        fmean(measures.loops(each.text) for each in live.free),
    )


def stop_share(answers: Sequence[Generation]) -> float:
    return fmean(each.ended == "stop" for each in answers)


def in_the_askers_script(question: Asked, live: Generation, candidate: Generation) -> bool | None:
    """None where it is not clear in which script to answer, or what the answer is written in."""
    trusted = question.wanted[:1] or ((live.text,) if question.control and question.control.is_right(live.text) else ())
    expected = (measures.script(trusted[0]) if trusted else None) or measures.script(question.question)
    if expected is None or not candidate.text.strip():
        return None if expected is None else False
    given = measures.script(candidate.text)
    return None if given is None else given == expected


def comparable_lengths(question: Asked, live: Generation, candidate: Generation) -> tuple[int, int] | None:
    """(the candidate's length, the length wanted) in words: of an approved answer, else of a live one that ended."""
    if question.wanted:
        return len(measures.words(candidate.text)), len(measures.words(question.wanted[0]))
    if live.ended != "stop":
        return None
    return len(measures.words(candidate.text)), len(measures.words(live.text))


def controls(bench: Bench, live: Seen, candidate: Seen) -> Controls | None:
    told = [
        (each.control.is_right(before.text), each.control.is_right(after.text))
        for each, before, after in zip(bench.asked, live.free, candidate.free, strict=True)
        if each.control is not None
    ]
    if not told:
        return None
    return Controls(len(told), sum(before for before, _ in told), sum(before and not after for before, after in told))


def samples(bench: Bench, live: Seen, candidate: Seen) -> Iterator[Sample]:
    """Some of each kind."""
    left = dict.fromkeys(("taught", "held_out", "control"), SAMPLES // 3)
    for each, before, after in zip(bench.asked, live.free, candidate.free, strict=True):
        if left[each.kind]:
            left[each.kind] -= 1
            wanted = each.wanted[0] if each.wanted else each.control.keys[0] if each.control else None
            yield Sample(each.kind, each.question, before.text, after.text, wanted)


def lacking(found: Scorecard) -> Iterator[Lacking]:
    missing: dict[Lacking, object] = {
        "pairs": found.preferences,
        "answers": found.perplexity,
        "corrections": found.recall,
        "controls": found.controls,
        "clear_languages": found.free and found.free.language_match,
        "comparable_lengths": found.free and found.free.length_drift,
    }
    return (name for name, value in missing.items() if value is None)
