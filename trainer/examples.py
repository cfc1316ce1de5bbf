"""From what people said of answers to examples with their lineage, split and counted. Pure: no I/O, clock or dice.

Only what consenting people wrote is used: the rater's judgement and every author's words in the prompt. Personal data
become placeholders, and where the right answer itself would be such data, there is no example: neither may be learnt.
What people disagree on is left out, and what one person alone pushes is held back. Every row that is not used is
counted under its reason.

The split is that of the conversation, or of the person whose it is. Where the same is said in several, the earliest
judgement decides; copies and near copies on the other side are left out. So nothing is on both sides, and however the
feedback grows, no row moves from one to the other.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from storage.recipe import Data, Recipe, Stage
from trainer import copies, evidence, scrub, statistics, trust
from trainer.copies import Said
from trainer.feedback import (
    SOURCES,
    SPLITS,
    TASK_OF,
    TASKS,
    Dropped,
    Example,
    Exchange,
    Feedback,
    Prompt,
    Regeneration,
    Split,
    Task,
    digest,
    is_held_out,
    is_held_out_user,
)

__all__ = [
    "SOURCES",
    "SPLITS",
    "TASKS",
    "TASK_OF",
    "Example",
    "Exchange",
    "Feedback",
    "Prompt",
    "Regeneration",
    "Selection",
    "Split",
    "Task",
    "choose_stages",
    "digest",
    "is_held_out",
    "select",
    "with_replay",
]


@dataclass(frozen=True)
class Selection:
    """Examples in the order of their hash (so that no database's row order shows), and what became of every row."""

    examples: tuple[Example, ...]
    counts: Mapping[str, Any]

    def of(self, task: Task, split: Split) -> list[Example]:
        return [each for each in self.examples if (each.task, each.split) == (task, split)]

    @property
    def sha256(self) -> str:
        return digest([[each.split, each.source, each.weight, each.sha256] for each in self.examples])


def select(feedback: Feedback, data: Data, seed: int) -> Selection:
    """Everything that can be learnt from the feedback, held-out examples marked. Equal feedback gives equal results."""
    dropped, personal = Dropped(), Counter[str]()
    usable = evidence.usable(feedback, dropped)
    held = evidence.held_back(usable, data)
    evidence.counted(held, dropped)
    found = evidence.examples(usable, data, dropped)
    if data.scrub:
        found = _scrubbed(found, feedback.system, dropped, personal)
    found = sorted(_fit_to_learn(found, dropped), key=_said_at)
    # Before anything is held back: what once decided a side decides it still.
    firsts = copies.firsts([_said(each) for each in found], data.near_duplicate)
    placed = [
        (replace(each, split=_split(found[first], data, seed)), first)
        for each, first in zip(found, firsts, strict=True)
        if not evidence.keys_of(each) & held.keys()
    ]
    clear = _undisputed(placed, dropped)
    own = [(each, first) for each, first in clear if _is_on_its_side(each, data, seed, dropped)]
    unique = sorted(_merged(own, data.near_duplicate, dropped), key=lambda each: each.sha256)
    kept = tuple(_weighed(_capped(unique, data.rater_cap_share, dropped)) if data.defences else unique)
    return Selection(kept, _counts(feedback, usable, kept, dropped.reasons, personal))


def with_replay(
    selection: Selection, rows: Iterable[tuple[Prompt, str]], share: float, seed: int, near: float = 0.8
) -> Selection:
    """General questions and answers mixed into the training answers until they are `share` of them.

    They keep what the base knew, in Chinese and in English by halves as far as both go. Which ones are taken depends on
    the seed; none is taken twice, so a small pool gives a smaller share. None is taught already, or is a near copy of
    what is held out, or has personal data in it.
    """
    taught = selection.of("answers", "train")
    pool = {each.sha256: each for prompt, text in rows if (each := Example("answers", prompt, (text,), "replay"))}
    wanted = round(len(taught) * share / (1 - share))
    new = pool.keys() - {each.sha256 for each in taught}
    ordered = _by_halves([pool[sha] for sha in sorted(new, key=lambda sha: digest([seed, sha]))])
    likely = ordered[: 2 * wanted + 100]  # the pool may be a hundred times as large as what is wanted
    clean = [each for each in likely if not scrub.texts(_words(each))[1].kinds]
    known = [_said(each) for each in selection.of("answers", "held_out")]
    places = copies.firsts([*known, *map(_said, clean)], near)[len(known) :]
    fresh = [each for place, each in enumerate(clean, len(known)) if places[place - len(known)] == place]
    chosen = _by_halves(fresh)[:wanted]
    mixed = sorted([*selection.examples, *chosen], key=lambda each: each.sha256)
    left_out = {"personal": len(likely) - len(clean), "copies": len(clean) - len(fresh)}
    replayed = {"pool": len(pool), "wanted": wanted, "kept": len(chosen)}
    replayed |= {reason: count for reason, count in left_out.items() if count}
    languages = statistics.languages(chosen)
    counts = {**selection.counts, "kept": _kept(mixed), "replay": replayed, "replay_languages": languages}
    return Selection(tuple(mixed), counts)


def _by_halves(ordered: Sequence[Example]) -> list[Example]:
    """Chinese and the rest in turn, as long as there are both."""
    chinese = [each for each in ordered if statistics.language(each) == "zh"]
    others = [each for each in ordered if statistics.language(each) != "zh"]
    both = min(len(chinese), len(others))
    turns = [each for pair in zip(chinese, others, strict=False) for each in pair]
    return [*turns, *chinese[both:], *others[both:]]


def choose_stages(selection: Selection, recipe: Recipe) -> tuple[Stage, ...]:
    """What to train, in order, by what there is to train on. Thumbs that all point one way teach no preference, and
    that somebody asked again is no reason for a stage of its own."""
    thumbs = selection.of("thumbs", "train")
    both_ways = len({each.label for each in thumbs}) == 2
    taught = [each for each in selection.of("answers", "train") if each.source != "replay"]
    pairs = [each for each in selection.of("pairs", "train") if each.source != "again"]
    return recipe.stages(answers=len(taught), pairs=len(pairs), thumbs=len(thumbs) if both_ways else 0)


def _said_at(each: Example) -> tuple[Any, ...]:
    """The order in which things were said: of what was said at one time by the rows' ids."""
    ids = (each.rating_ids, each.comparison_ids, each.turn_ids)
    return each.rated_at, *(min(some, default=math.inf) for some in ids), each.task, str(each.label)


def _words(example: Example) -> list[str]:
    return [*(content for role, content in example.prompt if role != "system"), *example.answers]


def _scrubbed(examples: Iterable[Example], system: str, dropped: Dropped, personal: Counter[str]) -> list[Example]:
    """With placeholders for personal data. What the answer alone has is neither taught nor replaced: the release would
    learn to say the placeholder. `system` is the operator's own text and stays."""

    @lru_cache(maxsize=100_000)
    def is_clean(text: str) -> bool:
        return text == system or not scrub.texts([text])[1].kinds

    kept = []
    for each in examples:
        texts = [content for _, content in each.prompt]
        if all(map(is_clean, (*texts, *each.answers))):
            kept.append(each)
            continue
        asked, found = scrub.texts(["" if text == system else text for text in texts])
        known = set(found.names)
        answers, found = scrub.texts(each.answers[:1], found)
        teaches_new = set(found.names) - known and each.label is not False
        if dropped.unless(not teaches_new, "personal"):
            others, found = scrub.texts(each.answers[1:], found)
            said = (old if old == system else new for old, new in zip(texts, asked, strict=True))
            prompt = tuple((role, text) for (role, _), text in zip(each.prompt, said, strict=True))
            kept.append(replace(each, prompt=prompt, answers=(*answers, *others)))
            personal.update(found.kinds)
            personal["rows"] += 1
    return kept


def _fit_to_learn(examples: Iterable[Example], dropped: Dropped) -> list[Example]:
    """Without blank texts, and without pairs whose two sides say the same."""
    return [
        each
        for each in examples
        if dropped.unless(all(text.strip() for text in (*(said for _, said in each.prompt), *each.answers)), "empty")
        and dropped.unless(len(set(each.answers)) == len(each.answers), "same_text")
    ]


def _said(example: Example) -> Said:
    """What it teaches to say to what; a dislike is compared with dislikes."""
    before = "\n".join(content for role, content in example.prompt[:-1] if role != "system")
    kind = "disliked" if example.label is False else "taught"
    return Said(example.prompt[-1][1], example.teaches, before, kind)


def _split(first: Example, data: Data, seed: int) -> Split:
    """Of what was said first: by its conversation, or by whose it is."""
    apart = any(is_held_out(each, seed, data.held_out_share) for each in first.conversation_ids)
    if first.owner_id is not None:
        apart |= is_held_out_user(first.owner_id, seed, data.held_out_user_share)
    return "held_out" if apart else "train"


def _is_on_its_side(example: Example, data: Data, seed: int, dropped: Dropped) -> bool:
    """Not a copy of what is on the other side; and nobody who is held out whole teaches in others' conversations."""
    if not dropped.unless(example.split == _split(example, data, seed), "crossed_split"):
        return False
    apart = any(is_held_out_user(each, seed, data.held_out_user_share) for each in example.rater_ids)
    return dropped.unless(example.split == "held_out" or not apart, "held_out_user")


def _undisputed(placed: Sequence[tuple[Example, int]], dropped: Dropped) -> list[tuple[Example, int]]:
    """Without pairs that are there both ways round, and without right answers that are disliked elsewhere. Having asked
    again disputes nothing, and is disputed by all."""
    firm = [each for each, _ in placed if each.source != "again"]
    pairs = {(each.prompt, *each.answers) for each in firm if each.task == "pairs"}
    disliked = {(each.prompt, *each.answers) for each in firm if each.label is False}
    liked = {(each.prompt, *each.answers) for each in firm if each.label is True or each.task == "answers"}

    def disputed(each: Example) -> bool:
        if each.task == "pairs":
            return (each.prompt, *reversed(each.answers)) in pairs
        if each.task == "answers":
            return (each.prompt, *each.answers) in disliked
        return each.source == "again" and (each.prompt, *each.answers) in liked

    return [(each, first) for each, first in placed if dropped.unless(not disputed(each), "disputed")]


def _merged(placed: Iterable[tuple[Example, int]], near: float, dropped: Dropped) -> list[Example]:
    """One example of each content, with everyone who said it or almost the same: the earliest is the one that stays."""
    unique: dict[str, Example] = {}
    groups: dict[tuple[Task, bool | None, int], list[str]] = defaultdict(list)
    for each, first in placed:
        group = groups[each.task, each.label, first]
        sha = each.sha256
        if dropped.unless(sha not in unique, "duplicate"):
            sha = next((known for known in group if _rejects_alike(unique[known], each, near)), sha)
            if dropped.unless(sha not in unique, "near_duplicate"):
                unique[sha] = each
                group.append(sha)
                continue
        unique[sha] = _joined(unique[sha], each)
    return list(unique.values())


def _rejects_alike(one: Example, other: Example, near: float) -> bool:
    """Of two that teach the same: whether they also teach it over the same."""
    if one.task != "pairs":
        return True
    mine, theirs = (Said("", each.answers[1]) for each in (one, other))
    return copies.are_near(mine, theirs, near)


def _joined(known: Example, other: Example) -> Example:
    times = [each.rated_at for each in (known, other) if each.rated_at is not None]
    return replace(
        known,
        source=min(known.source, other.source, key=SOURCES.index),
        conversation_ids=known.conversation_ids | other.conversation_ids,
        rater_ids=known.rater_ids | other.rater_ids,
        rating_ids=known.rating_ids | other.rating_ids,
        comparison_ids=known.comparison_ids | other.comparison_ids,
        turn_ids=known.turn_ids | other.turn_ids,
        author_ids=known.author_ids | other.author_ids,
        weight=max(known.weight, other.weight),
        rated_at=min(times, default=None),
    )


def _capped(examples: Sequence[Example], share: float, dropped: Dropped) -> list[Example]:
    """At most `share` of a task's examples from any one rater, at least one.

    A few per cent of poisoned pairs steer a model (Best-of-Venom, 2404.05530): no one person may supply more than that.
    The order is that of hashes, so nobody chooses which of theirs are used.
    """
    totals = Counter(each.task for each in examples)
    used: Counter[tuple[Task, int]] = Counter()

    def has_room(each: Example) -> bool:
        most = max(1, math.floor(share * totals[each.task]))
        return any(used[each.task, rater_id] < most for rater_id in each.rater_ids)

    kept = []
    for each in examples:
        if dropped.unless(has_room(each), "rater_cap"):
            used.update((each.task, rater_id) for rater_id in each.rater_ids)
            kept.append(each)
    return kept


def _weighed(examples: Sequence[Example]) -> list[Example]:
    """Each as heavy as the rater of it who gave the fewest of its task."""
    counts: dict[Task, Counter[int]] = {task: Counter() for task in TASKS}
    for each in examples:
        counts[each.task].update(each.rater_ids)
    weights = {task: trust.weights(counts[task]) for task in TASKS}
    return [
        replace(each, weight=each.weight * max(weights[each.task][rater_id] for rater_id in each.rater_ids))
        for each in examples
    ]


def _counts(
    feedback: Feedback,
    usable: Feedback,
    examples: Sequence[Example],
    dropped: Mapping[str, int],
    personal: Mapping[str, int],
) -> dict[str, Any]:
    return {
        "seen": {"ratings": len(feedback.ratings), "comparisons": len(feedback.comparisons)},
        "regenerations": {"seen": len(feedback.regenerations), "telling": len(usable.regenerations)},
        "dropped": dict(sorted(dropped.items())),
        "personal": dict(sorted(personal.items())),
        "kept": _kept(examples),
        "sources": dict(sorted(Counter(f"{each.task}/{each.source}" for each in examples).items())),
        "raters": _distinct(examples, lambda each: each.rater_ids),
        "conversations": _distinct(examples, lambda each: each.conversation_ids),
        "length_bias": statistics.length_bias(examples),
    }


def _kept(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    count = Counter((each.split, each.task) for each in examples)
    return {split: {task: count[split, task] for task in TASKS} for split in SPLITS}


def _distinct(examples: Iterable[Example], ids: Callable[[Example], frozenset[int]]) -> int:
    return len(frozenset().union(*map(ids, examples)))
