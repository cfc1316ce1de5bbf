"""From what two files said and weighed to a scorecard. Pure: it knows no files, no llama.cpp and no bars.

Everything is paired: the same text, the same question, both files. Where a difference has an interval it is drawn by
conversation, for what was said in one is not independent.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from storage.recipe import Recipe
from trainer import measures, suite
from trainer.scorecard import (
    MIN_PAIRS,
    Endings,
    Free,
    General,
    Judged,
    Kept,
    Lacking,
    Perplexity,
    Preferences,
    Recall,
    Sample,
    Scorecard,
)
from trainer.suite import Case
from trainer.tokens import Span

Kind = Literal["taught", "held_out", "control", "case"]
What = Literal["live", "base"]

# Two quantisations of nearly the same weights differ by about this much a token.
NOISE_NATS_A_TOKEN = 0.01
MIN_LENGTHS = 3
SAMPLES = 24
NEWEST_SHARE = 0.25


@dataclass(frozen=True)
class Said:
    """One free answer, and how it ended: `stop` or `length`."""

    text: str
    ended: str


@dataclass(frozen=True)
class Held:
    """A text, or (chosen, rejected), to be weighed; `conversation` is the cluster it counts in."""

    spans: tuple[Span, ...]
    conversation: Hashable
    rated_at: str | None = None


@dataclass(frozen=True)
class Asked:
    """A question put to both files. `wanted` are corrections or approved answers to it."""

    kind: Kind
    question: str
    ids: tuple[int, ...]
    wanted: tuple[str, ...] = ()
    corrected: bool = False
    case: Case | None = None
    conversation: Hashable = None


@dataclass(frozen=True)
class Bench:
    """Everything that both files are put to."""

    pairs: list[Held] = field(default_factory=list)
    answers: list[Held] = field(default_factory=list)
    general: list[Held] = field(default_factory=list)  # `conversation` is the language
    asked: list[Asked] = field(default_factory=list)
    cases: list[Asked] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """What one file did: log-probabilities of the tokens of each pair, answer and paragraph, and its free answers."""

    pairs: list[tuple[list[float], list[float]]] = field(default_factory=list)
    answers: list[list[float]] = field(default_factory=list)
    general: list[list[float]] = field(default_factory=list)
    free: list[Said] = field(default_factory=list)
    cases: list[Said] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        sides = (side for pair in self.pairs for side in pair)
        return all(math.isfinite(each) for side in (*sides, *self.answers, *self.general) for each in side)


def card(
    recipe: Recipe, bench: Bench, live: Seen, candidate: Seen, compared_with: What, judged: Judged | None = None
) -> Scorecard:
    if not candidate.finite:
        return Scorecard(finite=False, compared_with=compared_with, quantisation=recipe.quantisation)
    gains = pair_gains(bench, live, candidate) if bench.pairs and live.finite else []
    weighed = bool(bench.answers) and live.finite
    found = Scorecard(
        compared_with=compared_with,
        quantisation=recipe.quantisation,
        preferences=preferences(gains, recipe.seed) if gains else None,
        newest=newest(gains, recipe.seed),
        perplexity=perplexity(bench, live, candidate, recipe.seed) if weighed else None,
        general=tuple(general(bench, live, candidate, recipe.seed)) if live.finite else (),
        endings=endings(bench, live, candidate, recipe.seed) if weighed else None,
        recall=recall(bench, live, candidate, "taught", recipe.seed),
        held_out_recall=recall(bench, live, candidate, "held_out", recipe.seed),
        free=free_answers(bench, live, candidate),
        suite=tuple(kept(bench, live, candidate)),
        judged=judged,
        samples=tuple(samples(bench, live, candidate)),
    )
    return replace(found, lacking=tuple(lacking(found, judged_by=recipe.judge.tag)))


@dataclass(frozen=True)
class Gain:
    """Of one pair: how many nats the candidate's margin is above the live file's, and what is noise there."""

    nats: float
    noise: float
    conversation: Hashable
    rated_at: str | None = None

    @property
    def point(self) -> float:
        return 1.0 if self.nats > self.noise else 0.5 if self.nats >= -self.noise else 0.0


def pair_gains(bench: Bench, live: Seen, candidate: Seen) -> list[Gain]:
    found = []
    for held, before, after in zip(bench.pairs, live.pairs, candidate.pairs, strict=True):
        nats = (sum(after[0]) - sum(after[1])) - (sum(before[0]) - sum(before[1]))
        noise = NOISE_NATS_A_TOKEN * (len(after[0]) + len(after[1]))
        found.append(Gain(nats, noise, held.conversation, held.rated_at))
    return found


def preferences(gains: Sequence[Gain], seed: int, since: str = "") -> Preferences:
    nats, points = [each.nats for each in gains], [each.point for each in gains]
    conversations = [each.conversation for each in gains]
    low, high = measures.interval(nats, conversations, seed)
    accuracy_low, accuracy_high = measures.interval(points, conversations, seed)
    return Preferences(
        len(gains),
        fmean(points),
        fmean(nats),
        low,
        high,
        NOISE_NATS_A_TOKEN,
        len(set(conversations)),
        accuracy_low,
        accuracy_high,
        tuple(round(each, 3) for each in nats),
        since,
    )


def newest(gains: Sequence[Gain], seed: int) -> Preferences | None:
    """The quarter that was rated last, alone: what people want now may not be what they wanted. None where that would
    be too few pairs to look at, or most of them."""
    rated = sorted((each for each in gains if each.rated_at), key=lambda each: str(each.rated_at))
    size = max(MIN_PAIRS, math.ceil(NEWEST_SHARE * len(rated)))
    return preferences(rated[-size:], seed, str(rated[-size].rated_at)) if len(rated) >= 2 * size else None


def perplexity(bench: Bench, live: Seen, candidate: Seen, seed: int) -> Perplexity:
    return Perplexity(*surprise(bench.answers, live.answers, candidate.answers, seed))


def general(bench: Bench, live: Seen, candidate: Seen, seed: int) -> Iterator[General]:
    """A language at a time: one may be forgotten while the other gets better."""
    for language in dict.fromkeys(each.conversation for each in bench.general):
        places = [at for at, each in enumerate(bench.general) if each.conversation == language]
        paragraphs = [replace(bench.general[at], conversation=at) for at in places]
        before, after = ([seen.general[at] for at in places] for seen in (live, candidate))
        yield General(*surprise(paragraphs, before, after, seed), str(language))


def surprise(
    held: Sequence[Held], live: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], seed: int
) -> tuple[int, int, float, float, float, float]:
    """(texts, tokens, both perplexities, the interval of their ratio)."""
    tokens = [len(each) for each in live]
    losses = [sum(before) - sum(after) for before, after in zip(live, candidate, strict=True)]
    low, high = measures.interval(losses, [each.conversation for each in held], seed, tokens)

    def of(texts: Sequence[Sequence[float]]) -> float:
        return math.exp(-fmean([each for text in texts for each in text]))

    return len(held), sum(tokens), of(live), of(candidate), math.exp(low), math.exp(high)


def endings(bench: Bench, live: Seen, candidate: Seen, seed: int) -> Endings:
    """An answer is weighed up to its end of turn, so that is its last token."""
    before, after = ([answer[-1] for answer in seen.answers] for seen in (live, candidate))
    conversations = [each.conversation for each in bench.answers]
    low, high = measures.interval([b - a for a, b in zip(before, after, strict=True)], conversations, seed)
    return Endings(len(before), len(set(conversations)), fmean(before), fmean(after), low, high)


def recall(bench: Bench, live: Seen, candidate: Seen, kind: Kind, seed: int) -> Recall | None:
    chosen = [at for at, each in enumerate(bench.asked) if each.kind == kind and each.corrected]
    if not chosen:
        return None

    def right(seen: Seen) -> list[float]:
        return [
            float(any(measures.recalls(seen.free[at].text, want) for want in bench.asked[at].wanted)) for at in chosen
        ]

    def closeness(seen: Seen) -> float:
        return fmean(max(measures.chrf(seen.free[at].text, want) for want in bench.asked[at].wanted) for at in chosen)

    before, after = right(live), right(candidate)
    conversations = [conversation_of(bench.asked[at], at) for at in chosen]
    low, high = measures.interval([b - a for a, b in zip(before, after, strict=True)], conversations, seed)
    return Recall(
        len(chosen),
        fmean(before),
        fmean(after),
        closeness(live),
        closeness(candidate),
        low,
        high,
        len(set(conversations)),
    )


def conversation_of(asked: Asked, at: int) -> Hashable:
    return ("question", at) if asked.conversation is None else asked.conversation


def free_answers(bench: Bench, live: Seen, candidate: Seen) -> Free | None:
    if not bench.asked:
        return None
    told = list(zip(bench.asked, live.free, candidate.free, strict=True))
    matches = [match for each in told if (match := in_the_askers_script(*each)) is not None]
    lives = [match for each, live, _ in told if (match := in_the_askers_script(each, live, live)) is not None]
    lengths = [pair for each in told if (pair := comparable_lengths(*each)) is not None]
    return Free(
        len(told),
        stop_share(candidate.free),
        fmean(measures.loops(each.text) for each in candidate.free),
        fmean(matches) if matches else None,
        measures.drift(*zip(*lengths, strict=True)) if len(lengths) >= MIN_LENGTHS else None,
        stop_share(live.free),
        fmean(measures.loops(each.text) for each in live.free),
        fmean(lives) if lives else None,
    )


def stop_share(answers: Sequence[Said]) -> float:
    return fmean(each.ended == "stop" for each in answers)


def in_the_askers_script(question: Asked, live: Said, candidate: Said) -> bool | None:
    """None where it is not clear in which script to answer, or what the answer is written in."""
    trusted = question.wanted[:1] or ((live.text,) if question.case and is_right(question, live) else ())
    expected = (measures.script(trusted[0]) if trusted else None) or measures.script(question.question)
    if expected is None or not candidate.text.strip():
        return None if expected is None else False
    given = measures.script(candidate.text)
    return None if given is None else given == expected


def is_right(asked: Asked, said: Said) -> bool:
    return asked.case is not None and suite.is_right(asked.case, said.text, said.ended)


def comparable_lengths(question: Asked, live: Said, candidate: Said) -> tuple[int, int] | None:
    """(the candidate's length, the length wanted) in words: of an approved answer, else of a live one that ended."""
    if question.wanted:
        return len(measures.words(candidate.text)), len(measures.words(question.wanted[0]))
    if live.ended != "stop":
        return None
    return len(measures.words(candidate.text)), len(measures.words(live.text))


def of_suite(bench: Bench, live: Seen, candidate: Seen) -> Iterator[tuple[Asked, Case, Said, Said]]:
    """Every case with both answers: the recipe's controls, which are read as far as feedback is, and the suite."""
    for asked, seen, made in ((bench.asked, live.free, candidate.free), (bench.cases, live.cases, candidate.cases)):
        for each, before, after in zip(asked, seen, made, strict=True):
            if each.case is not None:
                yield each, each.case, before, after


def kept(bench: Bench, live: Seen, candidate: Seen) -> Iterator[Kept]:
    told: dict[str, list[tuple[bool, bool]]] = {}
    for each, case, before, after in of_suite(bench, live, candidate):
        told.setdefault(case.kind, []).append((is_right(each, before), is_right(each, after)))
    for kind in suite.KINDS:
        if found := told.get(kind):
            lost = sum(before and not after for before, after in found)
            yield Kept(kind, len(found), sum(each[0] for each in found), sum(each[1] for each in found), lost)


def samples(bench: Bench, live: Seen, candidate: Seen) -> Iterator[Sample]:
    """What was lost first, then some of each kind."""
    left = dict.fromkeys(("taught", "held_out", "control", "lost"), SAMPLES // 3)
    for each, case, before, after in of_suite(bench, live, candidate):
        if is_right(each, before) and not is_right(each, after) and left["lost"]:
            left["lost"] -= 1
            yield Sample("lost", asked_whole(case), before.text, after.text, next(iter(case.keys), None), case.kind)
    for each, before, after in zip(bench.asked, live.free, candidate.free, strict=True):
        if each.kind != "case" and left[each.kind]:
            left[each.kind] -= 1
            wanted = each.wanted[0] if each.wanted else next(iter(each.case.keys), None) if each.case else None
            yield Sample(each.kind, each.question, before.text, after.text, wanted)


def asked_whole(case: Case) -> str:
    return "\n".join(content for _, content in case.messages)


def lacking(found: Scorecard, judged_by: str | None) -> Iterator[Lacking]:
    missing: dict[Lacking, object] = {
        "pairs": found.preferences,
        "answers": found.perplexity,
        "corrections": found.recall,
        "cases": found.suite or None,
        "clear_languages": found.free and found.free.language_match,
        "comparable_lengths": found.free and found.free.length_drift,
        "judge": found.judged if judged_by else True,
    }
    return (name for name, value in missing.items() if value is None)
