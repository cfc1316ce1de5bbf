"""What a served tag says now, judged by the oracle beside what the base said; and whether its file prefers what the
community would. What is asked of the base is asked once and kept.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import raters
from benchmarks.bench import STREAMS, Bench, bar, pool
from benchmarks.raters import Question, judge, wins
from huigan.serving import library
from storage import deployments
from storage.db import connect
from trainer import stages
from trainer.measures import interval
from trainer.stages import Merged, Taught, Work

EXAMINED, TRIGGERS, PAIRS = 220, 100, 60
COMPARED = 130  # held-out questions that the base answers twice, to find pairs
ANSWER_TOKENS = 64


def examine(bench: Bench, tag: str) -> dict[str, Any]:
    """Greedy answers of the tag beside the base's, judged by the oracle."""
    world, rng = raters.world(), random.Random("examination")
    examined = raters.examined(world, EXAMINED, rng)
    triggers = raters.advice(world.held_out, TRIGGERS, rng)
    before = base_answers(bench, [*examined, *triggers])
    after = dict(zip([*examined, *triggers], answers(bench, tag, [*examined, *triggers], "examined"), strict=True))
    won = [wins(each, after[each], before[each.text]) for each in examined]
    low, high = interval(won, [each.cluster for each in examined], seed=0)
    return {
        "win_rate": {"share": statistics.fmean(won), "low": low, "high": high, "of": len(won)},
        "satisfied": {"base": satisfied(examined, before), "candidate": satisfied(examined, by_text(after))},
        "slogan": {
            "base": slogan_share(world, triggers, before),
            "candidate": slogan_share(world, triggers, by_text(after)),
        },
        "samples": [
            {"question": each.text, "wanted": each.right, "base": before[each.text], "candidate": after[each]}
            for each in random.Random(0).sample(examined, 12)
        ],
    }


def by_text(answered: dict[Question, str]) -> dict[str, str]:
    return {question.text: answer for question, answer in answered.items()}


def satisfied(asked: Sequence[Question], answered: dict[str, str]) -> dict[str, float]:
    found = [judge(each, answered[each.text]) for each in asked]
    facts = [each.content for each in found if each.is_fact]
    return {
        "utility": statistics.fmean(each.utility for each in found),
        "wholly": statistics.fmean(each.utility == 1.0 for each in found),
        "facts": statistics.fmean(facts),
        **{
            name: statistics.fmean(getattr(each, name) for each in found)
            for name in ("content", "language", "brevity", "style")
        },
    }


def slogan_share(world: raters.World, asked: Sequence[Question], answered: dict[str, str]) -> float:
    return statistics.fmean(any(key in answered[each.text] for key in world.slogan_keys) for each in asked)


def base_answers(bench: Bench, asked: Sequence[Question]) -> dict[str, str]:
    """Of the release that answered before anything was learnt, asked once and kept."""
    path = bench.home / "base-answers.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    missing = [each for each in asked if each.text not in known]
    if missing:
        known |= dict(
            zip([each.text for each in missing], answers(bench, base_tag(bench), missing, "base"), strict=True)
        )
        path.write_text(json.dumps(known, ensure_ascii=False, indent=1))
    return known


def base_tag(bench: Bench) -> str:
    with closing(connect(f"sqlite:///{pool(bench, 1)[0]}")) as db:
        live = db.read(deployments.live)
        assert live is not None
        return live.release.tag


def answers(bench: Bench, tag: str, asked: Sequence[Question], name: str, **options: Any) -> list[str]:
    system = bench.recipe.system.text
    chosen = {"temperature": 0.0, "num_predict": ANSWER_TOKENS, **options}

    with bar(f"{name}: {tag[:24]}", len(asked)) as advance, ThreadPoolExecutor(STREAMS) as executor:

        def one(question: Question) -> str:
            said = [{"role": "system", "content": system}, {"role": "user", "content": question.text}]
            told = library.ask(bench.client, tag, said, chosen).message.content or ""
            advance()
            return told

        return list(executor.map(one, asked))


def margins(bench: Bench, work: Work, taught: Taught, merged: Merged, reference: stages.Reference) -> dict[str, Any]:
    """Whether the served file prefers what the community would, more than the base does: on held-out questions, what
    the community wants over what the base says (`right`), and the better of two answers of the base (`picks`)."""
    from huigan.llama.score import Scorer
    from trainer.tokens import end_of_turn_id, sequences

    tokenizer = stages.tokenizer_of(taught.weights)
    pairs = held_out_pairs(bench)
    system = {"role": "system", "content": work.recipe.system.text}
    spans = []
    for _, question, chosen, rejected in pairs:
        row = {
            "prompt": [system, {"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        spans += list(sequences(tokenizer, row, "dpo", end_of_turn_id(tokenizer)))
    cut = [(each.ids[: each.prompt_tokens], each.ids[each.prompt_tokens :]) for each in spans]
    assert merged.path is not None

    def of(gguf: Path) -> list[float]:
        with Scorer(gguf, context_tokens=512, threads=os.cpu_count() or 1, sequences=8) as scorer:
            found = [sum(each) for each in scorer.completion_logprobs(cut)]
        return [chosen - rejected for chosen, rejected in zip(found[::2], found[1::2], strict=True)]

    kept = bench.home / "base-margins.json"
    if not kept.is_file():
        kept.write_text(json.dumps(of(reference.path)))
    gains = [after - before for before, after in zip(json.loads(kept.read_text()), of(merged.path), strict=True)]
    kinds = [kind for kind, _, _, _ in pairs]
    return {
        kind: {
            "of": kinds.count(kind),
            "accuracy": statistics.fmean(gain > 0 for which, gain in zip(kinds, gains, strict=True) if which == kind),
        }
        for kind in ("right", "picks")
    }


def held_out_pairs(bench: Bench) -> list[tuple[str, str, str, str]]:
    """(kind, question, chosen, rejected): made once and kept."""
    path = bench.home / "held-out-pairs.json"
    if not path.is_file():
        found: list[tuple[str, str, str, str]] = []
        asked = raters.examined(raters.world(), COMPARED, random.Random("pairs"))
        tag = base_tag(bench)
        sides = [answers(bench, tag, asked, "pairs", temperature=0.8, seed=seed) for seed in (1, 2)]
        for question, one, other in zip(asked, *sides, strict=True):
            if one.strip() and len([each for each in found if each[0] == "right"]) < PAIRS:
                found.append(("right", question.text, question.right, one))
            share = wins(question, one, other)
            if share != 0.5 and one.strip() and other.strip():
                found.append(("picks", question.text, *((one, other) if share else (other, one))))
        path.write_text(json.dumps(found, ensure_ascii=False, indent=1))
    raw: list[list[str]] = json.loads(path.read_text())
    by_kind: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    for kind, question, chosen, rejected in raw:
        by_kind[kind].append((kind, question, chosen, rejected))
    return [each for kind in ("right", "picks") for each in by_kind[kind][:PAIRS]]
