"""Types per tensor as llama.cpp chooses them, and bytes as ggml makes them."""

from __future__ import annotations

import ctypes
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGUFValueType
from gguf import GGMLQuantizationType as Kind

from huigan.llama.gguf import Gguf, KeyValue, Tensor, read
from huigan.llama.libllama import library
from huigan.llama.merge import QuantisedBase, quantise
from huigan.llama.quantise import MIXTURES, NotFinite, UnknownQuantisation, pack, tensor_types


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
SMOLLM2 = header("llama", 30, 576, 1536, 9, 3, vocabulary=49152, tied=True)
QWEN3_0_6B = header("qwen3", 28, 1024, 3072, 16, 8, vocabulary=151936, tied=True)


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
    types = tensor_types(header("llama", 80, 8192, 28672, 64, 8, vocabulary=128256, tied=False), "Q4_K_M")
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in range(80)} == {Kind.Q5_K, Kind.Q6_K}


def test_rows_that_no_block_divides_become_f16() -> None:
    odd = header("llama", 2, 40, 40, 2, 2, vocabulary=64, tied=False)
    assert tensor_types(odd, "Q4_K_M")["blk.0.attn_q.weight"] is Kind.F16
    assert tensor_types(odd, "Q8_0")["blk.0.attn_q.weight"] is Kind.F16


@pytest.mark.parametrize("quantisation", MIXTURES)
def test_norms_stay_float32_in_every_mixture(quantisation: str) -> None:
    types = tensor_types(LLAMA3_8B, quantisation)
    assert {kind for name, kind in types.items() if "norm" in name} == {Kind.F32}
    assert types["blk.5.attn_q.weight"] is MIXTURES[quantisation].default


def test_an_unknown_quantisation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownQuantisation, match=r"Q4_K_X.*Q4_K_M"):
        tensor_types(SMOLLM2, "Q4_K_X")


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q4_K, Kind.Q5_0, Kind.Q5_1])
@pytest.mark.parametrize("shape", ["bell", "heavy tails", "zeros"])
def test_packed_rows_are_ggml_s_own_to_the_byte(kind: Kind, shape: str) -> None:
    rng = np.random.default_rng(5)
    rows = {
        "bell": rng.standard_normal((64, 1536)),
        "heavy tails": rng.standard_cauchy((64, 1536)).clip(-1e4, 1e4),
        "zeros": np.zeros((64, 1536)),
    }[shape].astype(np.float32)
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    theirs = np.zeros((64, 1536 // block_elements * block_bytes), np.uint8)
    quantise_chunk = library().ggml_quantize_chunk
    quantise_chunk.restype = ctypes.c_size_t
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    quantise_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    assert quantise_chunk(int(kind), rows.ctypes.data, theirs.ctypes.data, 0, 64, 1536, None) == theirs.nbytes
    assert np.array_equal(pack(rows, kind), theirs)


def test_a_number_that_f16_cannot_hold_is_refused_rather_than_written_as_infinity() -> None:
    with pytest.raises(NotFinite, match="F16"):
        pack(np.full((1, 32), 70000, np.float32), Kind.F16)
    with pytest.raises(NotFinite, match="diverged"):
        pack(np.full((1, 32), np.nan, np.float32), Kind.Q8_0)


@pytest.mark.parametrize("quantisation", MIXTURES)
def test_a_quantised_file_says_what_it_is_and_keeps_every_other_key(
    tiny: Path, tmp_path: Path, quantisation: str
) -> None:
    source, result = read(tiny), read(quantise(tiny, tmp_path / "q.gguf", quantisation).path)
    assert result.value("general.file_type") == int(MIXTURES[quantisation].file_type)
    assert result.value("general.quantization_version") == 2
    changed = {"general.file_type", "general.quantization_version"}
    kept = {key: entry for key, entry in source.key_values.items() if key not in changed}
    assert {key: entry for key, entry in result.key_values.items() if key not in changed} == kept
    assert list(result.tensors) == list(source.tensors)


def test_what_is_quantised_already_is_not_quantised_again(tiny: Path, tmp_path: Path) -> None:
    once = quantise(tiny, tmp_path / "once.gguf", "Q8_0").path
    with pytest.raises(QuantisedBase, match="dequantise"):
        quantise(once, tmp_path / "twice.gguf", "Q4_K_M")
    assert not (tmp_path / "twice.gguf").exists()
