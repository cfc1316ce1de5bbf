"""Reads a LoRA adapter as PEFT saves it, and says for each GGUF tensor what becomes of it.

    W' = W + scale * B @ A        scale = alpha / r, or alpha / sqrt(r) with rsLoRA   (2106.09685, 2312.03732)
    W' = m * W'' / |W''|          W'' as above, each row to the length m that DoRA learnt (2402.09353)

A folder of tensors that replace the base's, from training its own weights, is read alike. Whatever else PEFT can write
is refused here, with what to do instead, because a merge that leaves a part out gives a model that nobody trained. It
knows nothing of quantising or torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

from huigan.llama.gguf import Floats, Gguf

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CHANGED = "changed.safetensors"  # whole tensors, by their names in the Hugging Face weights
FLOAT_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
# Architectures whose naming and row order are known here. llama.cpp's converter interleaves the rotary halves of the
# rows of q and k for Llama (LlamaModel.permute), not for Qwen.
PERMUTED = {"llama": True, "qwen2": False, "qwen3": False}
# Initialisations that leave the base weights alone; PiSSA, OLoRA, LoftQ, CorDA and LoRA-GA subtract from them.
PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
LENGTHS = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?")
SPECIAL = {
    "modules_to_save": "whole modules were trained: train without modules_to_save",
    "trainable_token_indices": "token rows were trained: train without trainable_token_indices",
    "target_parameters": "bare parameters were adapted: name linear layers in target_modules",
    "lora_bias": "the adapter has biases: train with lora_bias = false",
    "fan_in_fan_out": "weights are transposed: train with fan_in_fan_out = false",
    "layer_replication": "layers were replicated: train without layer_replication",
    "alora_invocation_tokens": "an activated LoRA works on some tokens only: train without alora_invocation_tokens",
    "use_qalora": "QA-LoRA pools its inputs: train with use_qalora = false",
    "use_bdlora": "block-diagonal LoRA is laid out otherwise: train without use_bdlora",
    "velora_config": "VeLoRA is not plain LoRA: train without velora_config",
    "monteclora_config": "MonteCLoRA samples its weights: train without monteclora_config",
    "arrow_config": "Arrow routes between adapters: merge one adapter at a time",
    "kasa_config": "KaSA changes the base: train without kasa_config",
}


class BadAdapter(ValueError):
    """The adapter cannot be merged into this base; the message names the fix."""


class AdapterWithoutEffect(BadAdapter):
    """Every B is zero: merged, it would give the base back."""


@dataclass(frozen=True)
class Delta:
    """What is added to one tensor: scale * b @ a, with a (rank, columns) and b (rows, rank)."""

    a: Floats
    b: Floats
    scale: float

    def rows(self, rows: slice) -> Floats:
        scaled: Floats = self.b[rows] * np.float32(self.scale)
        return scaled @ self.a

    def applied(self, own: Floats, rows: slice) -> Floats:
        """To those rows of the base."""
        return own + self.rows(rows)


@dataclass(frozen=True)
class Rescaled:
    """DoRA: what is added, and then the length of each row, (rows,)."""

    delta: Delta
    lengths: Floats

    def applied(self, own: Floats, rows: slice) -> Floats:
        summed = self.delta.applied(own, rows)
        found = np.linalg.norm(summed, axis=1)
        factors = self.lengths[rows] / np.where(found > 0, found, np.float32(1))
        return np.asarray(summed * factors[:, None], np.float32)


@dataclass(frozen=True)
class Replacement:
    """A whole tensor, (rows, columns), in place of the base's."""

    values: Floats

    def applied(self, _own: Floats, rows: slice) -> Floats:
        return self.values[rows]


Change = Delta | Rescaled | Replacement


def read(folder: Path, base: Gguf) -> dict[str, Change]:
    """What becomes of each changed tensor of `base`, by its name in the GGUF; raises BadAdapter."""
    return dict(_replacements(folder / CHANGED, base) if (folder / CHANGED).is_file() else _adapted(folder, base))


def _replacements(path: Path, base: Gguf) -> dict[str, Replacement]:
    names, found = gguf_names(base), dict[str, Replacement]()
    for key, values in _tensors(path):
        module = key.removesuffix(".weight")
        name = names(module)
        ordered = _in_gguf_order(values, module, base) if values.ndim == 2 else values
        if ordered.shape != base.tensors[name].shape:
            raise BadAdapter(f"{key} is {ordered.shape}, but {name} of the base is {base.tensors[name].shape}")
        found[name] = Replacement(ordered.reshape(-1, ordered.shape[-1]))
    if not found:
        raise AdapterWithoutEffect(f"{path}: no tensor was changed: nothing was trained")
    return found


def _adapted(folder: Path, base: Gguf) -> dict[str, Delta | Rescaled]:
    config = _config(folder)
    _refuse_special(config)
    names = gguf_names(base)
    deltas = {}
    pairs, lengths = _pairs(folder)
    for module, (a, b) in pairs.items():
        name = names(module)
        delta = Delta(a, _in_gguf_order(b, module, base), _scale(config, module, rank=len(a)))
        deltas[name] = _checked(delta, name, module, base)
    if not any(delta.scale and delta.a.any() and delta.b.any() for delta in deltas.values()):
        raise AdapterWithoutEffect(f"{folder}: the adapter changes nothing (every B is zero): it was not trained")
    if not lengths:
        return dict(deltas)
    ordered = {names(module): _in_gguf_order(each[:, None], module, base)[:, 0] for module, each in lengths.items()}
    return {name: Rescaled(delta, ordered[name]) for name, delta in deltas.items()}


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise BadAdapter(f"{folder / CONFIG} cannot be read ({error}): name the folder that PEFT saved") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadAdapter(f"{folder} is not a LoRA adapter: only peft_type LORA can be merged")
    return config


def _refuse_special(config: Mapping[str, Any]) -> None:
    complaints = [why for key, why in SPECIAL.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        complaints.append('biases were trained: train with bias = "none"')
    if config.get("init_lora_weights", True) not in PLAIN_INITS:
        complaints.append(
            f"init_lora_weights = {config['init_lora_weights']!r} altered the base: convert the adapter to plain LoRA "
            "(peft: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    if complaints:
        raise BadAdapter("the adapter cannot be merged into the base: " + "; ".join(complaints))


def _pairs(folder: Path) -> tuple[dict[str, tuple[Floats, Floats]], dict[str, Floats]]:
    """(A, B) of each adapted module; and with DoRA the lengths of its rows."""
    sides: dict[str, dict[str, Floats]] = {}
    lengths: dict[str, Floats] = {}
    for key, values in _tensors(folder / WEIGHTS):
        if key.endswith(".base_layer.weight"):  # PEFT's copy of an adapted lm_head's own, untrained weights
            continue
        if of_rows := LENGTHS.fullmatch(key):
            lengths[of_rows["module"]] = values.reshape(-1)
            continue
        found = NAME.fullmatch(key)
        if found is None:
            raise BadAdapter(f"{key!r} is not a LoRA matrix of a linear layer: adapt linear layers only (all-linear)")
        sides.setdefault(found["module"], {})[found["side"]] = values
    for module, pair in sides.items():
        if (
            len(pair) != 2
            or any(side.ndim != 2 for side in pair.values())
            or len(pair["A"]) != pair["B"].shape[1]
            or not pair["A"].size
            or (lengths and len(lengths.get(module, ())) != len(pair["B"]))
        ):
            raise BadAdapter(f"{module}: A and B are missing or do not fit together: the adapter file is damaged")
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}, lengths


def _tensors(path: Path) -> Iterator[tuple[str, Floats]]:
    try:
        found = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, safetensors.SafetensorError) as error:
        raise BadAdapter(f"{path} cannot be read ({error}): save the adapter again as safetensors") from error
    for name, tensor in found:
        yield name, _floats(name, tensor)


def _floats(name: str, tensor: Mapping[str, Any]) -> Floats:
    if tensor["dtype"] == "BF16":  # unknown to numpy; its 16 bits are the upper half of a float32
        values = (np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16).view("<f4")
    elif tensor["dtype"] in FLOAT_DTYPES:
        values = np.frombuffer(tensor["data"], FLOAT_DTYPES[tensor["dtype"]]).astype(np.float32)
    else:
        raise BadAdapter(f"{name} is stored as {tensor['dtype']}: save the adapter in a float type")
    if not np.isfinite(values).all():
        raise BadAdapter(f"{name} holds infinite or undefined numbers: the training diverged, lower the learning rate")
    return values.reshape(tensor["shape"])


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    try:
        alpha = float(_patterned(config.get("alpha_pattern") or {}, module, config.get("lora_alpha")))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise BadAdapter(f"{CONFIG} has a lora_alpha or alpha_pattern that gives no number ({error})") from error
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _patterned(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule (get_pattern_key): the first pattern that matches the end of the module's name."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def gguf_names(base: Gguf) -> Callable[[str], str]:
    """From a module of the Hugging Face weights to its tensor in the GGUF; raises BadAdapter."""
    if base.architecture not in PERMUTED:
        raise BadAdapter(
            f"adapters for the architecture {base.architecture!r} cannot be merged in GGUF space "
            f"(known: {', '.join(PERMUTED)}): merge the Hugging Face weights and convert them"
        )
    architecture = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == base.architecture)
    names = get_tensor_name_map(architecture, base.count("block_count"))

    def gguf_name(module: str) -> str:
        name = names.get_name(module)
        if name == "output" and "output.weight" not in base.tensors:
            raise BadAdapter("the base ties lm_head to its embedding: train without lm_head in target_modules")
        if name is None or f"{name}.weight" not in base.tensors:
            raise BadAdapter(
                f"the base has no tensor for {module}: merge into the base that the adapter was trained on"
            )
        return f"{name}.weight"

    return gguf_name


def _in_gguf_order(b: Floats, module: str, base: Gguf) -> Floats:
    """Rows of B in the order of the GGUF's tensor (LlamaModel.permute in llama.cpp's conversion/llama.py)."""
    heads = {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}.get(module.rpartition(".")[2])
    if heads is None or not PERMUTED[base.architecture]:
        return b
    count = base.count(heads)
    if len(b) % (2 * count):
        raise BadAdapter(f"{module}: {len(b)} rows do not divide into {count} heads: this is another base's adapter")
    return b.reshape(count, 2, len(b) // count // 2, -1).swapaxes(1, 2).reshape(b.shape)


def _checked(delta: Delta, name: str, module: str, base: Gguf) -> Delta:
    shape = (len(delta.b), delta.a.shape[1])
    if shape != base.tensors[name].shape:
        raise BadAdapter(
            f"{module} changes {shape}, but {name} of the base is {base.tensors[name].shape}: "
            "merge into the base that the adapter was trained on"
        )
    return delta
