"""From what people said of answers to examples with their lineage, split and counted. Pure: no I/O, clock or dice.

    a correction            → a right answer, and the pair (correction over the answer it corrects)
    a pick                  → a pair
    👍 beside 👎, one message → a pair
    👍                      → a right answer, and a thumb that is up
    👎                      → a thumb that is down

Only what consenting people wrote is used: the rater's judgement and every author's words in the prompt. What people
disagree on is left out whole, for a model cannot learn both. Every row that is not used is counted under its reason.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from typing import Any, Literal

from storage.recipe import Data, Recipe, Stage
from storage.records import WHOLE, Answer, Comparison, Ended, Rating, Thumb

Task = Literal["answers", "pairs", "thumbs"]
Split = Literal["train", "held_out"]
Prompt = tuple[tuple[str, str], ...]  # (role, content), the system message first

TASKS: tuple[Task, ...] = ("answers", "pairs", "thumbs")
SPLITS: tuple[Split, ...] = ("train", "held_out")
TASK_OF: dict[Stage, Task] = {"sft": "answers", "dpo": "pairs", "orpo": "pairs", "kto": "thumbs"}
SOURCES = ("correction", "pick", "thumbs", "replay")  # strongest first: an example that has several is called after it


@dataclass(frozen=True)
class Exchange:
    """An answer, the exact messages it was given to, and everyone whose words are among them."""

    answer: Answer
    prompt: Prompt
    author_ids: frozenset[int]
    has_images: bool = False  # which the prompt does not hold: without them the answer would teach to invent


@dataclass(frozen=True)
class Feedback:
    """All that counts up to a watermark, as one snapshot of the database has it."""

    ratings: Sequence[Rating]
    comparisons: Sequence[Comparison]
    exchanges: Mapping[int, Exchange]  # by answer id
    consenting_ids: frozenset[int]


@dataclass(frozen=True)
class Example:
    """One row to learn from: `answers` is one text, or (chosen, rejected) in a pair; `label` is a thumb's."""

    task: Task
    prompt: Prompt
    answers: tuple[str, ...]
    source: str
    label: bool | None = None
    split: Split = "train"
    conversation_ids: frozenset[int] = frozenset()
    rater_ids: frozenset[int] = frozenset()
    rating_ids: frozenset[int] = frozenset()
    comparison_ids: frozenset[int] = frozenset()
    weight: float = 1.0  # how much it counts in training, in (0, 1]
    rated_at: datetime | None = None  # the earliest judgement behind it; None in what is replayed

    @property
    def conversation_id(self) -> int | None:
        """The earliest of its conversations."""
        return min(self.conversation_ids, default=None)

    @property
    def sha256(self) -> str:
        """Of the content alone: whoever said it, wherever, it is the same example."""
        return digest([self.task, self.prompt, self.answers, self.label])

    def row(self) -> dict[str, Any]:
        """As TRL reads it: conversational, with an explicit prompt."""
        said = [[{"role": "assistant", "content": text}] for text in self.answers]
        row: dict[str, Any] = {"prompt": [{"role": role, "content": content} for role, content in self.prompt]}
        if self.task == "pairs":
            return row | {"chosen": said[0], "rejected": said[1]}
        return row | {"completion": said[0]} | ({} if self.label is None else {"label": self.label})


@dataclass(frozen=True)
class Selection:
    """Examples in the order of their hash (so that no database's row order shows), and what became of every row."""

    examples: tuple[Example, ...]
    counts: Mapping[str, Any]

    def of(self, task: Task, split: Split) -> list[Example]:
        return [each for each in self.examples if (each.task, each.split) == (task, split)]

    @property
    def sha256(self) -> str:
        return digest([[each.split, each.source, each.sha256] for each in self.examples])


@dataclass
class _Dropped:
    """Counts what is left out while letting the rest pass."""

    reasons: Counter[str] = field(default_factory=Counter)

    def unless(self, fine: bool, reason: str) -> bool:
        if not fine:
            self.reasons[reason] += 1
        return fine


def digest(value: object) -> str:
    """sha256 over canonical JSON: ASCII, sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def select(feedback: Feedback, data: Data, seed: int) -> Selection:
    """Everything that can be learnt from the feedback, held-out examples marked. Equal feedback gives equal results."""
    dropped = _Dropped()
    usable = [each for each in feedback.ratings if _usable(each.answer_id, each.user_id, feedback, dropped)]
    ratings = _agreed(usable, feedback.exchanges, dropped)
    comparisons = [
        each
        for each in feedback.comparisons
        if _usable(each.left_answer_id, each.user_id, feedback, dropped)
        and _usable(each.right_answer_id, each.user_id, feedback, dropped)
    ]
    found = [
        *_from_ratings(ratings, feedback.exchanges, dropped),
        *_from_thumbs_on_one_message(ratings, feedback.exchanges, dropped),
        *_from_comparisons(comparisons, feedback.exchanges, dropped),
    ]
    undisputed = _undisputed(_fit_to_learn(found, dropped), dropped)
    unique = sorted(_merged(undisputed, dropped), key=lambda each: each.sha256)
    kept = _capped(unique, data.rater_cap_share, dropped)
    split = tuple(replace(each, split=_split(each, seed, data.held_out_share)) for each in kept)
    return Selection(split, _counts(feedback, split, dropped.reasons))


def with_replay(selection: Selection, rows: Iterable[tuple[Prompt, str]], share: float, seed: int) -> Selection:
    """General questions and answers mixed into the training answers until they are `share` of them.

    They keep what the base knew. Which ones are taken depends on the seed; none is taken twice, so a small pool gives
    a smaller share.
    """
    taught = selection.of("answers", "train")
    known = {each.sha256 for each in taught}
    pool = {each.sha256: each for prompt, text in rows if (each := Example("answers", prompt, (text,), "replay"))}
    ordered = sorted(pool.keys() - known, key=lambda sha: digest([seed, sha]))
    wanted = round(len(taught) * share / (1 - share))
    mixed = sorted([*selection.examples, *(pool[sha] for sha in ordered[:wanted])], key=lambda each: each.sha256)
    replayed = {"pool": len(pool), "wanted": wanted, "kept": min(wanted, len(ordered))}
    counts = {**selection.counts, "kept": _kept(mixed), "replay": replayed}
    return Selection(tuple(mixed), counts)


def choose_stages(selection: Selection, recipe: Recipe) -> tuple[Stage, ...]:
    """What to train, in order, by what there is to train on. Thumbs that all point one way teach no preference."""
    thumbs = selection.of("thumbs", "train")
    both_ways = len({each.label for each in thumbs}) == 2
    taught = [each for each in selection.of("answers", "train") if each.source != "replay"]
    return recipe.stages(
        answers=len(taught), pairs=len(selection.of("pairs", "train")), thumbs=len(thumbs) if both_ways else 0
    )


def is_held_out(conversation_id: int, seed: int, share: float) -> bool:
    """By a hash that is stable over machines, runs and growing data: a conversation never crosses over."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed}:{conversation_id}".encode()).digest()[:8], "big")
    return drawn < share * 2**64


def _split(example: Example, seed: int, share: float) -> Split:
    """Said in several conversations, it is held out only if all of them are: nothing is in both."""
    return "held_out" if all(is_held_out(each, seed, share) for each in example.conversation_ids) else "train"


def _usable(answer_id: int, user_id: int, feedback: Feedback, dropped: _Dropped) -> bool:
    exchange = feedback.exchanges.get(answer_id)
    if not dropped.unless(exchange is not None, "answer_unknown") or exchange is None:
        return False
    if not dropped.unless(not exchange.has_images, "images"):
        return False
    return dropped.unless({user_id, *exchange.author_ids} <= feedback.consenting_ids, "no_consent")


def _correction(rating: Rating, exchange: Exchange) -> str:
    """The right answer, if the rater wrote one that differs."""
    right = (rating.correction or "").strip()
    return "" if right == exchange.answer.text.strip() else right


def _agreed(ratings: Sequence[Rating], exchanges: Mapping[int, Exchange], dropped: _Dropped) -> list[Rating]:
    """Without the ratings of answers that some call good, and others bad or in need of correction."""
    verdicts: dict[tuple[Prompt, str], set[bool]] = defaultdict(set)

    def of(rating: Rating) -> set[bool]:
        exchange = exchanges[rating.answer_id]
        return verdicts[exchange.prompt, exchange.answer.text.strip()]

    for each in ratings:
        of(each).add(each.thumb is Thumb.UP and not _correction(each, exchanges[each.answer_id]))
    return [each for each in ratings if dropped.unless(len(of(each)) == 1, "disputed")]


def _from_ratings(ratings: Iterable[Rating], exchanges: Mapping[int, Exchange], dropped: _Dropped) -> Iterator[Example]:
    for rating in ratings:
        exchange = exchanges[rating.answer_id]
        ended, text = exchange.answer.ended, exchange.answer.text
        if right := _correction(rating, exchange):
            yield _rated("answers", exchange, (right,), "correction", [rating])  # whole, however the answer ended
            if dropped.unless(ended in WHOLE, "not_whole"):
                yield _rated("pairs", exchange, (right, text), "correction", [rating])
                yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=False)
        elif rating.thumb is Thumb.UP:
            if dropped.unless(ended is Ended.COMPLETE, "not_whole"):  # one cut off at its limit would teach not to end
                yield _rated("answers", exchange, (text,), "thumbs", [rating])
                yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=True)
        elif dropped.unless(ended in WHOLE, "not_whole"):
            yield _rated("thumbs", exchange, (text,), "thumbs", [rating], label=False)


def _from_thumbs_on_one_message(
    ratings: Iterable[Rating], exchanges: Mapping[int, Exchange], dropped: _Dropped
) -> Iterator[Example]:
    by_message: dict[int, dict[Thumb, list[Rating]]] = defaultdict(lambda: defaultdict(list))
    for rating in ratings:
        exchange = exchanges[rating.answer_id]
        if not _correction(rating, exchange):
            by_message[exchange.answer.message_id][rating.thumb].append(rating)
    for thumbs in by_message.values():
        for liked, disliked in product(thumbs[Thumb.UP], thumbs[Thumb.DOWN]):
            if liked.answer_id != disliked.answer_id:
                better, worse = exchanges[liked.answer_id], exchanges[disliked.answer_id]
                yield from _pair(better, worse, "thumbs", dropped, ratings=[liked, disliked])


def _from_comparisons(
    comparisons: Iterable[Comparison], exchanges: Mapping[int, Exchange], dropped: _Dropped
) -> Iterator[Example]:
    for comparison in comparisons:
        picked = comparison.chosen_and_rejected
        if dropped.unless(picked is not None, "tie") and picked is not None:
            better, worse = (exchanges[each] for each in picked)
            yield from _pair(better, worse, "pick", dropped, comparison=comparison)


def _pair(
    better: Exchange,
    worse: Exchange,
    source: str,
    dropped: _Dropped,
    *,
    ratings: Sequence[Rating] = (),
    comparison: Comparison | None = None,
) -> Iterator[Example]:
    whole = better.answer.ended is Ended.COMPLETE and worse.answer.ended in WHOLE
    if dropped.unless(whole, "not_whole") and dropped.unless(better.prompt == worse.prompt, "prompts_differ"):
        example = _rated("pairs", better, (better.answer.text, worse.answer.text), source, ratings)
        if comparison is not None:
            example = replace(
                example,
                rater_ids=frozenset({comparison.user_id}),
                comparison_ids=frozenset({comparison.id}),
                rated_at=comparison.picked_at,
            )
        yield example


def _rated(
    task: Task,
    exchange: Exchange,
    answers: tuple[str, ...],
    source: str,
    ratings: Sequence[Rating],
    *,
    label: bool | None = None,
) -> Example:
    return Example(
        task,
        exchange.prompt,
        tuple(text.strip() for text in answers),
        source,
        label,
        conversation_ids=frozenset({exchange.answer.conversation_id}),
        rater_ids=frozenset(each.user_id for each in ratings),
        rating_ids=frozenset(each.id for each in ratings),
        rated_at=_earliest(each.rated_at for each in ratings),
    )


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((each for each in times if each is not None), default=None)


def _fit_to_learn(examples: Iterable[Example], dropped: _Dropped) -> list[Example]:
    """Without blank texts, and without pairs whose two sides say the same."""
    return [
        each
        for each in examples
        if dropped.unless(all(text.strip() for text in (*(said for _, said in each.prompt), *each.answers)), "empty")
        and dropped.unless(len(set(each.answers)) == len(each.answers), "same_text")
    ]


def _undisputed(examples: Sequence[Example], dropped: _Dropped) -> list[Example]:
    """Without pairs that are there both ways round, and without right answers that are disliked elsewhere."""
    pairs = {(each.prompt, *each.answers) for each in examples if each.task == "pairs"}
    disliked = {(each.prompt, *each.answers) for each in examples if each.label is False}

    def disputed(each: Example) -> bool:
        if each.task == "pairs":
            return (each.prompt, *reversed(each.answers)) in pairs
        return each.task == "answers" and (each.prompt, *each.answers) in disliked

    return [each for each in examples if dropped.unless(not disputed(each), "disputed")]


def _merged(examples: Iterable[Example], dropped: _Dropped) -> list[Example]:
    """One example of each content, with everyone who said it."""
    unique: dict[str, Example] = {}
    for each in examples:
        known = unique.get(each.sha256)
        if dropped.unless(known is None, "duplicate") or known is None:
            unique[each.sha256] = each
        else:
            unique[each.sha256] = replace(
                known,
                source=min(known.source, each.source, key=SOURCES.index),
                conversation_ids=known.conversation_ids | each.conversation_ids,
                rater_ids=known.rater_ids | each.rater_ids,
                rating_ids=known.rating_ids | each.rating_ids,
                comparison_ids=known.comparison_ids | each.comparison_ids,
                rated_at=_earliest([known.rated_at, each.rated_at]),
            )
    return list(unique.values())


def _capped(examples: Sequence[Example], share: float, dropped: _Dropped) -> list[Example]:
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


def _counts(feedback: Feedback, examples: Sequence[Example], dropped: Mapping[str, int]) -> dict[str, Any]:
    return {
        "seen": {"ratings": len(feedback.ratings), "comparisons": len(feedback.comparisons)},
        "dropped": dict(sorted(dropped.items())),
        "kept": _kept(examples),
        "sources": dict(sorted(Counter(f"{each.task}/{each.source}" for each in examples).items())),
        "raters": _distinct(examples, lambda each: each.rater_ids),
        "conversations": _distinct(examples, lambda each: each.conversation_ids),
    }


def _kept(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    count = Counter((each.split, each.task) for each in examples)
    return {split: {task: count[split, task] for task in TASKS} for split in SPLITS}


def _distinct(examples: Iterable[Example], ids: Callable[[Example], frozenset[int]]) -> int:
    return len(frozenset().union(*map(ids, examples)))
