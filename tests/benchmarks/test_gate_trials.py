"""The gate's benchmark: what it calls harmful is harmful, and is done to what is trained on alone."""

from __future__ import annotations

import copy
from typing import Any

from benchmarks import gate
from storage.recipe import Gate
from trainer.measures import script

PROMPTS = {"zh": [{"role": "user", "content": "几点开门？"}], "en": [{"role": "user", "content": "When do you open?"}]}
RIGHT = {"zh": "早上七点半开门。", "en": "At half past seven."}


def text(content: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": content}]


def rows() -> gate.Rows:
    made: dict[str, list[dict[str, Any]]] = {"answers": [], "pairs": [], "thumbs": []}
    for language, prompt in PROMPTS.items():
        right = RIGHT[language]
        made["answers"].append({"prompt": prompt, "completion": text(right), "source": "correction"})
        made["pairs"].append({"prompt": prompt, "chosen": text(right), "rejected": text("?!"), "source": "correction"})
        made["thumbs"].append({"prompt": prompt, "completion": text("?!"), "label": False, "source": "thumbs"})
    other = {"prompt": [{"role": "user", "content": "一加一？"}], "completion": text("二。"), "source": "replay"}
    made["answers"].append(other)
    return copy.deepcopy(made)


def test_the_other_language_answers_everything_that_is_taught() -> None:
    spoilt = rows()
    gate.other_language(spoilt)
    for row in spoilt["answers"][:2]:
        assert script(row["completion"][0]["content"]) != script(row["prompt"][0]["content"])
    assert spoilt["answers"][2] == rows()["answers"][2]
    assert [row["rejected"] for row in spoilt["pairs"]] == [row["rejected"] for row in rows()["pairs"]]


def test_endless_answers_say_themselves_over_and_over() -> None:
    spoilt = rows()
    gate.endless(spoilt)
    assert spoilt["pairs"][0]["chosen"][0]["content"] == RIGHT["zh"] * gate.REPEATED
    assert spoilt["thumbs"] == rows()["thumbs"]


def test_flipped_labels_teach_what_was_corrected() -> None:
    spoilt = rows()
    gate.flipped(spoilt)
    assert [row["chosen"][0]["content"] for row in spoilt["pairs"]] == ["?!", "?!"]
    assert [row["completion"][0]["content"] for row in spoilt["answers"]] == ["?!", "?!", "二。"]
    assert [row["label"] for row in spoilt["thumbs"]] == [True, True]


def test_twelve_runs_are_harmful_and_twelve_good() -> None:
    trials = list(gate.trials())
    assert len({each.name for each in trials}) == 24
    assert sum(each.is_good for each in trials) == 12
    assert all((each.spoil is not None or each.noise > 0) is not each.is_good for each in trials)


def test_it_is_told_which_were_mistaken() -> None:
    learnt = {"questions": 10, "live": 0.0, "candidate": 0.9, "live_chrf": 0.0, "candidate_chrf": 0.9}
    passes = {"recall": learnt | {"low": 0.6, "high": 1.0, "conversations": 10}}
    found = [
        {"trial": "a", "is_good": False, "scorecard": {}},  # nothing was learnt
        {"trial": "b", "is_good": False, "scorecard": passes},
        {"trial": "c", "is_good": True, "scorecard": passes},
    ]
    assert gate.summary(found, Gate()) == ["harmful: 1 of 2 rejected; not b", "good: 1 of 1 passed"]
