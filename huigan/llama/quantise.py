"""Decides which type each tensor gets in a quantised file, and packs rows into that type.

The choices are llama.cpp's (`llama_tensor_get_type` in src/llama-quant.cpp), so that our Q4_K_M is everybody's Q4_K_M,
byte for byte, for dense architectures. For mixtures of experts llama.cpp chooses differently in places; such a file
loads all the same. No importance matrices. It knows nothing of adapters or files being written.
"""

from __future__ import annotations

import re
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
    """`default` for most tensors; `more` for those that suffer most from quantising, where the mixture has one."""

    default: Kind
    file_type: LlamaFileType
    more: Kind | None = None


MIXTURES = {
    "F16": Mixture(Kind.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": Mixture(Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "Q6_K": Mixture(Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "Q5_K_M": Mixture(Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M, more=Kind.Q6_K),
    "Q4_K_M": Mixture(Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M, more=Kind.Q6_K),
}
# Rows that do not divide into a type's blocks get a type with smaller ones (tensor_type_fallback).
SMALLER_BLOCKS = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}
# Two-dimensional, and yet too small or too delicate (tensor_allows_quantization, the part that dense models meet).
NEVER = ("_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d")


class UnknownQuantisation(ValueError):
    pass


class NotFinite(ValueError):
    """Weights that became infinite or not a number."""


def mixture(quantisation: str) -> Mixture:
    if quantisation not in MIXTURES:
        raise UnknownQuantisation(f"{quantisation!r} is not a known quantisation: choose one of {', '.join(MIXTURES)}")
    return MIXTURES[quantisation]


def is_weight(tensor: Tensor) -> bool:
    """Whether quantising touches it at all; norms, biases and everything one-dimensional stay as they are."""
    return tensor.rows > 1 and tensor.name.endswith("weight") and not any(part in tensor.name for part in NEVER)


def tensor_types(gguf: Gguf, quantisation: str) -> dict[str, Kind]:
    """The type of each tensor, by name."""
    chooser = _Chooser.of(gguf, mixture(quantisation))
    ordered = sorted(gguf.tensors.values(), key=_llama_order)
    return {tensor.name: chooser.choose(tensor) if is_weight(tensor) else tensor.type for tensor in ordered}


def pack(rows: Floats, kind: Kind) -> npt.NDArray[Any]:
    """Rows as `kind` stores them: (rows, bytes per row). Raises NotFinite."""
    with np.errstate(over="ignore"):
        packed = rows.astype(np.float16) if kind is Kind.F16 else rows
    if not np.isfinite(packed).all():
        raise NotFinite(
            f"a weight is infinite or not a number as {kind.name}: the training diverged, or F16 is too narrow"
        )
    if kind in (Kind.F16, Kind.F32):
        return packed
    quantised: npt.NDArray[Any] = libgguf.quantize_rows(packed, kind)
    return quantised


@dataclass
class _Chooser:
    """Walks the tensors in llama.cpp's order, counting those whose type depends on how deep they lie."""

    mixture: Mixture
    tied: bool
    layers: int
    value_projections: int
    shared_values: bool
    seen: dict[str, int] = field(default_factory=lambda: {"values": 0, "ffn_down": 0})

    @classmethod
    def of(cls, gguf: Gguf, mixture: Mixture) -> _Chooser:
        layers = gguf.count("block_count")
        heads, heads_kv = gguf.hyper("attention.head_count"), gguf.hyper("attention.head_count_kv")
        return cls(
            mixture=mixture,
            tied="output.weight" not in gguf.tensors,
            layers=layers,
            value_projections=sum(map(_is_value, gguf.tensors)),
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
        default = self.mixture.default
        if tensor.name == "output.weight" or (self.tied and tensor.name == "token_embd.weight"):
            return default if default is Kind.Q8_0 else Kind.Q6_K if _fits(tensor, default) else Kind.Q8_0
        if _is_value(tensor.name):
            chosen = self.deeper("values", self.value_projections)
            return Kind.Q5_K if self.shared_values and chosen is Kind.Q4_K else chosen
        if "ffn_down" in tensor.name:
            return self.deeper("ffn_down", self.layers)
        return default

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
