"""Sound files are read and written unchanged; damaged and hostile ones end in BadGguf, whatever the damage."""

from __future__ import annotations

import hashlib
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huigan.llama import gguf
from huigan.llama.gguf import BadGguf, KeyValue, Tensor

F32 = GGMLQuantizationType.F32


def small(folder: Path, *more: KeyValue, tensors: tuple[Tensor, ...] = (Tensor("a.weight", (2, 4), F32),)) -> Path:
    key_values = [KeyValue.of("general.architecture", "llama", GGUFValueType.STRING), *more]
    out = folder / "small.gguf"
    gguf.write(out, key_values, tensors, lambda tensor: [np.arange(8, dtype=np.float32).reshape(2, 4)])
    return out


def test_what_the_gguf_package_reads_from_a_file_we_read_too(tiny: Path) -> None:
    ours, theirs = gguf.read(tiny), GGUFReader(tiny)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    assert [tensor.offset for tensor in ours.tensors.values()] == [tensor.data_offset for tensor in theirs.tensors]
    for key, entry in ours.key_values.items():
        assert entry.value == theirs.fields[key].contents(), key


def test_a_file_written_again_is_the_same_to_the_byte_and_its_sha256_is_the_file_s(tiny: Path, tmp_path: Path) -> None:
    source = gguf.read(tiny)
    written = gguf.write(
        tmp_path / "copy.gguf",
        source.key_values.values(),
        list(source.tensors.values()),
        lambda tensor: (source.stored(tensor.name)[rows] for rows in gguf.blocks(tensor)),
    )
    assert written.path.read_bytes() == tiny.read_bytes()
    assert written.sha256 == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert written.nbytes == tiny.stat().st_size


def test_every_kind_of_value_survives_the_round_trip(tmp_path: Path) -> None:
    values = [
        KeyValue.of("text", "回甘\0🍵", GGUFValueType.STRING),
        KeyValue.of("negative", -5, GGUFValueType.INT64),
        KeyValue.of("flag", True, GGUFValueType.BOOL),
        KeyValue.of("words", ["", "茶"], GGUFValueType.ARRAY, GGUFValueType.STRING),
        KeyValue.of("halves", [0.5, -1.5], GGUFValueType.ARRAY, GGUFValueType.FLOAT32),
        KeyValue.of("nothing", [], GGUFValueType.ARRAY, GGUFValueType.UINT8),
    ]
    read = gguf.read(small(tmp_path, *values))
    assert [read.value(entry.key) for entry in values] == [entry.value for entry in values]
    assert read.value("text") == "回甘\0🍵"
    assert read.value("absent", 7) == 7


def test_a_file_cut_off_anywhere_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    whole = small(tmp_path).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(BadGguf, match=r"again"):
            gguf.read(cut)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_changed_is_read_or_refused_never_worse(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(small(tmp_path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(whole)
    try:
        tensors = gguf.read(changed).tensors.values()
    except BadGguf:
        tensors = ()
    assert all(tensor.offset + tensor.nbytes <= len(whole) for tensor in tensors)


HOSTILE = {
    "2**60 tensors": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
    "2**60 keys": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
    "a key of 2**63 bytes": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(32),
    "an array of 2**62 strings": b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**62) + bytes(64),
    "an array of arrays": b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1) + bytes(64),
    "an unknown type": b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99) + bytes(64),
    "no magic": b"PK\3\4" + bytes(64),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64),
    "2**31 dimensions": b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 2**31) + bytes(64),
    "a shape of zeros": b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 0, 0, 0) + bytes(64),
    "2**63 elements": b"GGUF" + struct.pack("<IQQQ1sIQQIQ", 3, 1, 0, 1, b"t", 2, 2**63, 2**63, 0, 0) + bytes(64),
    "an unknown tensor type": b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 4, 777, 0) + bytes(64),
    "data beyond the end": b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 4, 0, 2**40) + bytes(64),
    "a split of many parts, as a list": b"GGUF"
    + struct.pack("<IQQQ11sIIQ", 3, 0, 1, 11, b"split.count", 9, 0, 4)
    + bytes(64),
    "a name that is not UTF-8": b"GGUF" + struct.pack("<IQQQ1sII", 3, 0, 1, 1, b"\xff", 4, 1) + bytes(64),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    with pytest.raises(BadGguf):
        gguf.read(bad)


def test_a_header_that_claims_a_string_of_gigabytes_is_refused_before_memory_is_spent_on_it(tmp_path: Path) -> None:
    bad, length = tmp_path / "sparse.gguf", 40 << 30
    with bad.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQQ1sIQ", 3, 0, 1, 1, b"k", 8, length))
        file.truncate(length + 4096)  # nothing of it lies on the disk
    with pytest.raises(BadGguf, match="more than 256 MiB"):
        gguf.read(bad)


def u32() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 8, 9, 2**31, 2**32 - 1])


def u64() -> st.SearchStrategy[int]:
    return st.integers(0, 2**64 - 1) | st.integers(0, 40) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64 - 1])


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Of the right form, with any counts, types, shapes and offsets in it."""
    names = st.sampled_from([b"a", b"general.alignment", b"split.count", b"general.architecture", b"\xff"])

    def named() -> bytes:
        name = draw(names)
        return struct.pack("<Q", draw(st.just(len(name)) | u64())) + name

    def value() -> bytes:
        kind = draw(st.integers(0, 13))
        if kind == 9:
            return struct.pack("<IIQ", 9, draw(st.integers(0, 13)), draw(u64())) + draw(st.binary(max_size=40))
        return struct.pack("<I", kind) + draw(st.binary(max_size=16))

    def tensor() -> bytes:
        count = draw(st.integers(0, 5) | u32())
        shape = struct.pack(f"<{min(count, 6)}Q", *(draw(u64()) for _ in range(min(count, 6))))
        return named() + struct.pack("<I", count) + shape + struct.pack("<IQ", draw(u32()), draw(u64()))

    keys = [named() + value() for _ in range(draw(st.integers(0, 3)))]
    tensors = [tensor() for _ in range(draw(st.integers(0, 3)))]
    counts = [draw(st.just(len(each)) | u64()) for each in (tensors, keys)]
    version = draw(st.sampled_from([2, 3, 4]))
    tail = draw(st.binary(max_size=200))
    return b"".join((b"GGUF", struct.pack("<IQQ", version, *counts), *keys, *tensors, tail))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers())
def test_a_header_of_any_counts_shapes_and_offsets_is_refused_or_stays_within_the_file(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "any.gguf"
    path.write_bytes(content)
    try:
        tensors = list(gguf.read(path).tensors.values())
    except BadGguf:
        return
    spans = sorted((each.offset, each.offset + each.nbytes) for each in tensors)
    assert all(end <= len(content) for _, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    twice = Tensor("a.weight", (2, 4), F32)
    with pytest.raises(BadGguf, match="twice"):
        gguf.read(small(tmp_path, tensors=(twice, twice)))
    with pytest.raises(BadGguf, match="twice"):
        gguf.read(small(tmp_path, KeyValue.of("general.architecture", "llama", GGUFValueType.STRING)))


def test_one_part_of_a_split_file_is_refused_with_the_way_to_join_it(tmp_path: Path) -> None:
    with pytest.raises(BadGguf, match="llama-gguf-split --merge"):
        gguf.read(small(tmp_path, KeyValue.of("split.count", 2, GGUFValueType.UINT16)))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(BadGguf, match="not a file"):
            gguf.read(path)


def test_another_alignment_is_kept(tmp_path: Path) -> None:
    path = small(tmp_path, KeyValue.of("general.alignment", 128, GGUFValueType.UINT32))
    assert gguf.read(path).tensors["a.weight"].offset % 128 == 0
    assert gguf.read(path).floats("a.weight").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = small(tmp_path)
    before = path.read_bytes()

    def broken(tensor: Tensor) -> list[np.ndarray]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        gguf.write(path, [], [Tensor("a.weight", (2, 4), F32)], broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.weights
def test_the_real_file_reads_and_its_numbers_are_finite(smollm2_gguf: Path) -> None:
    read = gguf.read(smollm2_gguf)
    assert read.architecture == "llama"
    assert read.hyper("block_count") == 30
    assert len(read.value("tokenizer.ggml.tokens")) == 49152
    assert np.isfinite(read.floats("blk.0.ffn_down.weight", slice(0, 8))).all()
