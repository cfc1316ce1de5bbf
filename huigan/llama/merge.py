"""Merges an adapter into a 16-bit GGUF and quantises, one block of rows at a time.

All key-values are copied from the base as they are, so tokenizer, chat template and rope settings are the base's by
construction. Memory holds a block of rows, never a model, so an 8B base merges on a machine that could not load it.
It knows nothing of runs, verdicts or servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType

from huigan.llama import adapter
from huigan.llama import importance as importances
from huigan.llama.adapter import Change
from huigan.llama.gguf import Floats, Gguf, KeyValue, Tensor, Written, blocks, read, write
from huigan.llama.quantise import is_weight, mixture, pack, tensor_types

Progress = Callable[[str, int, int], None]
UNQUANTISED = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


class QuantisedBase(ValueError):
    """The base is quantised already; adding to it or quantising it again would compound the losses."""


def silent(what: str, done: int, total: int) -> None:
    """A progress callback that tells nobody."""


def merge(
    base: Path,
    adapter_folder: Path,
    out: Path,
    quantisation: str,
    *,
    importance: Path | None = None,
    progress: Progress = silent,
) -> Written:
    """Writes base + adapter, quantised, to `out`; `importance` is an importance matrix in llama.cpp's format.

    Raises BadGguf, QuantisedBase, BadAdapter (or AdapterWithoutEffect), BadImportance, ImportanceMissing,
    UnknownQuantisation, NotFinite, OSError.
    """
    source = _unquantised(base)
    deltas = adapter.read(adapter_folder, source)
    return rewrite(source, out, quantisation, deltas, what="merge", importance=importance, progress=progress)


def quantise(
    base: Path, out: Path, quantisation: str, *, importance: Path | None = None, progress: Progress = silent
) -> Written:
    """Writes the base, quantised, to `out`: what a merged file is compared with."""
    source = _unquantised(base)
    return rewrite(source, out, quantisation, {}, what="quantise", importance=importance, progress=progress)


def rewrite(
    source: Gguf,
    out: Path,
    quantisation: str,
    deltas: Mapping[str, Change],
    *,
    what: str,
    importance: Path | None = None,
    progress: Progress,
) -> Written:
    """Writes `source` again with `deltas` added and every weight in the type that `quantisation` gives it."""
    matters = None if importance is None else importances.read(importance, source)
    kinds = tensor_types(source, quantisation, matters)
    planned = [Tensor(tensor.name, tensor.shape, kinds[tensor.name]) for tensor in source.tensors.values()]
    done = iter(range(1, len(planned) + 1))

    def rows(tensor: Tensor) -> Iterator[npt.NDArray[Any]]:
        yield from _rows(source, tensor, deltas.get(tensor.name), (matters or {}).get(tensor.name))
        progress(what, next(done), len(planned))

    return write(out, _key_values(source, quantisation, len(matters or {})), planned, rows)


def _rows(source: Gguf, tensor: Tensor, delta: Change | None, importance: Floats | None) -> Iterator[npt.NDArray[Any]]:
    for block in blocks(tensor):
        if delta is not None:
            yield pack(delta.applied(source.floats(tensor.name, block), block), tensor.type, importance)
        elif tensor.type == source.tensors[tensor.name].type:
            yield source.stored(tensor.name)[block]
        else:
            yield pack(source.floats(tensor.name, block), tensor.type, importance)


def _unquantised(base: Path) -> Gguf:
    source = read(base)
    for tensor in source.tensors.values():
        if is_weight(tensor) and tensor.type not in UNQUANTISED:
            raise QuantisedBase(
                f"{base} is quantised ({tensor.name} is {tensor.type.name}): use the 16-bit weights it was made from, "
                "or write a 16-bit copy with huigan.llama.convert.dequantise"
            )
    return source


def _key_values(source: Gguf, quantisation: str, weighted: int) -> Iterable[KeyValue]:
    """The base's, and what the file is by now; `weighted` counts the tensors whose importance was known."""
    uint32 = GGUFValueType.UINT32
    own = [
        KeyValue.of("general.file_type", int(mixture(quantisation).file_type), uint32),
        KeyValue.of("general.quantization_version", GGML_QUANT_VERSION, uint32),
    ]
    if weighted:  # as llama.cpp's quantiser notes it
        own.append(KeyValue.of("quantize.imatrix.entries_count", weighted, uint32))
    return {**source.key_values, **{each.key: each for each in own}}.values()
