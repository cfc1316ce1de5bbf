"""Which of a recipe's ways to train make no sense together. Pure; knows neither libraries nor what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from storage.complaints import Complaint

if TYPE_CHECKING:
    from storage.recipe import Recipe, Train

# Of peft's initialisations: those that leave the base alone, and those that take from it what they start with, which
# are converted to plain LoRA. The others need a pass over data before training.
PLAIN_INITS = ("gaussian", "orthogonal")
TAKING_INITS = ("olora", "pissa")
SMOOTHED = ("aot", "aot_unpaired", "exo_pair", "robust")
LENGTH_NORMALISED = ("ipo", "sigmoid_norm")


def of_training(recipe: Recipe) -> Iterator[Complaint]:
    """Of every stage that this recipe may come to, each complaint under the table that it came from."""
    yield from of_adapter(recipe)
    seen: set[Complaint] = set()
    stages = {"sft": ("sft",), "dpo": ("preference",), "kto": ("preference",), "orpo": ("preference",)}
    tables = stages.get(recipe.method, ("sft", "preference"))
    for name in tables:
        given = recipe.sft if name == "sft" else recipe.preference
        if "tune" in given and given["tune"] != recipe.train.tune:
            yield Complaint(f"{name}.tune", "differs from [train] tune", "set it in [train] alone")
        settings = recipe.training("sft" if name == "sft" else "dpo")
        for each in (*of_stage(recipe, settings), *(of_preference(recipe, settings) if name != "sft" else ())):
            key = f"{name}.{each.key}" if each.key in given else f"train.{each.key}"
            found = Complaint(key, each.problem, each.fix)
            if found not in seen:
                seen.add(found)
                yield found


def of_adapter(recipe: Recipe) -> Iterator[Complaint]:
    """Of [peft], which every stage shares."""
    init, peft = recipe.peft.get("init_lora_weights", True), recipe.peft
    if not (isinstance(init, bool) or is_plain(init) or takes_from_base(init)):
        known = "true, gaussian, orthogonal, pissa, pissa_niter_N, olora or loftq"
        yield Complaint("peft.init_lora_weights", f"is {init!r}, which is not supported", f"give {known}")
    if takes_from_base(init) and peft.get("use_dora"):
        yield Complaint("peft.use_dora", f"scales what {init} has taken from the base", "leave one of both out")
    if takes_from_base(init) and recipe.start == "continue":
        yield Complaint("peft.init_lora_weights", "starts an adapter, and one is continued", "leave it out")


def of_stage(recipe: Recipe, settings: Train) -> Iterator[Complaint]:
    """Keys are those of [train]."""
    if settings.load_in_4bit is True and settings.load_in_8bit:
        yield Complaint("load_in_8bit", "is on, and load_in_4bit is too", "choose one")
    yield from of_weights(settings, recipe.peft) if settings.tune != "lora" else of_lora(settings, recipe.peft)
    if settings.packing is True and settings.padding_free is False:
        yield Complaint("padding_free", "is off, and packed rows are read without padding", "leave it out")


def of_weights(settings: Train, peft: Mapping[str, Any]) -> Iterator[Complaint]:
    """Where weights of the base itself are trained."""
    if settings.load_in_4bit is True or settings.load_in_8bit:
        key = "load_in_8bit" if settings.load_in_8bit else "load_in_4bit"
        yield Complaint(key, f'cannot be trained by tune = "{settings.tune}"', 'leave it out, or set tune = "lora"')
    if peft:
        yield Complaint("tune", f'is "{settings.tune}", which has no adapter', 'delete [peft], or set tune = "lora"')
    if settings.loraplus_ratio is not None:
        yield Complaint("loraplus_ratio", "is for an adapter's B", 'leave it out, or set tune = "lora"')


def of_lora(settings: Train, peft: Mapping[str, Any]) -> Iterator[Complaint]:
    init = peft.get("init_lora_weights", True)
    if settings.optimizer.startswith("galore"):
        yield Complaint(
            "optimizer",
            "projects gradients of whole matrices, and an adapter has none",
            'set tune = "full" or "freeze"',
        )
    if init == "loftq" and (settings.load_in_4bit is False or settings.load_in_8bit):
        yield Complaint("load_in_4bit", "is off, and LoftQ makes up for what 4 bits lose", "set it to true")
    if takes_from_base(init) and init != "loftq" and (settings.load_in_4bit is True or settings.load_in_8bit):
        key = "load_in_8bit" if settings.load_in_8bit else "load_in_4bit"
        yield Complaint(key, f"cannot be given what {init} takes from the base", "set it to false, or use loftq")


def of_preference(recipe: Recipe, settings: Train) -> Iterator[Complaint]:
    pairs, thumbs = recipe.method in ("auto", "dpo"), recipe.method in ("auto", "kto")
    if settings.dpo_loss != "sigmoid" and not pairs:
        yield Complaint("dpo_loss", f"does nothing for the method {recipe.method}", "leave it out")
    if settings.kto_loss != "auto" and not thumbs:
        yield Complaint("kto_loss", f"does nothing for the method {recipe.method}", "leave it out")
    if "loss_type" in recipe.trl and (settings.dpo_loss != "sigmoid" or settings.kto_loss != "auto"):
        key = "dpo_loss" if settings.dpo_loss != "sigmoid" else "kto_loss"
        yield Complaint(key, "is given, and [trl] loss_type too", "delete one of both")
    if (
        settings.dpo_loss in ("exo_pair", "robust")
        and not settings.label_smoothing
        and "label_smoothing" not in recipe.trl
    ):
        yield Complaint(
            "label_smoothing", f"is 0, and {settings.dpo_loss} needs to know how many picks are wrong", "give 0.1"
        )
    if settings.label_smoothing and settings.dpo_loss not in SMOOTHED and "loss_type" not in recipe.trl:
        yield Complaint("label_smoothing", f"does nothing for {settings.dpo_loss}", 'set dpo_loss = "robust"')
    if settings.ld_alpha is not None and settings.dpo_loss in LENGTH_NORMALISED:
        yield Complaint("ld_alpha", f"is given, and {settings.dpo_loss} divides by the length already", "leave one out")
    if settings.ld_alpha is not None and not pairs:
        yield Complaint("ld_alpha", f"does nothing for the method {recipe.method}", "leave it out")
    if settings.kto_loss == "kto" and thumbs and settings.batch < 2:
        yield Complaint(
            "batch",
            "is 1, and KTO compares each row with its neighbour",
            'give 4, or set kto_loss = "apo_zero_unpaired"',
        )


def is_plain(init: object) -> bool:
    return isinstance(init, bool) or init in PLAIN_INITS


def takes_from_base(init: object) -> bool:
    """Whether training starts from a base from which the adapter's own beginning was taken."""
    return isinstance(init, str) and (init in (*TAKING_INITS, "loftq") or init.startswith("pissa_niter_"))
