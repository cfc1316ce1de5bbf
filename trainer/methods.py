"""What SFT, DPO, KTO and ORPO each want of TRL: classes, arguments, columns; and the check of what it made of them.

This module does not know models, adapters, devices or folders.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from storage.recipe import BadRecipe, Complaint, Recipe, Stage, Train
from trainer import weighing
from trainer.speed import Speed
from trainer.tokens import ANSWERS, Fit, Row, Span, TrainingFailed, render_text

STAGES: tuple[Stage, ...] = ("sft", "dpo", "kto", "orpo")
# Of [trl] loss_type; other names are DPO's.
LOSSES = {"sft": ("nll", "dft", "chunked_nll"), "kto": ("kto", "apo_zero_unpaired")}
# With fewer beside it, what KTO takes for the divergence from its reference is chance.
FEWEST_NEIGHBOURS = 4


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


def arguments(recipe: Recipe, settings: Train, stage: Stage, fit: Fit, speed: Speed) -> dict[str, Any]:
    """The part of TRL's arguments that follows from the recipe. [trl] keys of other stages' configs are left out."""
    known = {each.name for each in dataclasses.fields(classes(stage)[0])}
    passed = {name: value for name, value in recipe.trl.items() if name in known and name != "loss_type"}
    # Rows that are too long are out already. ORPO reads None as 512.
    longest = recipe.data.max_tokens if stage == "orpo" or speed.packing else None
    in_turn = {"num_train_epochs": 1, "train_sampling_strategy": "sequential"} if fit.in_turn else {}
    return {
        "seed": recipe.seed,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch,
        "per_device_eval_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": settings.scheduler,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "save_steps": settings.save_steps,
        "max_length": longest,
        **passed,
        **in_turn,
        **speed.arguments(stage),
        **loss_arguments(recipe, settings, stage, fit.rows),
    }


def loss_arguments(recipe: Recipe, settings: Train, stage: Stage, rows: Sequence[Row]) -> dict[str, Any]:
    if stage == "sft":
        given = losses_of(recipe, stage)
        return {"completion_only_loss": True} | ({"loss_type": given[0]} if given else {})
    if stage == "kto":
        loss = next(iter(losses_of(recipe, stage)), kto_loss(settings))
        return {"beta": settings.beta, "loss_type": loss} | balance(rows, recipe.trl)
    if stage == "orpo":  # its loss has an SFT term of weight 1 built in
        return {"beta": settings.beta, "remove_unused_columns": False}
    return {"beta": settings.beta} | dpo_arguments(recipe, settings)


def dpo_arguments(recipe: Recipe, settings: Train) -> dict[str, Any]:
    told: dict[str, Any] = {"label_smoothing": settings.label_smoothing} if settings.label_smoothing else {}
    if settings.ld_alpha is not None:
        told["ld_alpha"] = settings.ld_alpha
    kinds = losses_of(recipe, "dpo") or [settings.dpo_loss]
    if not settings.sft_weight:
        return told | {"loss_type": kinds}
    return told | {"loss_type": [*kinds, "sft"], "loss_weights": [1.0] * len(kinds) + [settings.sft_weight]}


def losses_of(recipe: Recipe, stage: Stage) -> list[str]:
    """Those of [trl] loss_type that are this stage's."""
    given = recipe.trl.get("loss_type", [])
    names = [given] if isinstance(given, str) else list(given)
    others = {name for each in LOSSES.values() for name in each}
    return [name for name in names if name in LOSSES.get(stage, ()) or (stage == "dpo" and name not in others)]


def kto_loss(settings: Train) -> str:
    """`auto`: KTO's own where a batch is large enough to compare within, else the variant that compares with nothing
    (APO-zero for rows without partners, arXiv 2408.06266)."""
    if settings.kto_loss != "auto":
        return settings.kto_loss
    return "kto" if settings.batch >= FEWEST_NEIGHBOURS else "apo_zero_unpaired"


def settled(settings: Train, stage: Stage) -> Train:
    """What stays as it is when a batch is halved."""
    return dataclasses.replace(settings, kto_loss=kto_loss(settings)) if stage == "kto" else settings  # type: ignore[arg-type]


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
    return [rows[at] for at in weighing.spread(list(range(len(rows))), lambda at: bool(rows[at]["label"]), seed)]


def arranged(fit: Fit, recipe: Recipe, stage: Stage) -> Fit:
    """Every epoch's rows, one after the other, as `trainer.weighing` has them: where some row weighs less than 1, and
    where the recipe asks for batches of rows of one length. Elsewhere the fit as it is, and TRL shuffles it."""
    settings, seed = recipe.training(stage), recipe.seed
    # TRL's own sampler knows the lengths of SFT's rows alone, and no weights. KTO's likes and dislikes stay spread.
    is_grouped = stage != "kto" and settings.group_by_length
    if not is_grouped and not weighing.are_weighed(fit.rows):
        return fit

    def arrange(places: list[int], epoch: int) -> list[int]:
        if stage == "kto":
            return weighing.spread(places, lambda at: bool(fit.rows[at]["label"]), seed + epoch)
        return weighing.shuffled(places, seed + epoch)

    order = weighing.in_turn(fit.rows, settings, arrange)
    if is_grouped:
        lengths = [max(len(span.ids) for span in spans) for spans in fit.spans]
        order = weighing.grouped(order, lengths, settings.batch, len(fit.rows), seed)
    rows, spans = [fit.rows[at] for at in order], [fit.spans[at] for at in order]
    return dataclasses.replace(fit, rows=rows, spans=spans, in_turn=True, examples=len(fit.rows))


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


def unpacked(made_rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows that lie in packed ones, by the lengths that TRL notes."""
    for made in made_rows:
        begin = 0
        for length in made["seq_lengths"]:
            yield {name: made[name][begin : begin + length] for name in ("input_ids", "labels")}
            begin += length


def check_packed(packed: Iterable[Mapping[str, Any]], fit: Fit, stage: Stage) -> None:
    """The same of rows that TRL has put together in an order of its own."""
    made = Counter(span for row in unpacked(packed) for span in made_spans(row, stage))
    if made != Counter(span for spans in fit.spans for span in spans):
        raise TrainingFailed("tokens_differ", row=None, stage=stage)


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
