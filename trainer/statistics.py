"""What a data set is like: lengths, languages, sources, weights, who said how much, whether longer answers win. Pure.

Length alone explains much of what implicit rewards vary by (2403.19159): where chosen answers are the longer ones, a
release learns to be long. It is measured here, and told, so that an admin can see it coming.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from trainer.feedback import SPLITS, TASKS, Example
from trainer.measures import script

LOOKED_AT = 300  # characters: they tell
LANGUAGES = {"cjk": "zh", "latin": "en", "other": "other", None: "mixed"}


def language(example: Example) -> str:
    """By the script of what it teaches: what is written in Han or kana counts as `zh`, in Latin letters as `en`."""
    return _language(example.teaches[:LOOKED_AT])


@lru_cache(maxsize=100_000)
def _language(text: str) -> str:
    return LANGUAGES[script(text)]


def languages(examples: Iterable[Example]) -> dict[str, int]:
    return dict(sorted(Counter(map(language, examples)).items()))


def length_bias(examples: Iterable[Example]) -> dict[str, Any]:
    """Of the pairs: in which the chosen answer is the longer one, and how many times as long it is, as the geometric
    mean. Empty where there are none."""
    lengths = [(len(each.answers[0]), len(each.answers[1])) for each in examples if each.task == "pairs"]
    if not lengths:
        return {}
    longer, shorter = (sum(sign * (chosen - rejected) > 0 for chosen, rejected in lengths) for sign in (1, -1))
    ratio = math.exp(fmean(math.log(chosen / rejected) for chosen, rejected in lengths))
    counts = {"pairs": len(lengths), "chosen_longer": longer, "chosen_shorter": shorter}
    return {**counts, "chosen_longer_share": round(longer / len(lengths), 4), "mean_ratio": round(ratio, 4)}


def describe(examples: Sequence[Example]) -> dict[str, Any]:
    """By task and split, where there is something."""
    groups = {(task, split): [each for each in examples if (each.task, each.split) == (task, split)]
              for task in TASKS for split in SPLITS}  # fmt: skip
    return {f"{task}/{split}": _described(each) for (task, split), each in groups.items() if each}


def _described(examples: Sequence[Example]) -> dict[str, Any]:
    said = Counter(rater_id for each in examples for rater_id in each.rater_ids)
    times = [each.rated_at.isoformat() for each in examples if each.rated_at is not None]
    weights = [each.weight for each in examples]
    return {
        "rows": len(examples),
        "prompt_characters": quantiles([sum(len(text) for _, text in each.prompt) for each in examples]),
        "answer_characters": quantiles([len(each.teaches) for each in examples]),
        "languages": languages(examples),
        "sources": dict(sorted(Counter(each.source for each in examples).items())),
        "labels": dict(sorted(Counter(str(each.label) for each in examples if each.label is not None).items())),
        "raters": {"count": len(said), "most": max(said.values(), default=0)},
        "weights": {"least": round(min(weights), 4), "mean": round(fmean(weights), 4), "sum": round(sum(weights), 1)},
        "rated_at": {"first": min(times), "last": max(times)} if times else {},
    }


def quantiles(values: Sequence[int]) -> dict[str, int]:
    ordered = sorted(values)
    return {
        name: ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]
        for name, share in (("median", 0.5), ("p90", 0.9), ("most", 1.0))
    }
