"""What an experiment is: one frozen value, read from TOML, checked whole, stored whole with its run.

The environment says where things are, a recipe says what is done. `[peft]` and `[trl]` pass
through to those libraries (the trainer checks their names, for it has them installed); `[sft]` and `[preference]`
override `[train]` for one stage. This module does not know files, databases, torch or the clock.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from storage import contradictions as contradicting
from storage.bounds import SLUG, between, matching
from storage.complaints import BadRecipe as BadRecipe
from storage.complaints import Complaint as Complaint
from storage.pass_through import REFUSED_PEFT, REFUSED_TRL
from storage.release_policy import Approval, Canary, Rollback

Stage = Literal["sft", "dpo", "kto", "orpo"]
# Of huigan.llama.quantise.MIXTURES; tests hold the two together.
Quantisation = Literal[
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XXS", "IQ2_M"
]
# Rubbish where nobody measured which columns matter.
WEIGHTED_ONLY = ("IQ3_XXS", "IQ2_M")
# Of trl.DPOConfig's loss_type; "sft" is the term that sft_weight adds.
DpoLoss = Literal[
    "sigmoid", "ipo", "robust", "hinge", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm",
]  # fmt: skip
Table = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """When there is enough feedback to train, what is held out, mixed in and left out.

    `min_answers`, `min_pairs` and `min_thumbs` are what SFT, DPO and ORPO, and KTO want each; with `auto` any one of
    them will do. They count for runs that start by themselves.

    `replay` names a file or a hub's data set, or several.

    `defences` off turns off at once whatever keeps one person from moving the release: trust, bursts, campaigns, the
    weight by √n and `rater_cap_share`."""

    min_ratings: int = between(1, 10**9, 200)
    min_answers: int = between(1, 10**9, 50)
    min_pairs: int = between(1, 10**9, 100)
    min_thumbs: int = between(1, 10**9, 200)
    min_raters: int = between(1, 10**9, 5)
    held_out_share: float = between(0, 0.5, 0.1)
    max_prompt_tokens: int = between(16, 2**20, 1024)
    max_tokens: int = between(32, 2**20, 2048)
    replay: str | tuple[str, ...] | None = None
    replay_share: float = between(0, 0.9, 0.2)
    rater_cap_share: float = between(0.01, 1, 0.2)
    held_out_user_share: float = between(0, 0.5, 0.0)
    regenerate_weight: float = between(0, 1, 0.2)
    near_duplicate: float = between(0.5, 1, 0.8)
    scrub: bool = True
    defences: bool = True
    trust_bar: float = between(0, 1, 0.5)
    burst_ratings: int = between(3, 10**9, 20)
    campaign_prompts: int = between(2, 10**9, 3)

    @property
    def replays(self) -> tuple[str, ...]:
        return () if self.replay is None else (self.replay,) if isinstance(self.replay, str) else self.replay


@dataclass(frozen=True)
class Train:
    """One stage's optimisation. From `beta` on the keys mean something to preference stages only.

    `processes`: 0 takes every card there is. `patience`: how many looks at the held-out rows without a better one end
    the stage; 0 looks at none.
    """

    epochs: float = between(0.01, 1000, 1.0)
    max_steps: int | None = between(1, 10**9, None)
    learning_rate: float = between(1e-9, 1, 1e-4)
    batch: int = between(1, 4096, 4)
    accumulate: int = between(1, 4096, 1)
    warmup_steps: int = between(0, 10**6, 0)
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: float = between(0, 1, 0.0)
    max_grad_norm: float = between(0, 1000, 1.0)
    gradient_checkpointing: bool = False
    tune: Literal["lora", "freeze", "full"] = "lora"
    trained_layers: int = between(1, 1000, 2)
    load_in_4bit: Literal["auto", True, False] = "auto"
    load_in_8bit: bool = False
    optimizer: Literal["auto", "adamw", "adamw_8bit", "adafactor", "galore_adamw", "galore_adamw_8bit"] = "auto"
    galore_rank: int = between(1, 4096, 128)
    loraplus_ratio: float | None = between(1, 1000, None)
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    liger: Literal["auto", True, False] = "auto"
    padding_free: Literal["auto", True, False] = "auto"
    packing: Literal["auto", True, False] = "auto"
    group_by_length: bool = False
    processes: int = between(0, 64, 0)
    save_steps: int = between(1, 10**6, 50)
    patience: int = between(0, 1000, 3)
    beta: float = between(1e-4, 10, 0.1)
    sft_weight: float = between(0, 100, 1.0)
    dpo_loss: DpoLoss = "sigmoid"
    label_smoothing: float = between(0, 0.49, 0.0)
    ld_alpha: float | None = between(0, 1, None)
    kto_loss: Literal["auto", "kto", "apo_zero_unpaired"] = "auto"


@dataclass(frozen=True)
class System:
    """The system message trained and served with; `template` is `base` (the base's own) or a served Go template."""

    text: str = matching(r"(?s)\s*\S.*", "You are a helpful assistant.")
    template: str = matching(r"(?s)base|.*\.Messages.*", "base")


@dataclass(frozen=True)
class Generate:
    """Serving options, written into the tag. None leaves the server's own default."""

    num_ctx: int = between(128, 2**20, 4096)
    num_predict: int = between(1, 2**20, 512)
    temperature: float | None = between(0, 5, None)
    top_p: float | None = between(0, 1, None)
    top_k: int | None = between(0, 10**6, None)
    min_p: float | None = between(0, 1, None)
    repeat_penalty: float | None = between(0, 5, None)
    seed: int | None = between(0, 2**31 - 1, None)
    num_thread: int | None = between(1, 1024, None)

    def options(self) -> Table:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Serving:
    """What answers do while a run has the graphics card that Ollama serves from: share it with the run, go by the CPU,
    or wait for its end. An admin's setting beats it."""

    while_training: Literal["share", "cpu", "wait"] = "share"


@dataclass(frozen=True)
class MaxLoss:
    """Of each kind of the regression suite: the share of cases the live file gets right that may be lost."""

    facts: float = between(0, 1, 0.1)
    format: float = between(0, 1, 0.2)
    refusals: float = between(0, 1, 0.0)
    sycophancy: float = between(0, 1, 0.2)
    language: float = between(0, 1, 0.1)
    endings: float = between(0, 1, 0.1)


@dataclass(frozen=True)
class Gate:
    """Bars a candidate must clear against the live file, and how much is looked at to decide."""

    min_preference_accuracy: float = between(0, 1, 0.5)
    min_preference_gain: float = between(-1, 1, 0.0)
    max_perplexity_ratio: float = between(0.1, 100, 1.2)
    min_recall: float = between(0, 1, 0.5)
    max_repetition: float = between(0, 1, 0.1)
    min_language_match: float = between(0, 1, 0.9)
    max_length_drift: float = between(1, 100, 2.0)
    min_stop_share: float = between(0, 1, 0.9)
    max_control_loss: float = between(0, 1, 0.1)
    max_general_perplexity_ratio: float = between(0.1, 100, 1.1)
    min_judge_share: float = between(0, 1, 0.5)
    max_loss: MaxLoss = field(default_factory=MaxLoss)
    suite: str | None = matching(r".*\S.*", None)
    max_pairs: int = between(1, 10**6, 200)
    max_answers: int = between(1, 10**6, 100)
    max_generations: int = between(1, 10**6, 50)
    max_generated_tokens: int = between(8, 2**16, 256)
    max_cases: int = between(0, 10**4, 12)
    max_case_tokens: int = between(8, 2**16, 128)
    max_paragraphs: int = between(1, 1000, 8)
    max_fidelity_tokens: int = between(0, 2**16, 512)


@dataclass(frozen=True)
class Judge:
    """A tag in Ollama that compares the two files' held-out answers, if one is named. `prompt` may replace ours."""

    tag: str | None = matching(r"\S+", None)
    prompt: str | None = matching(r"(?s)(?=.*\{question\})(?=.*\{one\})(?=.*\{other\}).*", None)
    max_questions: int = between(1, 10**4, 40)
    max_seconds: int = between(1, 10**6, 900)


@dataclass(frozen=True)
class Recipe:
    """An experiment, whole. Equal recipes on equal data with equal weights give equal runs."""

    name: str = field(metadata={"pattern": SLUG})
    method: Literal["auto", "sft", "dpo", "kto", "orpo"] = "auto"
    seed: int = between(0, 2**31 - 1, 20)
    lane: str = matching(SLUG, "default")
    start: Literal["base", "continue"] = "base"
    quantisation: Quantisation = "Q4_K_M"
    importance: Literal["auto", True, False] = "auto"
    importance_tokens: int = between(256, 10**7, 50_000)
    approval: Approval = "approve"
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)
    sft: Table = field(default_factory=dict, metadata={"overrides": True})
    preference: Table = field(default_factory=dict, metadata={"overrides": True})
    peft: Table = field(default_factory=dict, metadata={"refused": REFUSED_PEFT})
    trl: Table = field(default_factory=dict, metadata={"refused": REFUSED_TRL})
    system: System = field(default_factory=System)
    generate: Generate = field(default_factory=Generate)
    serving: Serving = field(default_factory=Serving)
    gate: Gate = field(default_factory=Gate)
    judge: Judge = field(default_factory=Judge)
    canary: Canary = field(default_factory=Canary)
    rollback: Rollback = field(default_factory=Rollback)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; absent keys take their defaults. Raises BadRecipe with every complaint."""
        if complaints := [*table_complaints(cls, raw, "")]:
            raise BadRecipe(complaints)
        recipe: Recipe = build(cls, raw)
        if complaints := [*contradictions(recipe)]:
            raise BadRecipe(complaints)
        return recipe

    def to_dict(self) -> Table:
        return asdict(self)

    @property
    def weighs_columns(self) -> bool:
        """Whether an importance matrix is measured on the run's conversations. `auto`: where bits are few."""
        return self.quantisation.startswith("IQ") if self.importance == "auto" else self.importance

    def training(self, stage: Stage) -> Train:
        """`[train]` with the overrides of the table this stage belongs to."""
        overrides = self.sft if stage == "sft" else self.preference
        hints = hints_of(Train)
        return replace(self.train, **{name: typed(hints[name], value) for name, value in overrides.items()})

    def stages(self, *, answers: int, pairs: int, thumbs: int) -> tuple[Stage, ...]:
        """What is trained in which order, given how many rows of each shape there are.

        A named method is followed to the letter. `auto` teaches right answers first and shifts preferences only on top
        of them: preference losses on a bare base break its text (measured). Pairs say more than thumbs.
        """
        if self.method != "auto":
            return (self.method,)
        right: tuple[Stage, ...] = ("sft",) if answers else ()
        preferred: tuple[Stage, ...] = ("dpo",) if pairs else ("kto",) if thumbs else ()
        return right + preferred


def parse(text: str) -> Recipe:
    """Raises BadRecipe, also for text that is not TOML."""
    try:
        return Recipe.from_dict(tomllib.loads(text))
    except BadRecipe:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: hundreds of nested brackets
        raise BadRecipe([Complaint("recipe", f"not TOML: {error}", "see recipes/demo.toml for a whole one")]) from error


def table_complaints(cls: type, raw: object, path: str) -> Iterator[Complaint]:
    """Everything wrong with a table that should hold the fields of `cls`."""
    if not isinstance(raw, Mapping):
        yield Complaint(path, f"is {shown(raw)}, not a table", f"write it as a table: [{path}]")
        return
    known = {each.name: each for each in fields(cls)}
    hints = hints_of(cls)
    for name, value in raw.items():
        key = f"{path}.{name}" if path else str(name)
        if name in known:
            yield from value_complaints(known[name], hints[name], value, key)
        else:
            yield Complaint(key, "unknown key", suggestion(str(name), known))
    for name, each in known.items():
        if name not in raw and each.default is MISSING and each.default_factory is MISSING:
            yield Complaint(f"{path}.{name}" if path else name, "missing", "add it")


@cache
def hints_of(cls: type) -> Mapping[str, Any]:
    """Worked out once: schedules reads its recipe at each look."""
    return get_type_hints(cls)


def value_complaints(each: Field[Any], hint: Any, value: object, key: str) -> Iterator[Complaint]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield from table_complaints(hint, value, key)
    elif "overrides" in each.metadata:
        yield from table_complaints(Train, value, key)
    elif "refused" in each.metadata:
        yield from pass_through_complaints(each.metadata["refused"], value, key)
    elif not of_type(hint, value):
        yield Complaint(key, f"is {shown(value)}", f"give {wanted(hint)}")
    elif value is not None:
        yield from content_complaints(each.metadata, value, key)


def pass_through_complaints(refused: Mapping[str, str], value: object, key: str) -> Iterator[Complaint]:
    if not isinstance(value, Mapping):
        yield Complaint(key, f"is {shown(value)}, not a table", f"write it as a table: [{key}]")
        return
    for name in value:
        if name in refused:
            yield Complaint(f"{key}.{name}", "cannot be set here", refused[name])
    if not is_json(value):
        yield Complaint(key, "holds something JSON cannot", "use text, finite numbers, true, false, lists and tables")


def content_complaints(rules: Mapping[str, Any], value: Any, key: str) -> Iterator[Complaint]:
    if "low" in rules and not rules["low"] <= value <= rules["high"]:
        yield Complaint(key, f"is {shown(value)}", f"give a number from {rules['low']:g} to {rules['high']:g}")
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        yield Complaint(key, f"is {shown(value)}", f"it must match {rules['pattern']}")
    texts = value if isinstance(value, list | tuple) else [value]
    if not all(is_storable(text) for text in texts if isinstance(text, str)):
        yield Complaint(key, "holds a NUL or half of a character", "delete it: databases refuse it")


def contradictions(recipe: Recipe) -> Iterator[Complaint]:
    """What no single key shows."""
    yield from contradicting.of_training(recipe)
    data, generate = recipe.data, recipe.generate
    if data.max_prompt_tokens >= data.max_tokens:
        yield Complaint(
            "data.max_prompt_tokens", "leaves no room for an answer", f"keep it below max_tokens ({data.max_tokens})"
        )
    if generate.num_predict >= generate.num_ctx:
        yield Complaint(
            "generate.num_predict", "leaves no room for a prompt", f"keep it below num_ctx ({generate.num_ctx})"
        )
    if recipe.quantisation in WEIGHTED_ONLY and not recipe.weighs_columns:
        yield Complaint(
            "importance",
            f"is off, and {recipe.quantisation} is of no use without",
            'set it to "auto", or choose IQ4_XS or more',
        )
    if recipe.importance is True and recipe.quantisation in ("F16", "Q8_0"):
        yield Complaint("importance", f"does nothing for {recipe.quantisation}", "leave it out")
    if data.replay_share > 0 and "" in data.replays:
        yield Complaint("data.replay", "is empty", "name a file or data set, or leave it out")
    if recipe.gate.suite is not None and recipe.gate.max_cases == 0:
        yield Complaint("gate.suite", "is never asked, for max_cases is 0", "raise max_cases, or leave it out")
    if recipe.judge.prompt is not None and recipe.judge.tag is None:
        yield Complaint("judge.prompt", "has nobody to read it", "name a tag in [judge], or leave it out")


def build(cls: Any, raw: Mapping[str, Any]) -> Any:
    """`raw` has passed `table_complaints`."""
    hints = hints_of(cls)
    return cls(**{name: typed(hints[name], value) for name, value in raw.items()})


def typed(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return build(hint, value)
    if hint is float or float in get_args(hint):
        return None if value is None else float(value)
    if isinstance(value, list | tuple):
        return tuple(value)
    return deepcopy(value)  # so that nobody can change a frozen recipe's tables from outside


def of_type(hint: Any, value: object) -> bool:
    """TOML's types are strict, but `1` may stand for `1.0`; `true` is no number."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if isinstance(hint, UnionType):
        return any(of_type(each, value) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(of_type(get_args(hint)[0], each) for each in value)
    if hint is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return value is None if hint is NoneType else type(value) is hint


def wanted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of that"
    if isinstance(hint, UnionType):
        return " or ".join(wanted(each) for each in get_args(hint) if each is not NoneType)
    return {str: "text in quotes", int: "a whole number", float: "a finite number", bool: "true or false"}[hint]


def suggestion(name: str, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"


def shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "too large to show"
    return text if len(text) <= 60 else text[:57] + "…"


def is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_storable(name) and is_json(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return is_storable(value) if isinstance(value, str) else value is None


def is_storable(text: str) -> bool:
    """PostgreSQL keeps neither NUL nor lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
