"""Measures the quantised candidate beside the file that answers now, in the same quantisation.

Log-probabilities on held-out feedback say how it judges, free greedy answers say what it does: a broken file can score
perfectly on the first and fail the second. This module asks; `findings` makes of it what is shown. It knows no bars.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huigan.serving.client import Ollama
from storage.recipe import Recipe, Stage
from trainer import findings, judge, suite
from trainer.dataset import controls_of, rows_of
from trainer.examples import TASKS
from trainer.findings import Asked, Bench, Held, Kind, Said, Seen, What
from trainer.scorecard import Fidelity, Scorecard
from trainer.suite import Case
from trainer.tokens import Span, end_of_turn_id, render_ids, sequences

if TYPE_CHECKING:
    from huigan.llama.score import Scorer

SEQUENCES = 8
LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Scored:
    """What to measure with: the run's data set, its recipe, and the tokenizer that was trained with."""

    dataset: Path
    recipe: Recipe
    tokenizer: Any
    threads: int | None
    tell: Callable[[str, int, int], None]
    cases: Sequence[Case] = ()  # the admin's own
    client: Ollama | None = None  # where the judge is asked, if the recipe names one
    # The 16-bit GGUF that was merged into, and what was: without them it is not told how much merging has kept.
    base: Path | None = None
    taught: Path | None = None


def compare(scored: Scored, *, live: Path, candidate: Path, compared_with: What) -> Scorecard:
    """Raises BadGguf, LlamaError or ScorerDied where a file cannot be loaded."""
    bench = bench_of(scored)
    before, after = look(scored, live, bench, "live"), look(scored, candidate, bench, "candidate")
    judged = None
    if scored.client is not None and scored.recipe.judge.tag is not None:
        judged = judge.judge(scored.client, scored.recipe.judge, bench, before, after, scored.recipe.seed, scored.tell)
    found = findings.card(scored.recipe, bench, before, after, compared_with, judged)
    return replace(found, fidelity=fidelity_of(scored, bench, candidate) if found.finite else None)


def fidelity_of(scored: Scored, bench: Bench, candidate: Path) -> Fidelity | None:
    """None where nothing is held out."""
    from huigan.llama import fidelity

    texts = [*few_tokens(scored, [each.spans[0] for each in (*bench.answers, *bench.pairs)])]
    if scored.base is None or scored.taught is None or not texts:
        return None
    with TemporaryDirectory(dir=candidate.parent) as scratch:
        threads = scored.threads or os.cpu_count() or 1
        reading = fidelity.Reading(Path(scratch), scored.recipe.data.max_tokens, threads, scored.tell)
        reference = fidelity.taught(scored.base, scored.taught, reading.folder)
        found = fidelity.divergence(candidate, reference, texts, reading)
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
        held(scored, rows_of(folder, "pairs", "held_out"), "dpo", bars.max_pairs),
        held(scored, rows_of(folder, "answers", "held_out"), "sft", bars.max_answers),
        [*general(scored)],
        [*questions(scored)],
        [*cases(scored)],
    )


def held(scored: Scored, rows: Sequence[Mapping[str, Any]], stage: Stage, most: int) -> list[Held]:
    """The token sequences of the first rows (which lie in the order of a hash) that fit, up to the end of turn."""
    end = end_of_turn_id(scored.tokenizer)
    found = []
    for number, row in enumerate(rows[:most]):
        made = [up_to(end, each) for each in sequences(scored.tokenizer, row, stage, end)]
        if all(len(each.ids) <= scored.recipe.data.max_tokens for each in made):
            conversation = row.get("conversation_id")
            alone = ("row", number)
            found.append(Held(tuple(made), alone if conversation is None else conversation, row.get("rated_at")))
    return found


def up_to(end_of_turn: int, span: Span) -> Span:
    """Without what a template writes after the end of turn: nobody generates that."""
    length = len(span.ids) - span.ids[::-1].index(end_of_turn)
    return Span(span.ids[:length], span.prompt_tokens)


def general(scored: Scored) -> Iterator[Held]:
    """Paragraphs that were written for this and stay as they are, read as text, not as anybody's answer."""
    for language in LANGUAGES:
        text = resources.files("trainer").joinpath("general", f"{language}.txt").read_text(encoding="utf-8")
        for paragraph in text.strip().split("\n\n")[: scored.recipe.gate.max_paragraphs]:
            ids = tuple(scored.tokenizer(paragraph)["input_ids"])[: scored.recipe.data.max_tokens]
            yield Held((Span(ids, 1),), language)


def questions(scored: Scored) -> Iterator[Asked]:
    """Corrected questions that were trained on, held-out ones, and controls; each prompt once."""
    most = scored.recipe.gate.max_generations
    corrected = [row for row in rows_of(scored.dataset, "answers", "train") if row["source"] == "correction"]
    yield from asked(scored, corrected, "taught", most)
    held_out = [row for task in TASKS for row in rows_of(scored.dataset, task, "held_out")]
    yield from asked(scored, held_out, "held_out", most)
    yield from (put(scored, suite.of_control(each), "control") for each in controls_of(scored.dataset))


def cases(scored: Scored) -> Iterator[Asked]:
    """Of the admin's suite first, then of the project's own; those that do not fit are left out."""
    for case in suite.chosen([*scored.cases, *suite.own()], scored.recipe.gate.max_cases):
        if len((made := put(scored, case, "case")).ids) <= scored.recipe.data.max_prompt_tokens:
            yield made


def put(scored: Scored, case: Case, kind: Kind) -> Asked:
    system = {"role": "system", "content": scored.recipe.system.text}
    messages = [system, *({"role": role, "content": content} for role, content in case.messages)]
    return Asked(kind, case.question, tuple(render_ids(scored.tokenizer, messages)), case=case)


def asked(scored: Scored, rows: Sequence[Mapping[str, Any]], kind: Kind, most: int) -> Iterator[Asked]:
    by_prompt: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        ids = tuple(render_ids(scored.tokenizer, row["prompt"]))
        if len(ids) <= scored.recipe.data.max_prompt_tokens:
            by_prompt.setdefault(ids, []).append(row)
    for ids, same in list(by_prompt.items())[:most]:
        wanted = dict.fromkeys(text for row in same if (text := approved(row)) is not None)
        is_corrected = any(row["source"] == "correction" for row in same)
        question, conversation = same[0]["prompt"][-1]["content"], same[0].get("conversation_id")
        yield Asked(kind, question, ids, tuple(wanted), is_corrected, conversation=conversation)


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
        both = logprobs(scorer, [side for pair in bench.pairs for side in pair.spans], progress)
        answers = logprobs(scorer, [each.spans[0] for each in bench.answers], progress)
        text = logprobs(scorer, [each.spans[0] for each in bench.general], progress)
        stop = [scored.tokenizer.decode([end_of_turn_id(scored.tokenizer)])]

        def generated(asked: Sequence[Asked], most: int) -> list[Said]:
            made = scorer.generate([each.ids for each in asked], max_tokens=most, stop=stop, progress=progress)
            return [Said(each.text, each.ended) for each in made]

        free = generated(bench.asked, most)
        told = generated(bench.cases, min(most, recipe.gate.max_case_tokens))
    return Seen(list(zip(both[::2], both[1::2], strict=True)), answers, text, free, told)


def logprobs(scorer: Scorer, given: Sequence[Span], progress: Callable[[str, int, int], None]) -> list[list[float]]:
    pairs = [(each.ids[: each.prompt_tokens], each.ids[each.prompt_tokens :]) for each in given]
    return scorer.completion_logprobs(pairs, progress=progress)
