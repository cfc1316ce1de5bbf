"""Decides which type each tensor gets in a quantised file, and packs rows into that type.

The choices are llama.cpp's (`llama_tensor_get_type` in src/llama-quant.cpp), so that our Q4_K_M is everybody's Q4_K_M,
byte for byte, for dense architectures. For mixtures of experts llama.cpp chooses differently in places; such a file
loads all the same. It knows nothing of adapters, files being written, or where importance comes from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import libgguf
import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Kind

from huigan.llama.gguf import Floats, Gguf, Tensor


@dataclass(frozen=True)
class Mixture:
    """`default` for most tensors, and where some kinds of tensors get another type.

    `more` goes to values and ffn_down of the layers that suffer most; `first_down` to ffn_down of the first eighth;
    `grouped_value` to values that four or more heads share. None: no exception is made.
    """

    default: Kind
    file_type: LlamaFileType
    output: Kind = Kind.Q6_K
    embedding: Kind | None = None
    query_key: Kind | None = None
    value: Kind | None = None
    grouped_value: Kind | None = None
    attention_output: Kind | None = None
    first_down: Kind | None = None
    first_down_unweighted: Kind | None = None  # only where there is no importance
    more: Kind | None = None


MIXTURES = {
    "F16": Mixture(Kind.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": Mixture(Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0, output=Kind.Q8_0),
    "Q6_K": Mixture(Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "Q5_K_M": Mixture(Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M, more=Kind.Q6_K),
    "Q4_K_M": Mixture(Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M, more=Kind.Q6_K),
    "IQ4_NL": Mixture(
        Kind.IQ4_NL, LlamaFileType.MOSTLY_IQ4_NL, grouped_value=Kind.Q5_K, first_down_unweighted=Kind.Q5_K
    ),
    "IQ4_XS": Mixture(
        Kind.IQ4_XS, LlamaFileType.MOSTLY_IQ4_XS, grouped_value=Kind.Q5_K, first_down_unweighted=Kind.Q5_K
    ),
    "IQ3_M": Mixture(
        Kind.IQ3_S,
        LlamaFileType.MOSTLY_IQ3_M,
        value=Kind.Q4_K,
        attention_output=Kind.Q4_K,
        first_down=Kind.Q4_K,
    ),
    "IQ3_S": Mixture(Kind.IQ3_S, LlamaFileType.MOSTLY_IQ3_S, grouped_value=Kind.Q4_K),
    "IQ3_XXS": Mixture(
        Kind.IQ3_XXS,
        LlamaFileType.MOSTLY_IQ3_XXS,
        output=Kind.Q5_K,
        embedding=Kind.IQ3_S,
        query_key=Kind.IQ2_S,
        grouped_value=Kind.Q4_K,
        attention_output=Kind.IQ3_S,
    ),
    "IQ2_M": Mixture(
        Kind.IQ2_S,
        LlamaFileType.MOSTLY_IQ2_M,
        output=Kind.Q5_K,
        embedding=Kind.IQ3_S,
        value=Kind.IQ3_S,
        grouped_value=Kind.Q4_K,
        attention_output=Kind.IQ3_S,
        first_down=Kind.IQ3_S,
    ),
}
# Rows that do not divide into a type's blocks get a type with smaller ones (tensor_type_fallback).
SMALLER_BLOCKS = {
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
    **dict.fromkeys((Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS, Kind.IQ2_S), Kind.IQ4_NL),
}
# Without importance these come out as rubbish, so llama.cpp refuses (tensor_requires_imatrix).
WEIGHTED_ONLY = (Kind.IQ3_XXS, Kind.IQ2_S)
# Fewer are packed before threads have started.
SHARED_ELEMENTS = 1 << 18
# The embedding and the head are never weighted: llama.cpp collects no importance for them.
UNWEIGHTED = ("token_embd.weight", "output.weight")
# Two-dimensional, and yet too small or too delicate (tensor_allows_quantization, the part that dense models meet).
NEVER = ("_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d")


class UnknownQuantisation(ValueError):
    pass


class NotFinite(ValueError):
    """Weights that became infinite or not a number."""


class ImportanceMissing(ValueError):
    """So few bits are of use only where it is known which columns matter."""


def mixture(quantisation: str) -> Mixture:
    if quantisation not in MIXTURES:
        raise UnknownQuantisation(f"{quantisation!r} is not a known quantisation: choose one of {', '.join(MIXTURES)}")
    return MIXTURES[quantisation]


def is_weight(tensor: Tensor) -> bool:
    """Whether quantising touches it at all; norms, biases and everything one-dimensional stay as they are."""
    return tensor.rows > 1 and tensor.name.endswith("weight") and not any(part in tensor.name for part in NEVER)


def tensor_types(gguf: Gguf, quantisation: str, importance: Mapping[str, Floats] | None = None) -> dict[str, Kind]:
    """The type of each tensor, by name. `importance` is that of `huigan.llama.importance`; raises ImportanceMissing."""
    chooser = _Chooser.of(gguf, mixture(quantisation), weighted=bool(importance))
    ordered = sorted(gguf.tensors.values(), key=_llama_order)
    kinds = {tensor.name: chooser.choose(tensor) if is_weight(tensor) else tensor.type for tensor in ordered}
    for name, kind in kinds.items():
        if kind in WEIGHTED_ONLY and name not in UNWEIGHTED and name not in (importance or {}):
            raise ImportanceMissing(
                f"{quantisation} makes {name} {kind.name}, which is rubbish without an importance matrix: "
                'set importance = "auto" in the recipe, or choose a quantisation with more bits'
            )
    return kinds


def pack(rows: Floats, kind: Kind, importance: Floats | None = None) -> npt.NDArray[Any]:
    """Rows as `kind` stores them: (rows, bytes per row). `importance` weighs the columns. Raises NotFinite."""
    with np.errstate(over="ignore"):
        packed = rows.astype(np.float16) if kind is Kind.F16 else rows
    if not np.isfinite(packed).all():
        raise NotFinite(
            f"a weight is infinite or not a number as {kind.name}: the training diverged, or F16 is too narrow"
        )
    if kind in (Kind.F16, Kind.F32):
        return packed
    return _side_by_side(rows, kind, importance)


def _side_by_side(rows: Floats, kind: Kind, importance: Floats | None) -> npt.NDArray[Any]:
    """Rows are packed one by one and outside Python's lock, so each core takes a share."""
    packed = [libgguf.quantize_rows(rows[:1], kind, importance)]  # alone: it builds the tables that all share
    shares = min(os.cpu_count() or 1, len(rows) - 1) if rows.size >= SHARED_ELEMENTS else 1
    if shares > 1:
        with ThreadPoolExecutor(shares) as pool:
            parts = np.array_split(rows[1:], shares)
            packed += pool.map(lambda part: libgguf.quantize_rows(part, kind, importance), parts)
    elif len(rows) > 1:
        packed.append(libgguf.quantize_rows(rows[1:], kind, importance))
    return np.concatenate(packed)


@dataclass
class _Chooser:
    """Walks the tensors in llama.cpp's order, counting those whose type depends on how deep they lie."""

    mixture: Mixture
    weighted: bool
    tied: bool
    layers: int
    value_projections: int
    grouped: bool
    shared_values: bool
    seen: dict[str, int] = field(default_factory=lambda: {"values": 0, "ffn_down": 0})

    @classmethod
    def of(cls, gguf: Gguf, mixture: Mixture, *, weighted: bool) -> _Chooser:
        layers = gguf.count("block_count")
        heads, heads_kv = gguf.hyper("attention.head_count"), gguf.hyper("attention.head_count_kv")
        return cls(
            mixture=mixture,
            weighted=weighted,
            tied="output.weight" not in gguf.tensors,
            layers=layers,
            value_projections=sum(map(_is_value, gguf.tensors)),
            grouped=isinstance(heads, int) and isinstance(heads_kv, int) and 0 < heads_kv <= heads // 4,
            # llama.cpp's LLM_TYPE_70B: heads share values, which are small then and get more bits.
            shared_values=layers == 80 and (gguf.architecture == "qwen2" or heads != heads_kv),
        )

    def choose(self, tensor: Tensor) -> Kind:
        if self.mixture.default is Kind.F16:
            return Kind.F16
        kind = self.by_name(tensor)
        if not _fits(tensor, kind):
            kind = SMALLER_BLOCKS.get(kind, kind)
        return kind if _fits(tensor, kind) else Kind.F16

    def by_name(self, tensor: Tensor) -> Kind:
        mixture, name = self.mixture, tensor.name
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return mixture.output if _fits(tensor, mixture.default) else Kind.Q8_0
        if name == "token_embd.weight":
            return mixture.embedding or mixture.default
        if _is_value(name):
            return self.value()
        if "attn_k.weight" in name or "attn_q.weight" in name:
            return mixture.query_key or mixture.default
        if "attn_output.weight" in name:
            return mixture.attention_output or mixture.default
        return self.down() if "ffn_down" in name else mixture.default

    def value(self) -> Kind:
        given = (self.mixture.grouped_value if self.grouped else None) or self.mixture.value
        chosen = given or self.deeper("values", self.value_projections)
        few_bits = (
            chosen is Kind.Q4_K and self.mixture.default is not Kind.IQ2_S
        )  # whose values have a branch of their own
        return Kind.Q5_K if self.shared_values and few_bits else chosen

    def down(self) -> Kind:
        first = self.mixture.first_down or (None if self.weighted else self.mixture.first_down_unweighted)
        if first is None:
            return self.deeper("ffn_down", self.layers)
        index = self.seen["ffn_down"]
        self.seen["ffn_down"] += 1
        return first if index < self.layers // 8 else self.mixture.default

    def deeper(self, counter: str, total: int) -> Kind:
        """More bits for the first and last eighth and every third between (use_more_bits)."""
        index = self.seen[counter]
        self.seen[counter] += 1
        more_bits = index < total // 8 or index >= 7 * total // 8 or (index - total // 8) % 3 == 2
        return self.mixture.more if self.mixture.more is not None and more_bits else self.mixture.default


def _is_value(name: str) -> bool:
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _fits(tensor: Tensor, kind: Kind) -> bool:
    block_elements, _ = GGML_QUANT_SIZES[kind]
    return bool(tensor.shape[-1] % block_elements == 0)


def _llama_order(tensor: Tensor) -> tuple[int, str]:
    """By layer, then name; what has no layer comes first (weight_name_comparer)."""
    found = re.match(r"blk\.(\d+)\.", tensor.name)
    return (int(found[1]) if found else -1, tensor.name)
