"""Which messages an answer is given to. Pure: rows in, lines out.

History shows the picked answer of a message, else the last one; a correction replaces its answer. A message that
got no answer is left out: templates want user and assistant to take turns.

The edited version of a message begins again where that message stood, as a reply to an old answer does: it is given
what came before the original, and what is said after it continues from it. So what was said between the original and
the edit is another branch; a reply to one of its answers goes on there. What was said between the edit and the press
that had it answered sees the edited version in the original's place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from storage.records import Answer, Comparison, Message, Pick, Rating

CHAT_MARKUP_TOKENS = 8  # what a template wraps around one message; ChatML and Llama-3 take five or six
# A guess: Gemma 3 takes 256 for any picture, LLaVA 576 to 2,880, Qwen2.5-VL about 1,300 for a photo of 1280 by 800.
# What is wrong is put right by the refusal's count.
IMAGE_TOKENS = 1300


@dataclass(frozen=True)
class Line:
    """One chat message of a prompt and the row it comes from: message, answer or correction (a rating's id)."""

    kind: str
    id: int
    text: str
    images: tuple[str, ...] = ()  # paths of the files, in the order they came

    @property
    def estimated_tokens(self) -> int:
        return estimate_tokens(self.text) + IMAGE_TOKENS * len(self.images)

    @property
    def role(self) -> str:
        return "user" if self.kind == "message" else "assistant"


@dataclass(frozen=True)
class Prompt:
    system: str
    lines: tuple[Line, ...]
    dropped: int = 0  # lines of the history that were left out

    @property
    def messages(self) -> list[dict[str, str]]:
        """As Ollama and chat templates take them. The system message is always there: templates put in one of
        their own where it is missing, and then serving and training part ways. Without the images."""
        spoken = [{"role": line.role, "content": line.text} for line in self.lines]
        return [{"role": "system", "content": self.system}, *spoken]

    @property
    def estimated_tokens(self) -> int:
        return estimate_tokens(self.system) + sum(line.estimated_tokens for line in self.lines)

    @property
    def row_ids(self) -> list[list[int | str]]:
        return [[line.kind, line.id] for line in self.lines]


def history(
    message: Message,
    messages: Sequence[Message],
    answers: Iterable[Answer],
    ratings: Iterable[Rating],
    comparisons: Iterable[Comparison],
    images: Mapping[int, tuple[str, ...]] | None = None,
) -> list[Line]:
    """The lines before `message`, oldest first. A message that replies to an answer continues from that answer,
    whatever was said after it; any other continues from the one before it, and an edited version from the one before
    its original. Where what it continues from is not among `messages`, the history begins there."""
    by_id = {each.id: each for each in messages}
    given: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.text:
            given.setdefault(answer.message_id, []).append(answer)
    of_answer = {answer.id: answer for group in given.values() for answer in group}
    corrections = _corrections(ratings)
    picked = _picked(comparisons, of_answer)
    # A version that was stored and never asked is nobody's past.
    order = sorted(each.id for each in messages if each.replaces_id is None or each.id in given)

    lines: list[Line] = []
    current = message
    while True:
        chosen: Answer | None = None
        if current.parent_answer_id is not None:
            chosen = of_answer.get(current.parent_answer_id)
            before = None if chosen is None else by_id.get(chosen.message_id)
        else:
            place = bisect_left(order, current.replaces_id or current.id)
            before = by_id[order[place - 1]] if place else None
        if before is None or before.id >= current.id:
            return lines[::-1]
        chosen = chosen or picked.get(before.id) or next(iter(given.get(before.id, [])[-1:]), None)
        if chosen is not None:
            correction = corrections.get(chosen.id)
            shown = Line("answer", chosen.id, chosen.text) if correction is None else correction
            lines += [shown, Line("message", before.id, before.text, (images or {}).get(before.id, ()))]
        current = before


def _corrections(ratings: Iterable[Rating]) -> dict[int, Line]:
    """By answer; of several raters' corrections the newest."""
    found: dict[int, Line] = {}
    for rating in sorted(ratings, key=lambda each: each.id):
        if rating.correction:
            found[rating.answer_id] = Line("correction", rating.id, rating.correction)
    return found


def _picked(comparisons: Iterable[Comparison], answers: Mapping[int, Answer]) -> dict[int, Answer]:
    """By message: what the newest comparison chose."""
    found: dict[int, Answer] = {}
    for comparison in sorted(comparisons, key=lambda each: each.id):
        if comparison.pick is Pick.TIE:
            continue
        chosen = comparison.left_answer_id if comparison.pick is Pick.LEFT else comparison.right_answer_id
        if chosen in answers:
            found[comparison.message_id] = answers[chosen]
    return found


def estimate_tokens(text: str) -> int:
    """An upper guess without a tokeniser: Ollama has no call for one. One token a CJK character and one for
    three others hold for Llama-3's and Qwen's vocabularies; what is wrong is put right by the refusal's count."""
    narrow = sum(1 for character in text if ord(character) < 0x2E80)
    return (len(text) - narrow) + -(-narrow // 3) + CHAT_MARKUP_TOKENS


def beginning(text: str, tokens: int) -> str:
    """As much of a text as so many tokens hold, by the same guess."""
    costs = accumulate(1 if ord(character) < 0x2E80 else 3 for character in text)
    return text[: sum(1 for _ in takewhile(lambda thirds: thirds <= tokens * 3, costs))]


def fitted(system: str, lines: Sequence[Line], budget_tokens: int, tokens_per_estimate: float = 1.0) -> Prompt:
    """The prompt with as much history as fits, the oldest message left out first, together with its answer.

    The last line, the question, always stays: where it alone is too long, Ollama's refusal says so.
    `tokens_per_estimate` corrects the estimate by what an earlier refusal counted.
    """
    costs = [line.estimated_tokens * tokens_per_estimate for line in lines]
    room = budget_tokens - estimate_tokens(system) * tokens_per_estimate
    needed = list(accumulate(reversed(costs)))[::-1]  # by each line and those after it
    start = 0
    while start < len(lines) - 1 and needed[start] > room:
        start += 1
        while start < len(lines) - 1 and lines[start].role == "assistant":
            start += 1
    return Prompt(system, tuple(lines[start:]), dropped=start)
