"""Will it fit, and how long will it take: an estimate from a config.json, a recipe and what is known of the machine.

Arithmetic only, with a source for each formula: rough, on the safe side, and good enough before hiring a card. This
module does not know torch, files or what machine it runs on. Verdicts are codes with parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.contradictions import takes_from_base
from storage.recipe import Recipe, Stage, Train

GIB = 2**30
# Bits a weight of the served file, llama.cpp's figures for Llama-3-8B (its quantize tool's README).
# fmt: off
FILE_BITS = {
    "F16": 16.0, "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.70, "Q4_K_M": 4.89, "IQ4_NL": 4.68, "IQ4_XS": 4.46,
    "IQ3_M": 3.76, "IQ3_S": 3.66, "IQ3_XXS": 3.25, "IQ2_M": 2.93,
}
# fmt: on
# nf4 with double quantisation: 4 bits, and 0.127 for its constants (QLoRA, arXiv 2305.14314, section 3).
NF4_BITS = 4.127
INT8_BITS = 8.0
# Measured on a CPU: interpreter, torch, transformers and trl. A CUDA context and its kernels take as much again.
LIBRARIES_BYTES = 0.6 * GIB
CUDA_CONTEXT_BYTES = 0.8 * GIB
# What the allocator holds but cannot use.
FRAGMENTATION = 1.1
# Share of peak arithmetic that training of this kind reaches.
UTILISATION = 0.3
# Dense half-precision peak, FLOP/s, from the makers' data sheets, by a part of the device's name.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "4090": 165e12,
    "3090": 71e12,
    "L40": 181e12,
    "A10": 125e12,
}
SHORTEST_ROWS_TOKENS = 256  # below, hardly a conversation is left
CPU_CORE_FLOPS = 100e9  # peak; with UTILISATION it gives the 30 GFLOP/s a core measured in float32
# Measured on one core, and on two with a Q4_K_M of 135M: merging and quantising, and llama.cpp reading and answering.
QUANTISED_WEIGHTS_A_SECOND = 15e6
SCORING_CORE_FLOPS = 15e9
WEIGHED_WEIGHTS_A_SECOND = 3e6  # a core: IQ types, and K types whose columns are weighed
CONVERTED_BYTES_A_SECOND = 100e6


@dataclass(frozen=True)
class Machine:
    """What the caller found: `vram_bytes` and `gpu` where there is a CUDA device; free memory and disk, in bytes."""

    ram_bytes: int
    disk_bytes: int
    cores: int
    vram_bytes: int | None = None
    gpu: str | None = None


@dataclass(frozen=True)
class Shape:
    """A dense Llama-like decoder, from its config.json."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    query_width: int
    key_width: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Raises ValueError on a config of another kind."""
        try:
            heads, hidden = config["num_attention_heads"], config["hidden_size"]
            head = config.get("head_dim") or hidden // heads
            shape = cls(
                hidden=hidden,
                intermediate=config["intermediate_size"],
                layers=config["num_hidden_layers"],
                vocabulary=config["vocab_size"],
                query_width=heads * head,
                key_width=(config.get("num_key_value_heads") or heads) * head,
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"config.json is not that of a Llama-like model ({error!r}): no estimate") from error
        if min(shape.hidden, shape.intermediate, shape.layers, shape.vocabulary, shape.key_width) < 1:
            raise ValueError("config.json has sizes below 1: no estimate")
        return shape

    def linears(self) -> Iterator[tuple[int, int]]:
        """(in, out) of each linear map of one layer: q, k, v, o, gate, up, down."""
        yield from ((self.hidden, self.query_width), (self.hidden, self.key_width), (self.hidden, self.key_width))
        yield (self.query_width, self.hidden)
        yield from ((self.hidden, self.intermediate),) * 2
        yield (self.intermediate, self.hidden)

    @property
    def linear_weights(self) -> int:
        return self.layers * sum(rows * columns for rows, columns in self.linears())

    @property
    def other_weights(self) -> int:
        """Embeddings, head and norms: never quantised in training."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def weights(self) -> int:
        return self.linear_weights + self.other_weights

    def adapter_weights(self, rank: int) -> int:
        """LoRA on all linear layers: A is (rank, in) and B (out, rank), arXiv 2106.09685."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.linears())


@dataclass(frozen=True)
class Reading:
    """What scoring puts to both files: texts whose tokens it weighs, and questions that are answered."""

    texts: int
    questions: int


@dataclass(frozen=True)
class Need:
    """One resource: what is needed, part by part, and what there is."""

    resource: str  # vram, ram or disk
    parts: dict[str, int]
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes


@dataclass(frozen=True)
class Advice:
    """What would make it fit, as a code and parameters: recipe keys to change, or that none will do."""

    code: str  # change_recipe, no_setting_fits, free_disk
    params: dict[str, Any]


@dataclass(frozen=True)
class Preflight:
    needs: tuple[Need, ...]
    minutes_of: dict[str, float]  # train, convert, score; fetching depends on a network that nobody knows
    advice: tuple[Advice, ...] = ()

    @property
    def minutes(self) -> float:
        return sum(self.minutes_of.values())

    @property
    def fits(self) -> bool:
        return all(need.fits for need in self.needs)

    def needed_bytes(self, resource: str) -> int:
        """0 for what is not needed here, like the memory of a card where there is none."""
        return sum(need.needed_bytes for need in self.needs if need.resource == resource)

    def to_dict(self) -> dict[str, Any]:
        """For people and JSON: GiB and minutes, rounded."""
        return {
            "fits": self.fits,
            "minutes": {name: round(each, 1) for name, each in self.minutes_of.items()},
            "needs": {
                need.resource: {
                    "needed_gib": round(need.needed_bytes / GIB, 1),
                    "available_gib": round(need.available_bytes / GIB, 1),
                }
                for need in self.needs
            },
            "advice": [{"code": each.code, **each.params} for each in self.advice],
        }


def preflight(
    config: Mapping[str, Any],
    recipe: Recipe,
    examples: Mapping[Stage, int],
    machine: Machine,
    *,
    mean_tokens: float,
    reading: Reading,
    fetched: bool = False,
) -> Preflight:
    """Whether a run of `recipe`, over so many `examples` a stage, fits `machine`. `fetched`: the weights are here.

    Memory is that of the worst batch, every row as long as data.max_tokens; time that of rows of `mean_tokens`.
    """
    shape = Shape.of(config)
    needs = memory_needs(shape, recipe, tuple(examples), machine)
    disk = disk_need(shape, recipe, machine, fetched=fetched)
    advice = [] if all(need.fits for need in needs) else [fitting_change(shape, recipe, tuple(examples), machine)]
    if not disk.fits:
        advice.append(Advice("free_disk", {"bytes": disk.needed_bytes - disk.available_bytes}))
    minutes_of = {
        "train": train_minutes(shape, recipe, examples, machine, mean_tokens),
        "convert": convert_minutes(shape, recipe, machine),
        "score": score_minutes(shape, recipe, reading, machine, mean_tokens),
    }
    return Preflight((*needs, disk), minutes_of, tuple(advice))


def memory_needs(shape: Shape, recipe: Recipe, stages: tuple[Stage, ...], machine: Machine) -> tuple[Need, ...]:
    """Of the stage that needs most: in VRAM where there is a card, else in RAM."""
    worst = max(
        (training_parts(shape, recipe, stage, machine) for stage in stages), key=lambda parts: sum(parts.values())
    )
    if machine.vram_bytes is None:
        return (Need("ram", {"libraries": int(LIBRARIES_BYTES), **worst}, machine.ram_bytes),)
    # Weights pass through RAM shard by shard (5 GB each at most); merging holds one tensor.
    loading = min(2 * shape.weights, 5 * 10**9)
    ram = Need("ram", {"libraries": int(2 * LIBRARIES_BYTES), "loading": loading}, machine.ram_bytes)
    return (Need("vram", {"context": int(CUDA_CONTEXT_BYTES), **worst}, machine.vram_bytes), ram)


def training_parts(shape: Shape, recipe: Recipe, stage: Stage, machine: Machine) -> dict[str, int]:
    settings, cuda = recipe.training(stage), machine.vram_bytes is not None
    number = 2 if cuda else 4  # bytes of bf16 or float32
    tokens = settings.batch * recipe.data.max_tokens * (1 if stage == "sft" else 2)
    parts = {
        **(adapter_parts if settings.tune == "lora" else weight_parts)(shape, recipe, stage, machine),
        "activations": tokens * activation_bytes(shape, number, checkpointed=settings.gradient_checkpointing),
        "logits": tokens * shape.vocabulary * (number + 4 + 4) if stage == "orpo" else 0,  # TRL fuses the others' head
    }
    return {name: int(value * FRAGMENTATION) for name, value in parts.items()}


def adapter_parts(shape: Shape, recipe: Recipe, stage: Stage, machine: Machine) -> dict[str, float]:
    settings, cuda = recipe.training(stage), machine.vram_bytes is not None
    quantised = is_in_4bit(settings, machine, recipe) or settings.load_in_8bit
    number = 2 if cuda else 4
    adapter = shape.adapter_weights(rank_of(recipe))
    bits = 8 * number if not quantised else INT8_BITS if settings.load_in_8bit else NF4_BITS
    # Adapter, gradient and two moments of Adam; 8-bit moments on CUDA in 4 and 8 bit. DPO and KTO keep a frozen copy.
    trained = adapter * ((2 + 2 + 2) if cuda and quantised else (4 + 4 + 8))
    reference = adapter * number if stage in ("dpo", "kto") else 0
    return {
        "weights": shape.linear_weights * bits / 8 + shape.other_weights * number,
        "adapter": trained + reference,
    }


def weight_parts(shape: Shape, recipe: Recipe, stage: Stage, machine: Machine) -> dict[str, float]:
    """Of a base whose own weights are trained, in float32 on a card too: those, gradients and moments of what is free,
    and for DPO and KTO a second base."""
    settings = recipe.training(stage)
    moments = {"adafactor": 0.1, "adamw_8bit": 2.0, "galore_adamw": 8.0, "galore_adamw_8bit": 2.0}
    a_weight = moments.get(settings.optimizer, 8.0)
    if settings.optimizer.startswith("galore"):  # of the gradient's projection alone, arXiv 2403.03507, table 1
        a_weight *= min(1.0, settings.galore_rank / shape.hidden)
    return {
        "weights": 4 * shape.weights,
        "trained": (4 + a_weight) * free_weights(shape, settings),
        "reference": 4 * shape.weights if stage in ("dpo", "kto") else 0,
    }


def free_weights(shape: Shape, settings: Train) -> int:
    if settings.tune == "full":
        return shape.weights
    layers = min(settings.trained_layers, shape.layers)
    return layers * (shape.linear_weights // shape.layers + 2 * shape.hidden)


def rank_of(recipe: Recipe) -> int:
    return int(recipe.peft.get("r", 16))


def is_in_4bit(settings: Train, machine: Machine, recipe: Recipe) -> bool:
    """As `trainer.tuning` decides it."""
    init = recipe.peft.get("init_lora_weights", True)
    if settings.load_in_4bit != "auto":
        return settings.load_in_4bit
    if init == "loftq":
        return True
    possible = settings.tune == "lora" and not settings.load_in_8bit and not takes_from_base(init)
    return possible and machine.vram_bytes is not None


def activation_bytes(shape: Shape, number: int, *, checkpointed: bool) -> float:
    """A token, over all layers. After Korthikanti et al., arXiv 2205.05198, eq. 1, for SwiGLU and grouped keys, without
    the attention scores (SDPA does not keep them): the inputs of every linear map and nonlinearity, and two norms in
    float32. Checkpointed, eq. 4's case: one input a layer, and one layer at a time in full."""
    elements = 2 * shape.hidden + 2 * shape.query_width + 2 * shape.key_width + 4 * shape.intermediate
    layer = number * elements + 4 * 2 * shape.hidden
    return layer + number * shape.hidden * shape.layers if checkpointed else layer * shape.layers


def disk_need(shape: Shape, recipe: Recipe, machine: Machine, *, fetched: bool) -> Need:
    """A served file is stored, uploaded and stored again: twice its size."""
    file = shape.weights * FILE_BITS[recipe.quantisation] / 8
    parts = {
        "weights": 0 if fetched else 2 * shape.weights,
        "base_gguf": 0 if fetched else 2 * shape.weights,
        "served": 2 * file,
        "checkpoints": checkpoint_bytes(shape, recipe),
    }
    return Need("disk", {name: int(value) for name, value in parts.items()}, machine.disk_bytes)


def checkpoint_bytes(shape: Shape, recipe: Recipe) -> int:
    """Three at once, the one that is being written with them; and what is kept of the stages. Whole models where
    weights of the base are trained."""
    if recipe.train.tune == "lora":
        return 3 * 16 * shape.adapter_weights(rank_of(recipe))
    free = free_weights(shape, recipe.train)
    return 3 * (4 * shape.weights + 8 * free) + 2 * 4 * free


def train_minutes(
    shape: Shape, recipe: Recipe, examples: Mapping[Stage, int], machine: Machine, mean_tokens: float
) -> float:
    """2 FLOP a weight and token forward, 2 backward to the activations (the base takes no gradient of its own), 2 more
    to compute them again where checkpointed, 2 for the reference: Kaplan et al., arXiv 2001.08361, section 2.1."""
    flops = 0.0
    for stage, rows in examples.items():
        settings = recipe.training(stage)
        sequences = 1 if stage == "sft" else 2
        own = 2 * free_weights(shape, settings) / shape.weights if settings.tune != "lora" else 0
        passes = 4 + own + 2 * settings.gradient_checkpointing + 2 * (stage in ("dpo", "kto"))
        flops += seen(settings, rows) * sequences * mean_tokens * passes * shape.weights
    return flops / (peak_flops(machine) * UTILISATION) / 60


def convert_minutes(shape: Shape, recipe: Recipe, machine: Machine) -> float:
    """The 16-bit file, read and written once, then candidate and base quantised: of a base's first run. Where columns
    are weighed, the importance matrix comes before."""
    seconds = 4 * shape.weights / CONVERTED_BYTES_A_SECOND + 2 * shape.weights / QUANTISED_WEIGHTS_A_SECOND
    if recipe.weighs_columns:
        seconds += 2 * shape.weights * recipe.importance_tokens / (peak_flops(machine) * UTILISATION)
    if recipe.weighs_columns or recipe.quantisation.startswith("IQ"):
        seconds += 2 * shape.weights / (WEIGHED_WEIGHTS_A_SECOND * machine.cores)
    return seconds / 60


def score_minutes(shape: Shape, recipe: Recipe, reading: Reading, machine: Machine, mean_tokens: float) -> float:
    """Both files, on the CPU, for llama.cpp's wheel has no CUDA: 2 FLOP a weight and token. Every question is taken to
    be answered at the greatest length."""
    answer = min(recipe.gate.max_generated_tokens, recipe.generate.num_predict)
    tokens = reading.texts * mean_tokens + reading.questions * (mean_tokens + answer)
    tokens += 2 * recipe.gate.max_fidelity_tokens if reading.texts else 0  # answers and their prompts
    return 2 * tokens * 2 * shape.weights / (machine.cores * SCORING_CORE_FLOPS) / 60


def seen(settings: Train, rows: float) -> float:
    """Rows trained on, counted as often as they come up."""
    if settings.max_steps is not None:
        return settings.max_steps * settings.batch * settings.accumulate
    return settings.epochs * rows


def peak_flops(machine: Machine) -> float:
    """Unknown cards count as the slowest known: better early than late."""
    if machine.vram_bytes is None:
        return machine.cores * CPU_CORE_FLOPS
    known = (flops for part, flops in PEAK_FLOPS.items() if part in (machine.gpu or ""))
    return next(known, min(PEAK_FLOPS.values()))


def fitting_change(shape: Shape, recipe: Recipe, stages: tuple[Stage, ...], machine: Machine) -> Advice:
    """The least of a few changes, to every stage, that fits; each is tried on top of those before."""
    for keys in changes(recipe, machine):
        train = replace(recipe.train, **{name[6:]: value for name, value in keys.items() if name.startswith("train.")})
        data = replace(recipe.data, max_tokens=keys.get("data.max_tokens", recipe.data.max_tokens))
        needs = memory_needs(shape, replace(recipe, train=train, data=data, sft={}, preference={}), stages, machine)
        if all(need.fits for need in needs):
            return Advice("change_recipe", keys)
    return Advice("no_setting_fits", {need.resource: need.needed_bytes for need in needs if not need.fits})


def changes(recipe: Recipe, machine: Machine) -> Iterator[dict[str, Any]]:
    """Recipe keys and their new values, from the least painful on. Halving the batch leaves the result as it is."""
    keys: dict[str, Any] = {}
    if not recipe.train.gradient_checkpointing:
        yield (keys := {"train.gradient_checkpointing": True})
    if recipe.train.tune != "lora":
        optimiser = {"train.optimizer": "auto"} if recipe.train.optimizer.startswith("galore") else {}
        yield (keys := keys | {"train.tune": "lora"} | optimiser)
    adapter = replace(recipe.train, tune="lora")
    if not (is_in_4bit(adapter, machine, recipe) or takes_from_base(recipe.peft.get("init_lora_weights", True))):
        eight = {"train.load_in_8bit": False} if recipe.train.load_in_8bit else {}
        yield (keys := keys | {"train.load_in_4bit": True} | eight)
    yield (keys := keys | {"train.batch": 1, "train.accumulate": recipe.train.batch * recipe.train.accumulate})
    tokens = recipe.data.max_tokens
    while (tokens := tokens // 2) >= SHORTEST_ROWS_TOKENS:
        yield keys | {"data.max_tokens": tokens}
