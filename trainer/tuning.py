"""What of a base is trained: an adapter of one kind or another, its last layers, or all of it; and what is kept.

Whatever starts with something taken from the base (PiSSA, OLoRA, LoftQ) is kept as plain LoRA: the change that training
made, on the fixed base. What trains the base's own weights is kept as the tensors that changed. This module does not
know losses, rows or how long anything is trained.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from storage.contradictions import takes_from_base
from storage.recipe import Recipe, Train

LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Read by huigan.llama.adapter: tensors of the base, by their names in the Hugging Face weights, as they are to be.
CHANGED = "changed.safetensors"
BEGINNING = "beginning.safetensors"


def is_in_4bit(recipe: Recipe, settings: Train) -> bool:
    """`auto`: on a card, where an adapter is trained that can be: LoftQ is nothing without."""
    init = recipe.peft.get("init_lora_weights", True)
    if settings.load_in_4bit != "auto":
        return settings.load_in_4bit
    if init == "loftq":
        return True
    possible = settings.tune == "lora" and not settings.load_in_8bit and not takes_from_base(init)
    return possible and bool(torch.cuda.is_available())


def load_base(weights_dir: Path, settings: Train, *, in_4bit: bool, attention: str | None = None) -> Any:
    """The base, on this process's card. Its own weights are trained in float32: steps are too small for halves."""
    cuda = torch.cuda.is_available()
    dtype = half() if cuda and settings.tune == "lora" else torch.float32
    quantised = nf4(dtype) if in_4bit else int8() if settings.load_in_8bit else None
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights_dir,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        quantization_config=quantised,
        device_map={"": torch.cuda.current_device()} if cuda else None,
        attn_implementation=attention,
    )
    model.config.use_cache = False
    return model


def half() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def nf4(compute_dtype: torch.dtype) -> Any:
    """QLoRA's storage of the frozen base, arXiv 2305.14314."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def int8() -> Any:
    """LLM.int8(), arXiv 2208.07339."""
    return transformers.BitsAndBytesConfig(load_in_8bit=True)


def tuned(model: Any, weights_dir: Path, recipe: Recipe, settings: Train, start: Path | None, out_dir: Path) -> Any:
    """`model` with what is to be trained of it trainable, from what `start` holds if given, else as it is untaught."""
    if settings.tune == "lora":
        if start is not None:
            return with_adapter(model, start, is_trainable=True)
        return with_new_adapter(model, weights_dir, recipe, out_dir)
    if start is not None:
        put_back(model, start)
    if settings.tune == "freeze":
        free = {id(each) for layer in layers_of(model)[-settings.trained_layers :] for each in layer.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad = id(parameter) in free
    return model


def layers_of(model: Any) -> Any:
    return model.get_decoder().layers


def put_back(model: Any, folder: Path) -> None:
    """Changed tensors of an earlier training into the base that they belong to."""
    missing = model.load_state_dict(load_file(folder / CHANGED), strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"{folder} holds tensors that the base has not: {missing.unexpected_keys[:3]}")


def reference_of(weights_dir: Path, settings: Train, start: Path | None) -> Any:
    """What DPO and KTO compare with where weights of the base are trained: a frozen copy of what is started from."""
    model = load_base(weights_dir, settings, in_4bit=False)
    if start is not None:
        put_back(model, start)
    return model.eval().requires_grad_(requires_grad=False)


# ---- adapters


def with_adapter(model: Any, folder: Path, *, is_trainable: bool = False) -> Any:
    """An earlier adapter. peft would unpickle one, or fetch it, where there are no safetensors."""
    if not (folder / ADAPTER_FILES[1]).is_file():
        raise FileNotFoundError(f"{folder} has no {ADAPTER_FILES[1]}: save the adapter again, as safetensors")
    return PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)


def with_new_adapter(model: Any, weights_dir: Path, recipe: Recipe, out_dir: Path) -> Any:
    """A new adapter, which changes nothing yet.

    What it takes from the base is written down at the first start and taken again at every other, so that a training
    that is gone on from finds the very base it began with.
    """
    shape = LORA_DEFAULTS | recipe.peft
    init, kept = shape.pop("init_lora_weights", True), out_dir / BEGINNING
    if not takes_from_base(init):
        return get_peft_model(model, LoraConfig(**shape, init_lora_weights=init, task_type="CAUSAL_LM"))
    if not kept.is_file():
        at_once = init if init != "loftq" else True
        peft = get_peft_model(model, LoraConfig(**shape, init_lora_weights=at_once, task_type="CAUSAL_LM"))
        if init == "loftq":
            make_up(peft, weights_dir)
        save_whole(beginning_of(peft), kept)
    else:
        peft = get_peft_model(model, LoraConfig(**shape, init_lora_weights=False, task_type="CAUSAL_LM"))
        take(peft, load_file(kept), from_base=init != "loftq")
    # Whoever copies the adapter, as DPO's reference, must not take from the base again.
    peft.peft_config["default"].init_lora_weights = True
    return peft


def adapted(peft: Any) -> dict[str, Any]:
    """The adapted linear layers by the names that their tensors begin with in an adapter's file."""
    return {name: each for name, each in peft.named_modules() if isinstance(each, LoraLayer)}


def beginning_of(peft: Any) -> dict[str, torch.Tensor]:
    found = {}
    for name, layer in adapted(peft).items():
        for side in ("A", "B"):
            found[f"{name}.lora_{side}.weight"] = getattr(layer, f"lora_{side}")["default"].weight.detach().clone()
    return found


def take(peft: Any, beginning: Mapping[str, torch.Tensor], *, from_base: bool) -> None:
    """peft's own arithmetic, so that the rest of the base is the same to the bit."""
    for name, layer in adapted(peft).items():
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        a.copy_(beginning[f"{name}.lora_A.weight"])
        b.copy_(beginning[f"{name}.lora_B.weight"])
        if from_base:
            own = layer.get_base_layer().weight
            own.data = (own.data.float() - layer.scaling["default"] * b.float() @ a.float()).to(own.dtype)


def make_up(peft: Any, weights_dir: Path) -> None:
    """LoftQ, arXiv 2310.08659, one round: A and B are the best low-rank answer to what 4 bits lost. (peft's own needs a
    CUDA device, and leaves the adapter's scale out.)"""
    for name, layer in adapted(peft).items():
        own = layer.get_base_layer()
        whole = weight_of(weights_dir, f"{name.removeprefix('base_model.model.')}.weight")
        lost = whole - dequantize_module_weight(own).float().cpu()
        u, s, v = torch.linalg.svd(lost, full_matrices=False)
        rank, root = layer.r["default"], (s[: layer.r["default"]] / layer.scaling["default"]).sqrt()
        layer.lora_A["default"].weight.data.copy_(root[:, None] * v[:rank])
        layer.lora_B["default"].weight.data.copy_(u[:, :rank] * root)


def weight_of(weights_dir: Path, name: str) -> torch.Tensor:
    for file in weight_files(weights_dir):
        with safe_open(file, framework="pt") as opened:
            if name in opened.keys():  # noqa: SIM118, it is no mapping
                return opened.get_tensor(name).float()
    raise ValueError(f"{weights_dir} has no {name}")


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


# ---- what is kept


def keep(checkpoint: Path, weights_dir: Path, out_dir: Path) -> None:
    """What was trained, and nothing else, into `out_dir`/adapter: in a checkpoint it lies beside the optimiser, and
    beside the reference of DPO and KTO."""
    adapter_dir = out_dir / "adapter"
    adapter_dir.mkdir(exist_ok=True)
    if not (checkpoint / ADAPTER_FILES[0]).is_file():
        save_file(changed(checkpoint, weights_dir), adapter_dir / CHANGED)
    elif (out_dir / BEGINNING).is_file():
        keep_plain(checkpoint, out_dir / BEGINNING, adapter_dir)
    else:
        for name in ADAPTER_FILES:
            shutil.copyfile(checkpoint / name, adapter_dir / name)


def changed(checkpoint: Path, weights_dir: Path) -> dict[str, torch.Tensor]:
    """The tensors that training changed: all others are the base's."""
    found: dict[str, torch.Tensor] = {}
    for file in weight_files(checkpoint):
        kept = load_file(file)
        found |= {
            name: each for name, each in kept.items() if not torch.equal(each.float(), weight_of(weights_dir, name))
        }
    return found


def keep_plain(checkpoint: Path, beginning: Path, adapter_dir: Path) -> None:
    """B·A - B0·A0 as one LoRA of twice the rank, [B, -B0]·[A; A0], of the same scale (as peft's own conversion, which
    needs the model in memory and knows no LoftQ)."""
    config = json.loads((checkpoint / ADAPTER_FILES[0]).read_text())
    now, before = load_file(checkpoint / ADAPTER_FILES[1]), load_file(beginning)
    for name, values in now.items():
        first = before[name].to(values.dtype)
        now[name] = torch.cat([values, first]) if ".lora_A." in name else torch.cat([values, -first], dim=1)
    factor = math.sqrt(2) if config.get("use_rslora") else 2
    config |= {"r": 2 * config["r"], "lora_alpha": factor * config["lora_alpha"], "init_lora_weights": True}
    config["rank_pattern"] = {name: 2 * each for name, each in (config.get("rank_pattern") or {}).items()}
    config["alpha_pattern"] = {name: factor * each for name, each in (config.get("alpha_pattern") or {}).items()}
    save_file({name: each.contiguous() for name, each in now.items()}, adapter_dir / ADAPTER_FILES[1])
    (adapter_dir / ADAPTER_FILES[0]).write_text(json.dumps(config, indent=1))


def save_whole(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    part = path.with_suffix(".part")
    save_file({name: each.contiguous().cpu() for name, each in tensors.items()}, part)
    part.replace(path)
