"""Conversations → token ids, by the one renderer the served template must equal; and which rows are fit to train on.

A row is what TRL calls conversational: `prompt` and `completion`, or `prompt`, `chosen` and `rejected`, or `prompt`,
`completion` and `label`, each of the first four a list of `{role, content}`. The prompt opens with an explicit system
message, for templates insert one of their own where it is missing. This module does not know torch, models or losses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from storage.recipe import Data, Stage

Message = Mapping[str, str]
Row = Mapping[str, Any]

ANSWERS: dict[Stage, tuple[str, ...]] = {
    "sft": ("completion",),
    "dpo": ("chosen", "rejected"),
    "kto": ("completion",),
    "orpo": ("chosen", "rejected"),
}
# Padding with the end-of-turn token is how a model unlearns to stop: anything else the vocabulary offers comes first.
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>", "<unk>")


class TrainingFailed(Exception):
    """The run cannot go on. `code` says why, `params` the particulars; the rim has the words."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(f"{code} {params}" if params else code)
        self.code, self.params = code, params


@dataclass(frozen=True)
class Span:
    """One sequence: all its token ids, and how many of the first are prompt (given, not trained)."""

    ids: tuple[int, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Fit:
    """The rows that can be trained on whole, in order, their sequences, and how many were left out for which reason.

    `in_turn`: the rows of every epoch, one after the other, some of them several times; `examples` counts them once.
    """

    rows: list[Row] = field(default_factory=list)
    spans: list[list[Span]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    in_turn: bool = False
    examples: int = 0


def render_ids(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool = True) -> list[int]:
    """The ids the model sees. With `answer_next` the last thing rendered is the opening of the assistant's turn."""
    text = render_text(tokenizer, messages, answer_next=answer_next)
    # The template writes the BOS token itself where the model has one: letting the tokenizer add another doubles it.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_text(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool = True) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_next))


def end_of_turn_id(tokenizer: Any) -> int:
    """The token that closes an assistant's turn in this template. Raises TrainingFailed where there is none."""
    talk = [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    ids = render_ids(tokenizer, talk, answer_next=False)
    last = next(each for each in reversed(ids) if tokenizer.decode([each]).strip())
    if last not in control_ids(tokenizer):
        raise TrainingFailed("no_end_of_turn", last=tokenizer.decode([last]))
    return last


def control_ids(tokenizer: Any) -> set[int]:
    added = {each for each, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def choose_pad_token(tokenizer: Any) -> None:
    """Sets a padding token that ends no turn, if the vocabulary has one to spare; adds none."""
    taken = {tokenizer.eos_token_id, tokenizer.bos_token_id, end_of_turn_id(tokenizer)}
    vocabulary = tokenizer.get_vocab()
    candidates = [tokenizer.pad_token, *PAD_CANDIDATES, tokenizer.unk_token, tokenizer.eos_token]
    spare = [each for each in candidates if each in vocabulary and vocabulary[each] not in taken]
    tokenizer.pad_token = spare[0] if spare else tokenizer.eos_token


def fitting(tokenizer: Any, rows: Sequence[Row], stage: Stage, limits: Data, *, may_be_empty: bool = False) -> Fit:
    """Rows are kept whole or left out, never cut: a cut answer teaches not to stop. Raises TrainingFailed on a row of
    another shape: that is a bug of whoever built the data set, not bad feedback."""
    fit, end_of_turn, controls = Fit(), end_of_turn_id(tokenizer), control_ids(tokenizer)
    control_texts = [tokenizer.decode([each]) for each in sorted(controls)]
    for index, row in enumerate(rows):
        check_shape(row, stage, index)
        if any(text in message["content"] for message in messages_of(row, stage) for text in control_texts if text):
            fit.skipped["control_tokens"] += 1
            continue
        spans = list(sequences(tokenizer, row, stage, end_of_turn))
        if any(span.prompt_tokens > limits.max_prompt_tokens or len(span.ids) > limits.max_tokens for span in spans):
            fit.skipped["too_long"] += 1
            continue
        fit.rows.append(row)
        fit.spans.append(spans)
    if not fit.rows and not may_be_empty:
        raise TrainingFailed("no_examples", stage=stage, skipped=dict(fit.skipped))
    return replace(fit, examples=len(fit.rows))


def check_shape(row: Row, stage: Stage, index: int) -> None:
    try:
        well_formed = (
            row["prompt"][0]["role"] == "system"
            and row["prompt"][-1]["role"] == "user"
            and all(message["content"].strip() for message in messages_of(row, stage))
            and all(len(row[name]) == 1 and row[name][0]["role"] == "assistant" for name in ANSWERS[stage])
            and (stage != "kto" or isinstance(row["label"], bool))
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TrainingFailed("bad_row", row=index, stage=stage) from error
    if not well_formed:
        raise TrainingFailed("bad_row", row=index, stage=stage)


def messages_of(row: Row, stage: Stage) -> Iterator[Message]:
    for name in ("prompt", *ANSWERS[stage]):
        yield from row[name]


def sequences(tokenizer: Any, row: Row, stage: Stage, end_of_turn: int) -> Iterator[Span]:
    """What must be trained on, one span an answer: the prompt as it is served, then the answer and its end of turn."""
    prompt = render_ids(tokenizer, row["prompt"])
    for name in ANSWERS[stage]:
        ids = render_ids(tokenizer, [*row["prompt"], *row[name]], answer_next=False)
        if ids[: len(prompt)] != prompt or end_of_turn not in ids[len(prompt) :]:
            raise TrainingFailed("template_not_a_prefix", prompt=tokenizer.decode(prompt[-8:]))
        yield Span(tuple(ids), len(prompt))
