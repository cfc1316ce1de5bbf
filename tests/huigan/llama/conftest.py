"""The tiny Llama, made once a run: its Hugging Face folder, its 16-bit GGUF, and an adapter that does something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.huigan.llama.tiny import tiny_gguf, tiny_llama


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    tiny_llama(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Path:
    """The 16-bit GGUF."""
    return tiny_gguf(tiny_folder, tiny_folder.parent / "tiny.gguf").path


def tiny_adapter(weights: Path, folder: Path, *, effect: float = 0.05, **lora: Any) -> Any:
    """Saves an adapter on `weights` whose B matrices are random of size `effect`; returns the PEFT model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora}))
    for name, matrix in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(matrix, std=effect)
    adapted.save_pretrained(folder)
    return adapted


@pytest.fixture(scope="session")
def adapter_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    tiny_adapter(tiny_folder, folder)
    return folder
