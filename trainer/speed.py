"""Which of the ways to train faster are taken: FlashAttention-2, Liger's kernels, batches without padding, packed rows.

`auto` takes what is installed, valid for the method and of use; what is asked for by name and is not is refused. Pure:
it is told what the machine has. Reasons are codes, for people to read beside a run's progress.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.recipe import Stage, Train
from trainer.tokens import TrainingFailed

FLASH = "flash_attention_2"
PACKAGES = {FLASH: "flash-attn", "liger": "liger-kernel"}


@dataclass(frozen=True)
class Facts:
    """What decides: a CUDA device that computes in half precision, and which packages can be imported."""

    card: bool
    flash: bool
    liger: bool


@dataclass(frozen=True)
class Speed:
    """What is taken, and why the rest is not."""

    attention: str = "sdpa"
    liger: bool = False
    padding_free: bool = False
    packing: bool = False
    why_not: dict[str, str] = field(default_factory=dict)

    def arguments(self, stage: Stage) -> dict[str, Any]:
        """Of TRL's configs, where they know them."""
        told: dict[str, Any] = {"use_liger_kernel": True} if self.liger else {}
        return told | ({"padding_free": self.padding_free, "packing": self.packing} if stage == "sft" else {})


def choose(settings: Train, stage: Stage, known: Facts) -> Speed:
    """Raises TrainingFailed, code `not_possible_here`, for what was asked for by name and cannot be had."""
    why_not: dict[str, str] = {}
    lacking_flash = "no_card" if not known.card else "" if known.flash else "not_installed"
    lacking_liger = liger_lacks(stage, known)
    attention: str = settings.attention
    liger = settings.liger is True
    if attention == FLASH and lacking_flash:
        raise refused("attention", FLASH, lacking_flash)
    if liger and lacking_liger:
        raise refused("liger", "liger", lacking_liger)
    if attention == "auto":
        attention = "sdpa" if lacking_flash else FLASH
        note(why_not, FLASH, lacking_flash)
    if settings.liger == "auto":
        liger = not lacking_liger
        note(why_not, "liger", lacking_liger)
    packing = settings.packing is True and stage == "sft"
    padding_free = unpadded(settings, stage, attention, why_not)
    if settings.packing == "auto" and stage == "sft":
        # A step would see several times as many rows as the recipe's learning rate is for.
        why_not["packing"] = "changes_the_steps"
    elif settings.packing and stage != "sft":
        why_not["packing"] = "not_for_method"
    return Speed(attention, liger, padding_free or packing, packing, why_not)


def liger_lacks(stage: Stage, known: Facts) -> str:
    if stage == "orpo":  # TRL's trainer reads the logits, which Liger's loss does not make
        return "not_for_method"
    return "no_card" if not known.card else "" if known.liger else "not_installed"


def unpadded(settings: Train, stage: Stage, attention: str, why_not: dict[str, str]) -> bool:
    """Valid with any attention, as transformers masks by positions; of use with FlashAttention only."""
    if settings.padding_free is False:
        return False
    if stage != "sft":  # TRL has it off for DPO, and has none for KTO and ORPO
        why_not["padding_free"] = "not_for_method"
        return False
    if settings.padding_free == "auto" and attention != FLASH:
        why_not["padding_free"] = "needs_flash_attention"
        return False
    if settings.batch == 1:
        why_not["padding_free"] = "nothing_to_pad"
        return False
    return True


def note(why_not: dict[str, str], name: str, reason: str) -> None:
    if reason:
        why_not[name] = reason


def refused(key: str, what: str, why: str) -> TrainingFailed:
    return TrainingFailed("not_possible_here", key=f"train.{key}", package=PACKAGES[what], why=why)
