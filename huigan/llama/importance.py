"""Which columns of each weight matter: mean squared input over real text, kept in llama.cpp's importance matrix format.

Quantising rounds a weight w of column i so that the sum of importance_i * (w_i - q_i)^2 is small, which is the error of
the layer's output where inputs are uncorrelated. llama.cpp's `llama-imatrix` writes the same file, its `llama-quantize`
reads it. This module does not know how inputs are observed, nor what is quantised.

The format: tools/imatrix/imatrix.cpp in llama.cpp (`save_imatrix`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import libgguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from huigan.llama.gguf import Floats, Gguf, KeyValue, Tensor, Written
from huigan.llama.gguf import write as write_gguf


class BadImportance(ValueError):
    """The file is no importance matrix of this base; the message names the fix."""


@dataclass(frozen=True)
class Observed:
    """Inputs of one linear layer: the sum of their squares by column, and how many there were."""

    squares: Floats
    tokens: int


def write(out: Path, observed: Mapping[str, Observed], *, source: str, texts: int, text_tokens: int) -> Written:
    """`observed` by the name of the tensor in the GGUF. `source` is a word for people on where the text came from;
    llama.cpp counts text in chunks of equal length: here in `texts` of `text_tokens` in the mean."""
    values = {}
    for name in sorted(observed):
        values[f"{name}.in_sum2"] = observed[name].squares.astype(np.float32)[None, :]
        values[f"{name}.counts"] = np.array([[observed[name].tokens]], np.float32)
    tensors = [Tensor(name, value.shape, GGMLQuantizationType.F32) for name, value in values.items()]
    text, uint32 = GGUFValueType.STRING, GGUFValueType.UINT32
    key_values = [
        KeyValue.of("general.type", "imatrix", text),
        KeyValue.of("imatrix.datasets", [source], GGUFValueType.ARRAY, text),
        KeyValue.of("imatrix.chunk_count", texts, uint32),
        KeyValue.of("imatrix.chunk_size", text_tokens, uint32),
    ]
    return write_gguf(out, key_values, tensors, lambda tensor: [values[tensor.name]])


def read(path: Path, base: Gguf) -> dict[str, Floats]:
    """The mean squared input of each column, by tensor; raises BadImportance. Both of llama.cpp's formats are read."""
    try:
        found = libgguf.load_imatrix(path)
    except (OSError, ValueError) as error:
        raise BadImportance(f"{path} is no importance matrix ({error}): measure it again, or leave it out") from error
    for name, means in found.items():
        if name not in base.tensors or base.tensors[name].shape[-1] != len(means):
            raise BadImportance(f"{path} tells of {name} with {len(means)} columns: it was measured on another base")
        if not np.isfinite(means).all() or (means < 0).any():
            raise BadImportance(f"{path} has no numbers for {name}: measure it again, or leave it out")
    return dict(found)
