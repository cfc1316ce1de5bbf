"""Reads GGUF headers safely, gives tensors as float32 on demand, and streams new files out.

Nothing in a file is believed: every count, length and offset is checked against the file's size before it is used, so
a truncated or hostile file ends in `BadGguf`, not in a crash of llama.cpp. Key-values travel as the bytes they were
read as, so that tokenizer, chat template and rope settings cannot drift. It knows nothing of adapters or mixtures.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from gguf.quants import dequantize

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT_BYTES = 32
MAX_DIMENSIONS = 4
# Ten times the largest vocabulary with its merges: what claims more is not worth the memory that believing it takes.
MAX_HEADER_BYTES = 1 << 28
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING = int(GGUFValueType.STRING)
ARRAY = int(GGUFValueType.ARRAY)
# Elements worked on at a time: 64 MiB as float32, so that the embedding of a large model never lies in memory whole.
BLOCK_ELEMENTS = 1 << 24


class BadGguf(ValueError):
    """The file is not a GGUF that llama.cpp could load; the message says why and what to do."""


@dataclass(frozen=True)
class KeyValue:
    """One metadata entry; `raw` is the value exactly as it stands in the file."""

    key: str
    type: int
    raw: bytes

    @classmethod
    def of(cls, key: str, value: Any, kind: GGUFValueType, element: GGUFValueType | None = None) -> KeyValue:
        """Encodes a Python value; `element` is the type of a list's elements."""
        if element is None:
            return cls(key, int(kind), _encode(value, int(kind)))
        head = struct.pack("<IQ", int(element), len(value))
        return cls(key, ARRAY, head + b"".join(_encode(one, int(element)) for one in value))

    @property
    def value(self) -> Any:
        """A number, bool, str, or a list of them; undecodable text is replaced, never an error."""
        if self.type != ARRAY:
            return _decode(self.raw, self.type, 0)[0]
        element, count = struct.unpack_from("<IQ", self.raw)
        values, at = [], 12
        for _ in range(count):
            value, at = _decode(self.raw, element, at)
            values.append(value)
        return values


@dataclass(frozen=True)
class Tensor:
    """One tensor; `shape` in numpy's order (output rows first), `offset` in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int = 0

    @property
    def row_bytes(self) -> int:
        block_elements, block_bytes = GGML_QUANT_SIZES[self.type]
        return self.shape[-1] // int(block_elements) * int(block_bytes)

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class Gguf:
    """The header of a file that was found sound; tensor data is mapped when asked for."""

    path: Path
    key_values: dict[str, KeyValue]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.value("general.architecture", ""))

    def value(self, key: str, default: Any = None) -> Any:
        found = self.key_values.get(key)
        return default if found is None else found.value

    def hyper(self, key: str, default: Any = None) -> Any:
        """The architecture's own setting, as `llama.block_count` for `block_count`."""
        return self.value(f"{self.architecture}.{key}", default)

    def count(self, key: str) -> int:
        """A setting of the architecture's that llama.cpp cannot do without, and that is one number; raises BadGguf."""
        found = self.hyper(key)
        if not isinstance(found, int) or found < 1:
            raise BadGguf(f"{self.path} has {found!r} as its {self.architecture}.{key}: fetch or build it again")
        return found

    def stored(self, name: str) -> Bytes:
        """The tensor as it lies in the file, mapped, not read: (rows, bytes per row)."""
        tensor = self.tensors[name]
        shape = (tensor.rows, tensor.row_bytes)
        return np.memmap(self.path, dtype=np.uint8, mode="r", offset=tensor.offset, shape=shape)

    def floats(self, name: str, rows: slice = slice(None)) -> Floats:
        """Rows of the tensor as float32: (rows, columns). A copy, except for a tensor that is float32 already."""
        return _as_floats(self.stored(name)[rows], self.tensors[name].type)


@dataclass(frozen=True)
class Written:
    path: Path
    sha256: str
    nbytes: int


def blocks(tensor: Tensor) -> Iterator[slice]:
    """Row ranges of about BLOCK_ELEMENTS elements that cover the tensor."""
    step = max(1, BLOCK_ELEMENTS // tensor.shape[-1])
    return (slice(at, min(at + step, tensor.rows)) for at in range(0, tensor.rows, step))


def read(path: Path) -> Gguf:
    """Reads and checks the header; raises BadGguf."""
    if not path.is_file():
        raise BadGguf(f"{path} is not a file: check the path")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < len(MAGIC) + 20:
            raise BadGguf(f"{path} is too short to be a GGUF: fetch it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(path, data).parse()


def write(
    out: Path,
    key_values: Iterable[KeyValue],
    tensors: Sequence[Tensor],
    rows: Callable[[Tensor], Iterable[npt.NDArray[Any]]],
) -> Written:
    """Streams a file out, hashing as it goes: `rows(tensor)` yields the tensor's stored bytes in order, in pieces.

    Offsets in `tensors` are ignored and laid out anew. The file appears under its name complete or not at all.
    """
    entries = list(key_values)
    alignment = next((entry.value for entry in entries if entry.key == "general.alignment"), DEFAULT_ALIGNMENT_BYTES)
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as file:
            sink = _Sink(file)
            sink.write(_header(entries, _laid_out(tensors, alignment)))
            sink.pad(alignment)
            for tensor in tensors:
                _write_tensor(sink, tensor, rows(tensor), alignment)
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(out.parent)
    return Written(out, sink.digest.hexdigest(), sink.at)


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Parser:
    """Walks a header; `at` is the position, and nothing is read past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def parse(self) -> Gguf:
        if self.take(4, "the magic") != MAGIC:
            raise self.bad("it does not begin with 'GGUF'")
        version = self.number("<I", "the version")
        if version not in VERSIONS:
            raise self.bad(f"version {version} is not one of {VERSIONS} (a big-endian file reads so, too)")
        tensor_count, key_count = self.number("<Q", "a count"), self.number("<Q", "a count")
        left = len(self.data) - self.at
        if key_count > left // 13 or tensor_count > left // 25:
            raise self.bad(f"it claims {key_count} keys and {tensor_count} tensors, more than it has room for")
        key_values = self.unique(self.key_value() for _ in range(key_count))
        split = key_values.get("split.count")
        if split is not None and (split.type == ARRAY or split.value not in (0, 1)):
            raise self.bad("it is one part of a split file: join the parts with llama-gguf-split --merge")
        tensors = self.unique(self.tensor() for _ in range(tensor_count))
        return Gguf(self.path, key_values, self.placed(tensors, self.alignment(key_values)))

    def bad(self, why: str) -> BadGguf:
        return BadGguf(f"{self.path} is not a sound GGUF: {why}. Fetch or build it again")

    def take(self, size: int, what: str) -> bytes:
        if size > len(self.data) - self.at:
            raise self.bad(f"it ends inside {what} (truncated at {len(self.data)} bytes)")
        if self.at + size > MAX_HEADER_BYTES:
            raise self.bad(f"its header goes on for more than {MAX_HEADER_BYTES >> 20} MiB")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str, what: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        return int(value)

    def name(self, what: str) -> str:
        raw = self.take(self.number("<Q", what), what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8") from None

    def unique(self, found: Iterable[tuple[str, T]]) -> dict[str, T]:
        named: dict[str, T] = {}
        for name, one in found:
            if name in named:
                raise self.bad(f"{name!r} occurs twice")
            named[name] = one
        return named

    def key_value(self) -> tuple[str, KeyValue]:
        key = self.name("a key")
        kind = self.number("<I", f"the type of {key!r}")
        start = self.at
        self.skip(kind, key)
        return key, KeyValue(key, kind, self.data[start : self.at])

    def skip(self, kind: int, key: str) -> None:
        """Steps over a value, checking that all of it is there."""
        if kind in SCALARS:
            self.take(struct.calcsize(SCALARS[kind]), key)
        elif kind == STRING:
            self.take(self.number("<Q", key), key)
        elif kind == ARRAY:
            self.skip_array(key)
        else:
            raise self.bad(f"{key!r} has unknown type {kind}")

    def skip_array(self, key: str) -> None:
        element, count = self.number("<I", key), self.number("<Q", key)
        if element in SCALARS:
            self.take(struct.calcsize(SCALARS[element]) * count, key)
        elif element == STRING:
            for _ in range(count):  # each takes at least its 8 bytes of length, so a huge count ends at the file's end
                self.take(self.number("<Q", key), key)
        else:
            raise self.bad(f"{key!r} is an array of type {element}, which llama.cpp does not read")

    def tensor(self) -> tuple[str, Tensor]:
        """A tensor whose offset is still relative to the data section."""
        name = self.name("a tensor's name")
        dimensions = self.number("<I", name)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self.bad(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(reversed([self.number("<Q", name) for _ in range(dimensions)]))
        kind, offset = self.number("<I", name), self.number("<Q", name)
        if kind not in set(GGMLQuantizationType) or min(shape) < 1:
            raise self.bad(f"tensor {name!r} has type {kind} and shape {shape}")
        tensor = Tensor(name, shape, GGMLQuantizationType(kind), offset)
        if shape[-1] % GGML_QUANT_SIZES[tensor.type][0]:
            raise self.bad(f"tensor {name!r}: rows of {shape[-1]} cannot be stored as {tensor.type.name}")
        return name, tensor

    def alignment(self, key_values: dict[str, KeyValue]) -> int:
        entry = key_values.get("general.alignment")
        if entry is None:
            return DEFAULT_ALIGNMENT_BYTES
        if entry.type != int(GGUFValueType.UINT32) or entry.value < 1 or entry.value & (entry.value - 1):
            raise self.bad("general.alignment is not a power of two")
        return int(entry.value)

    def placed(self, tensors: dict[str, Tensor], alignment: int) -> dict[str, Tensor]:
        """Offsets made absolute. Like llama.cpp, only tensors one after another without gaps or overlaps are taken."""
        start = self.at + -self.at % alignment
        for given, due in zip(tensors.values(), _laid_out(tensors.values(), alignment), strict=True):
            if given.offset != due.offset:
                raise self.bad(f"tensor {given.name!r} lies at {given.offset}, expected at {due.offset}")
            if start + due.offset + due.nbytes > len(self.data):
                raise self.bad(f"it ends before tensor {given.name!r} does (truncated at {len(self.data)} bytes)")
        return {name: replace(tensor, offset=start + tensor.offset) for name, tensor in tensors.items()}


class _Sink:
    """A file with a running hash and position."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.at = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.at += len(data)

    def pad(self, alignment: int) -> None:
        self.write(bytes(-self.at % alignment))


def _write_tensor(sink: _Sink, tensor: Tensor, pieces: Iterable[npt.NDArray[Any]], alignment: int) -> None:
    start = sink.at
    for piece in pieces:
        sink.write(np.ascontiguousarray(piece).data.cast("B"))
    if sink.at - start != tensor.nbytes:
        raise AssertionError(f"{tensor.name}: {sink.at - start} bytes came for {tensor.nbytes}")
    sink.pad(alignment)


def _laid_out(tensors: Iterable[Tensor], alignment: int) -> Iterator[Tensor]:
    at = 0
    for tensor in tensors:
        yield replace(tensor, offset=at)
        at += tensor.nbytes + -tensor.nbytes % alignment


def _header(entries: Sequence[KeyValue], laid_out: Iterable[Tensor]) -> bytes:
    infos = [
        _string(tensor.name)
        + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        + struct.pack("<IQ", int(tensor.type), tensor.offset)
        for tensor in laid_out
    ]
    counts = struct.pack("<IQQ", VERSIONS[-1], len(infos), len(entries))
    pairs = [_string(entry.key) + struct.pack("<I", entry.type) + entry.raw for entry in entries]
    return b"".join((MAGIC, counts, *pairs, *infos))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _encode(value: Any, kind: int) -> bytes:
    return _string(value) if kind == STRING else struct.pack(SCALARS[kind], value)


def _decode(raw: bytes, kind: int, at: int) -> tuple[Any, int]:
    if kind == STRING:
        (size,) = struct.unpack_from("<Q", raw, at)
        return raw[at + 8 : at + 8 + size].decode(errors="replace"), at + 8 + size
    return struct.unpack_from(SCALARS[kind], raw, at)[0], at + struct.calcsize(SCALARS[kind])


def _as_floats(stored: Bytes, kind: GGMLQuantizationType) -> Floats:
    try:
        floats: Floats = dequantize(stored, kind)
    except NotImplementedError as error:
        raise BadGguf(f"tensors of type {kind.name} cannot be read here: start from the 16-bit weights") from error
    return floats
