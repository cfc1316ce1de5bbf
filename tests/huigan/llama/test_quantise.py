"""Types per tensor as llama.cpp chooses them, and bytes as ggml makes them."""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from pathlib import Path
from typing import get_args

import libgguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGUFValueType
from gguf import GGMLQuantizationType as Kind

from huigan.llama import importance
from huigan.llama.gguf import Gguf, KeyValue, Tensor, read
from huigan.llama.importance import BadImportance, Observed
from huigan.llama.libllama import library
from huigan.llama.merge import QuantisedBase, quantise
from huigan.llama.quantise import (
    MIXTURES,
    SHARED_ELEMENTS,
    UNWEIGHTED,
    ImportanceMissing,
    NotFinite,
    UnknownQuantisation,
    is_weight,
    pack,
    tensor_types,
)
from storage.recipe import WEIGHTED_ONLY, Quantisation


def header(
    architecture: str, layers: int, width: int, ffn: int, heads: int, heads_kv: int, *, vocabulary: int, tied: bool
) -> Gguf:
    """A dense decoder's header, without a file behind it."""
    kv_width = width // heads * heads_kv
    shapes = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    if not tied:
        shapes["output.weight"] = (vocabulary, width)
    for layer in range(layers):
        for name, shape in {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv_width, width),
            "attn_v": (kv_width, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (ffn, width),
            "ffn_up": (ffn, width),
            "ffn_down": (width, ffn),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    tensors = {name: Tensor(name, shape, Kind.F32 if len(shape) == 1 else Kind.F16) for name, shape in shapes.items()}
    counts = {"block_count": layers, "attention.head_count": heads, "attention.head_count_kv": heads_kv}
    entries = [KeyValue.of("general.architecture", architecture, GGUFValueType.STRING)]
    entries += [KeyValue.of(f"{architecture}.{key}", count, GGUFValueType.UINT32) for key, count in counts.items()]
    return Gguf(Path("absent.gguf"), {entry.key: entry for entry in entries}, tensors)


LLAMA3_8B = header("llama", 32, 4096, 14336, 32, 8, vocabulary=128256, tied=False)
SEVENTY_B = header("llama", 80, 8192, 28672, 64, 8, vocabulary=128256, tied=False)
SMOLLM2 = header("llama", 30, 576, 1536, 9, 3, vocabulary=49152, tied=True)
QWEN3_0_6B = header("qwen3", 28, 1024, 3072, 16, 8, vocabulary=151936, tied=True)


def weighing(gguf: Gguf) -> dict[str, np.ndarray]:
    """An importance of one for every column of every layer's weights, as llama.cpp collects it for no others."""
    inside = [tensor for tensor in gguf.tensors.values() if is_weight(tensor) and tensor.name not in UNWEIGHTED]
    return {tensor.name: np.ones(tensor.shape[-1], np.float32) for tensor in inside}


def types_of(gguf: Gguf, quantisation: str, *, weighted: bool) -> dict[str, Counter[str]]:
    """How many tensors of each kind (attn_q, token_embd …) have which type."""
    found: dict[str, Counter[str]] = {}
    importance = weighing(gguf) if weighted else None
    for name, kind in tensor_types(gguf, quantisation, importance).items():
        found.setdefault(name.split(".")[-2], Counter())[kind.name] += 1
    return found


def test_llama_3_8b_as_q4_k_m_has_the_types_that_llama_cpp_prints_for_it() -> None:
    types = tensor_types(LLAMA3_8B, "Q4_K_M")
    # "type f32: 65, type q4_K: 193, type q6_K: 33" in the load log of every published file (without rope_freqs).
    assert Counter(types.values()) == {Kind.F32: 65, Kind.Q4_K: 193, Kind.Q6_K: 33}
    more_bits = [layer for layer in range(32) if types[f"blk.{layer}.ffn_down.weight"] is Kind.Q6_K]
    assert more_bits == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert more_bits == [layer for layer in range(32) if types[f"blk.{layer}.attn_v.weight"] is Kind.Q6_K]
    assert types["output.weight"] is Kind.Q6_K
    assert types["token_embd.weight"] is Kind.Q4_K


def test_rows_of_576_fall_back_to_types_with_smaller_blocks() -> None:
    types = tensor_types(SMOLLM2, "Q4_K_M")
    assert types["token_embd.weight"] is Kind.Q8_0
    assert types["blk.0.attn_q.weight"] is Kind.Q5_0
    assert types["blk.0.attn_v.weight"] is Kind.Q8_0
    assert types["blk.4.attn_v.weight"] is Kind.Q5_0
    assert types["blk.0.ffn_down.weight"] is Kind.Q6_K
    assert types["blk.4.ffn_down.weight"] is Kind.Q4_K


def test_a_tied_embedding_is_stored_as_well_as_an_output() -> None:
    assert tensor_types(QWEN3_0_6B, "Q4_K_M")["token_embd.weight"] is Kind.Q6_K
    assert tensor_types(QWEN3_0_6B, "Q8_0")["token_embd.weight"] is Kind.Q8_0


def test_seventy_b_with_shared_values_gives_them_more_bits() -> None:
    types = tensor_types(SEVENTY_B, "Q4_K_M")
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in range(80)} == {Kind.Q5_K, Kind.Q6_K}


def test_rows_that_no_block_divides_become_f16() -> None:
    odd = header("llama", 2, 40, 40, 2, 2, vocabulary=64, tied=False)
    assert tensor_types(odd, "Q4_K_M")["blk.0.attn_q.weight"] is Kind.F16
    assert tensor_types(odd, "Q8_0")["blk.0.attn_q.weight"] is Kind.F16


@pytest.mark.parametrize("quantisation", MIXTURES)
def test_norms_stay_float32_in_every_mixture(quantisation: str) -> None:
    types = tensor_types(LLAMA3_8B, quantisation, weighing(LLAMA3_8B))
    assert {kind for name, kind in types.items() if "norm" in name} == {Kind.F32}
    assert types["blk.5.ffn_up.weight"] is MIXTURES[quantisation].default


def test_the_recipe_s_menu_is_the_quantiser_s() -> None:
    assert list(get_args(Quantisation)) == list(MIXTURES)


@pytest.mark.parametrize("quantisation", MIXTURES)
def test_what_a_recipe_takes_for_rubbish_without_importance_is_refused_here(quantisation: str) -> None:
    if quantisation not in WEIGHTED_ONLY:
        assert tensor_types(LLAMA3_8B, quantisation)
        return
    with pytest.raises(ImportanceMissing, match=r"rubbish without an importance matrix.*more bits"):
        tensor_types(LLAMA3_8B, quantisation)


# What `llama-quantize --dry-run` of the pinned sdist's llama.cpp printed for files of these shapes.
PRINTED = json.loads((Path(__file__).parent / "llama_quantize.json").read_text())
SHAPES = {"llama3_8b": LLAMA3_8B, "seventy_b": SEVENTY_B, "smollm2": SMOLLM2, "qwen3_0.6b": QWEN3_0_6B}


@pytest.mark.parametrize("case", PRINTED)
def test_every_tensor_has_the_type_that_llama_cpp_s_own_quantiser_prints(case: str) -> None:
    shape, quantisation, weighted = case.split("/")
    assert types_of(SHAPES[shape], quantisation, weighted=weighted == "True") == PRINTED[case]


def test_an_unknown_quantisation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownQuantisation, match=r"Q4_K_X.*Q4_K_M"):
        tensor_types(SMOLLM2, "Q4_K_X")


KINDS = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS")
SLOW_TO_BEGIN = pytest.param(Kind.IQ2_S, marks=pytest.mark.long, id="IQ2_S")  # its tables take ten seconds to build


@pytest.mark.parametrize("kind", [*(pytest.param(Kind[name], id=name) for name in KINDS), SLOW_TO_BEGIN])
@pytest.mark.parametrize("shape", ["bell", "heavy tails", "zeros"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_packed_rows_are_ggml_s_own_to_the_byte(kind: Kind, shape: str, weighted: bool) -> None:
    rng = np.random.default_rng(5)
    rows = {
        "bell": rng.standard_normal((64, 1536)),
        "heavy tails": rng.standard_cauchy((64, 1536)).clip(-1e4, 1e4),
        "zeros": np.zeros((64, 1536)),
    }[shape].astype(np.float32)
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    theirs = np.zeros((64, 1536 // block_elements * block_bytes), np.uint8)
    columns = (rng.standard_normal(1536) ** 2 + 0.01).astype(np.float32)
    library().ggml_quantize_init(ctypes.c_int(int(kind)))
    quantise_chunk = library().ggml_quantize_chunk
    quantise_chunk.restype = ctypes.c_size_t
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    quantise_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    given = columns.ctypes.data if weighted else None
    assert quantise_chunk(int(kind), rows.ctypes.data, theirs.ctypes.data, 0, 64, 1536, given) == theirs.nbytes
    assert np.array_equal(pack(rows, kind, columns if weighted else None), theirs)


@pytest.mark.parametrize("rows", [1, 2, 7, SHARED_ELEMENTS // 256 + 1])
def test_rows_shared_among_cores_are_packed_as_one_by_one(rows: int) -> None:
    values = np.random.default_rng(6).standard_normal((rows, 256)).astype(np.float32)
    together = pack(values, Kind.Q4_K)
    assert len(together) == rows
    for at in {0, rows // 2, rows - 1}:
        assert np.array_equal(together[at], pack(values[at : at + 1], Kind.Q4_K)[0])


def test_what_matters_is_rounded_with_more_care() -> None:
    """The weighted error of every IQ and K type falls where the weights are known, and the plain one rises."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal((256, 512)).astype(np.float32)
    columns = (rng.standard_normal(512) ** 4 + 0.01).astype(np.float32)
    for kind in (Kind.Q4_K, Kind.Q5_K, Kind.IQ4_XS, Kind.IQ4_NL, Kind.IQ3_S):
        plain, weighted = (libgguf.dequantize_rows(pack(values, kind, given), kind) for given in (None, columns))
        errors = [((each - values) ** 2 * columns).sum() for each in (plain, weighted)]
        assert errors[1] < 0.95 * errors[0], kind


def test_a_number_that_f16_cannot_hold_is_refused_rather_than_written_as_infinity() -> None:
    with pytest.raises(NotFinite, match="F16"):
        pack(np.full((1, 32), 70000, np.float32), Kind.F16)
    with pytest.raises(NotFinite, match="diverged"):
        pack(np.full((1, 32), np.nan, np.float32), Kind.Q8_0)


@pytest.mark.parametrize("quantisation", MIXTURES)
def test_a_quantised_file_says_what_it_is_and_keeps_every_other_key(
    tiny: Path, tmp_path: Path, quantisation: str
) -> None:
    written = quantise(tiny, tmp_path / "q.gguf", quantisation, importance=matrix(tiny, tmp_path))
    source, result = read(tiny), read(written.path)
    assert result.value("quantize.imatrix.entries_count") == 14
    assert result.value("general.file_type") == int(MIXTURES[quantisation].file_type)
    assert result.value("general.quantization_version") == 2
    changed = {"general.file_type", "general.quantization_version", "quantize.imatrix.entries_count"}
    kept = {key: entry for key, entry in source.key_values.items() if key not in changed}
    assert {key: entry for key, entry in result.key_values.items() if key not in changed} == kept
    assert list(result.tensors) == list(source.tensors)


def matrix(gguf: Path, folder: Path) -> Path:
    """An importance matrix for every weight inside the layers of the file."""
    rng = np.random.default_rng(8)
    observed = {
        name: Observed(rng.random(len(each)).astype(np.float32) * 9, 9) for name, each in weighing(read(gguf)).items()
    }
    return importance.write(folder / "importance.gguf", observed, source="test", texts=3, text_tokens=3).path


def test_an_importance_matrix_is_llama_cpp_s_format_and_is_read_as_means(tiny: Path, tmp_path: Path) -> None:
    path = matrix(tiny, tmp_path)
    stored = read(path)
    assert stored.value("general.type") == "imatrix"
    assert [stored.value(f"imatrix.{key}") for key in ("datasets", "chunk_count", "chunk_size")] == [["test"], 3, 3]
    names = sorted(weighing(read(tiny)))
    assert list(stored.tensors) == [f"{name}.{part}" for name in names for part in ("in_sum2", "counts")]
    means = importance.read(path, read(tiny))
    assert len(means) == 14
    sums = stored.floats("blk.0.ffn_down.weight.in_sum2")[0]
    assert np.allclose(means["blk.0.ffn_down.weight"], sums / stored.floats("blk.0.ffn_down.weight.counts")[0, 0])


def test_an_importance_matrix_of_another_base_or_none_at_all_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = {"blk.0.attn_q.weight": Observed(np.ones(8, np.float32), 1)}
    path = importance.write(tmp_path / "other.gguf", other, source="test", texts=1, text_tokens=1).path
    with pytest.raises(BadImportance, match="another base"):
        quantise(tiny, tmp_path / "q.gguf", "IQ4_XS", importance=path)
    undefined = {"blk.0.attn_q.weight": Observed(np.full(256, np.nan, np.float32), 1)}
    path = importance.write(tmp_path / "nan.gguf", undefined, source="test", texts=1, text_tokens=1).path
    with pytest.raises(BadImportance, match="has no numbers"):
        quantise(tiny, tmp_path / "q.gguf", "IQ4_XS", importance=path)
    with pytest.raises(BadImportance, match="measure it again"):
        quantise(tiny, tmp_path / "q.gguf", "IQ4_XS", importance=tiny)
    assert not (tmp_path / "q.gguf").exists()


def test_what_is_quantised_already_is_not_quantised_again(tiny: Path, tmp_path: Path) -> None:
    once = quantise(tiny, tmp_path / "once.gguf", "Q8_0").path
    with pytest.raises(QuantisedBase, match="dequantise"):
        quantise(once, tmp_path / "twice.gguf", "Q4_K_M")
    assert not (tmp_path / "twice.gguf").exists()
