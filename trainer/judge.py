"""A judge model, where the recipe names one: which of the two files' answers is better, asked in both orders.

Judges flip almost every other decision when the sides are swapped, so only what both orders agree on counts. Whatever
fails here, an Ollama that is away or a judge that says something else, says nothing of any candidate, and the time it
may take is bounded. It knows Ollama's client and no bars.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage.recipe import Judge
from trainer import measures
from trainer.findings import Asked, Bench, Said, Seen, conversation_of
from trainer.scorecard import Judged

log = logging.getLogger(__name__)

Side = Literal["one", "other", "tie"]
Outcome = Literal["candidate", "live", "tie", "swayed", "failed", "unasked"]

PROMPT = """\
You compare two answers to the same question. Prefer the one that is right, helpful, and in the language of the \
question; longer is not better.
你要比较同一个问题的两个回答：选更正确、更有帮助、并且与提问语言一致的那个；不是越长越好。

Question 问题：
{question}

Answer A 回答 A：
{one}

Answer B 回答 B：
{other}

Reply with one letter only 只回答一个字母：A, B, or T if they are equally good 一样好则答 T."""
PLACES = re.compile(r"\{(question|one|other)\}")
THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
LETTER = re.compile(r"(?<![A-Za-z])([ABT])(?![A-Za-z'’])")
SIDES: dict[str, Side] = {"A": "one", "B": "other", "T": "tie"}
ANSWER_TOKENS = 1024  # some judges think before they say a letter
FAILURES = 3  # in a row: then it is not asked any more


@dataclass(frozen=True)
class Decided:
    conversation: object
    outcome: Outcome


def judge(
    client: Ollama,
    settings: Judge,
    bench: Bench,
    live: Seen,
    candidate: Seen,
    seed: int,
    tell: Callable[[str, int, int], None],
) -> Judged:
    """`settings.tag` is given."""
    assert settings.tag is not None
    asked = [
        (conversation_of(each, at), each, before, after)
        for at, (each, before, after) in enumerate(zip(bench.asked, live.free, candidate.free, strict=True))
        if each.kind == "held_out"
    ][: settings.max_questions]
    until, failures, decided = time.monotonic() + settings.max_seconds, 0, list[Decided]()
    for number, (conversation, question, before, after) in enumerate(asked):
        tell("judge", number, len(asked))
        if failures >= FAILURES or time.monotonic() >= until:
            decided.append(Decided(conversation, "unasked"))
            continue
        outcome = compared(client, settings, question, before, after, until)
        failures = failures + 1 if outcome == "failed" else 0
        decided.append(Decided(conversation, outcome))
    return counted(settings.tag, decided, seed)


def compared(client: Ollama, settings: Judge, question: Asked, live: Said, candidate: Said, until: float) -> Outcome:
    if live.text.strip() == candidate.text.strip():
        return "tie"
    try:
        first = picked(client, settings, question, live.text, candidate.text, until)
        second = picked(client, settings, question, candidate.text, live.text, until)
    except ServingError as error:
        log.warning("the judge %s could not be asked: %s", settings.tag, error)
        return "failed"
    return agreed(first, second)


def agreed(live_first: Side | None, candidate_first: Side | None) -> Outcome:
    """What both orders say together."""
    if live_first is None or candidate_first is None:
        return "failed"
    if live_first == candidate_first == "tie":
        return "tie"
    if (live_first, candidate_first) == ("other", "one"):
        return "candidate"
    if (live_first, candidate_first) == ("one", "other"):
        return "live"
    return "swayed"


def picked(client: Ollama, settings: Judge, question: Asked, one: str, other: str, until: float) -> Side | None:
    """Raises ServingError, also once the time is over."""
    assert settings.tag is not None
    given = {"question": question.question, "one": one.strip() or "–", "other": other.strip() or "–"}
    # At once: what people wrote may hold a name in braces, too.
    said = PLACES.sub(lambda place: given[place[1]], settings.prompt or PROMPT)
    options = {"temperature": 0.0, "num_predict": ANSWER_TOKENS}
    with Ollama(client.host, timeout_seconds=max(1.0, until - time.monotonic())) as patient:
        told = library.ask(patient, settings.tag, [{"role": "user", "content": said}], options)
    return side_of(told.message.content or "")


def side_of(said: str) -> Side | None:
    """The only letter it names, thinking aside; None where it names several, or none."""
    letters = set(LETTER.findall(THOUGHT.sub("", said)))
    return SIDES[letters.pop()] if len(letters) == 1 else None


def counted(tag: str, decided: Sequence[Decided], seed: int) -> Judged:
    def of(outcome: Outcome) -> int:
        return sum(each.outcome == outcome for each in decided)

    clear = [each for each in decided if each.outcome in ("candidate", "live")]
    conversations = [each.conversation for each in clear]
    wins = [float(each.outcome == "candidate") for each in clear]
    low, high = measures.interval(wins, conversations, seed) if clear else (0.0, 1.0)
    return Judged(
        tag,
        len(decided),
        of("candidate"),
        of("live"),
        of("tie"),
        of("swayed"),
        of("failed"),
        of("unasked"),
        low,
        high,
        len(set(conversations)),
    )
