"""What SFT, DPO, KTO and ORPO each want of TRL: classes, arguments, columns; and the check of what it made of them.

This module does not know models, adapters, devices or folders.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from storage.recipe import BadRecipe, Complaint, Recipe, Stage, Train
from trainer.tokens import ANSWERS, Fit, Row, Span, TrainingFailed, render_text

STAGES: tuple[Stage, ...] = ("sft", "dpo", "kto", "orpo")


def classes(stage: Stage) -> tuple[Any, Any]:
    """TRL's config and trainer for a stage."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported
    import trl
    from trl.experimental import orpo

    return {
        "sft": (trl.SFTConfig, trl.SFTTrainer),
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "kto": (trl.KTOConfig, trl.KTOTrainer),
        "orpo": (orpo.ORPOConfig, orpo.ORPOTrainer),
    }[stage]


def arguments(recipe: Recipe, settings: Train, stage: Stage, rows: Sequence[Row]) -> dict[str, Any]:
    """The part of TRL's arguments that follows from the recipe. [trl] keys of other stages' configs are left out."""
    known = {each.name for each in dataclasses.fields(classes(stage)[0])}
    return {
        "seed": recipe.seed,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": settings.scheduler,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_steps": settings.save_steps,
        # Rows that are too long are out already. ORPO reads None as 512.
        "max_length": recipe.data.max_tokens if stage == "orpo" else None,
        **{name: value for name, value in recipe.trl.items() if name in known},
        **loss_arguments(recipe, settings, stage, rows),
    }


def loss_arguments(recipe: Recipe, settings: Train, stage: Stage, rows: Sequence[Row]) -> dict[str, Any]:
    if stage == "sft":
        return {"completion_only_loss": True}
    if stage == "kto":
        return {"beta": settings.beta} | balance(rows, recipe.trl)
    if stage == "orpo":  # its loss has an SFT term of weight 1 built in
        return {"beta": settings.beta, "remove_unused_columns": False}
    if not settings.sft_weight:
        return {"beta": settings.beta}
    given = recipe.trl.get("loss_type", "sigmoid")
    kinds = [given] if isinstance(given, str) else list(given)
    weights = [1.0] * len(kinds) + [settings.sft_weight]
    return {"beta": settings.beta, "loss_type": [*kinds, "sft"], "loss_weights": weights}


def balance(rows: Sequence[Row], given: Mapping[str, Any]) -> dict[str, float]:
    """Equal total weight for likes and dislikes, within the bounds of Eq. 8 of arXiv 2402.01306, unless it is given."""
    liked = sum(row["label"] for row in rows)
    disliked = len(rows) - liked
    if not (liked and disliked):
        raise TrainingFailed("one_sided_feedback", liked=liked, disliked=disliked)
    if "desirable_weight" in given or "undesirable_weight" in given:
        return {}
    return {"desirable_weight": max(1.0, disliked / liked), "undesirable_weight": max(1.0, liked / disliked)}


def check_pass_through(recipe: Recipe, peft_names: Iterable[str]) -> None:
    """Names in [peft] and [trl] that no installed library knows. Raises BadRecipe."""
    trl_names = {each.name for stage in STAGES for each in dataclasses.fields(classes(stage)[0])}
    unknown = [f"trl.{name}" for name in recipe.trl if name not in trl_names]
    unknown += [f"peft.{name}" for name in recipe.peft if name not in peft_names]
    if unknown:
        raise BadRecipe([Complaint(key, "unknown to the installed library", "correct or delete it") for key in unknown])


def ordered(rows: Sequence[Row], stage: Stage, seed: int) -> list[Row]:
    """KTO samples in order and pairs neighbours: its likes and dislikes are shuffled and spread evenly beforehand."""
    if stage != "kto":
        return list(rows)
    rng, placed = random.Random(seed), []
    for label in (True, False):
        group = [row for row in rows if row["label"] is label]
        rng.shuffle(group)
        placed += [((at + 0.5) / len(group), not label, row) for at, row in enumerate(group)]
    return [row for _, _, row in sorted(placed, key=lambda each: each[:2])]


def columns(tokenizer: Any, rows: Iterable[Row], stage: Stage) -> list[dict[str, Any]]:
    """What TRL reads of each row, and no more."""
    if stage == "orpo":
        return [orpo_texts(tokenizer, row) for row in rows]
    names = ("prompt", *ANSWERS[stage], *(["label"] if stage == "kto" else []))
    return [{name: row[name] for name in names} for row in rows]


def orpo_texts(tokenizer: Any, row: Row) -> dict[str, str]:
    """ORPO's trainer adds an eos token to what does not end with one, so whatever the template puts after it is cut."""
    prompt, eos = render_text(tokenizer, row["prompt"]), tokenizer.eos_token
    texts = {"prompt": prompt}
    for name in ANSWERS["orpo"]:
        whole = render_text(tokenizer, [*row["prompt"], *row[name]], answer_next=False)
        texts[name] = whole[len(prompt) : whole.rindex(eos) + len(eos)]
    return texts


def check_tokens(made_rows: Iterable[Mapping[str, Any]], fit: Fit, stage: Stage, end_of_turn: int) -> None:
    """What TRL made of each row is what will be served, prompt masked, end of turn trained. Raises TrainingFailed."""
    for index, (made, spans) in enumerate(zip(made_rows, fit.spans, strict=True)):
        wanted = [up_to(end_of_turn, span) for span in spans] if stage == "orpo" else spans
        if made_spans(made, stage) != wanted:
            raise TrainingFailed("tokens_differ", row=index, stage=stage)


def made_spans(made: Mapping[str, Any], stage: Stage) -> list[Span]:
    if stage == "sft":
        return [masked(made["input_ids"], made["labels"])]
    if stage == "orpo":
        return [masked(made[f"{name}_input_ids"], made[f"{name}_labels"]) for name in ANSWERS[stage]]
    answers = [made[f"{name}_ids"] for name in ANSWERS[stage]]
    return [Span((*made["prompt_ids"], *ids), len(made["prompt_ids"])) for ids in answers]


def masked(ids: Sequence[int], labels: Sequence[int]) -> Span:
    """-1 prompt tokens where some later token is masked too, which equals nothing that is wanted."""
    prompt_tokens = next((at for at, label in enumerate(labels) if label != -100), len(labels))
    rest_is_trained = list(labels[prompt_tokens:]) == list(ids[prompt_tokens:])
    return Span(tuple(ids), prompt_tokens if rest_is_trained else -1)


def up_to(end_of_turn: int, span: Span) -> Span:
    length = len(span.ids) - span.ids[::-1].index(end_of_turn)
    return Span(span.ids[:length], span.prompt_tokens)
