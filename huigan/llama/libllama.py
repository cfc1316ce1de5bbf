"""llama.cpp's C API through ctypes, from the shared library inside the xllamacpp wheel: tokens in, logits out.

ctypes cannot see a header, so the layout of the three structs passed by value is pinned to one version of the wheel
and checked against known default values before anything else is called. Whatever goes wrong in C takes the process
with it: only `huigan.llama.score`'s child imports this. It knows nothing of chats, scores or gates.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from huigan.llama.gguf import Floats

PINNED_VERSION = "2026.10.11549"
BATCH_TOKENS = 512
WARNING_LEVEL = 3  # GGML_LOG_LEVEL_WARN
# What llama_context_default_params() of the pinned version returns: wrong values mean a wrong layout.
CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_threads": 4,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "yarn_beta_slow": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
}


class LlamaError(RuntimeError):
    """llama.cpp refused; the message carries its own words where it had any."""


class _ModelParams(ctypes.Structure):
    """Passed on as llama_model_default_params() fills it, so its fields need no names."""

    _fields_ = [("opaque", c_uint64 * 10)]


class _ContextParams(ctypes.Structure):
    _fields_ = [
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")),
        *((name, c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")),
        *((name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        *((name, c_void_p) for name in ("cb_eval", "cb_eval_user_data")),
        *((name, c_int32) for name in ("type_k", "type_v")),
        *((name, c_void_p) for name in ("abort_callback", "abort_callback_data", "unnamed")),
        *((name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LogCallback, c_void_p]),
    "llama_model_default_params": (_ModelParams, []),
    "llama_context_default_params": (_ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, _ModelParams]),
    "llama_init_from_model": (c_void_p, [c_void_p, _ContextParams]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_n_ctx_seq": (c_uint32, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_token_to_piece": (c_int32, [c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool]),
    "llama_batch_init": (_Batch, [c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, _Batch]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_adapter_lora_init": (c_void_p, [c_void_p, c_char_p]),
    "llama_set_adapters_lora": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
}


@dataclass(frozen=True)
class Step:
    """One token to be decoded: which, where, of which sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    output: bool


class Model:
    """A loaded GGUF with room for `sequences` texts of `context_tokens` each. Lives as long as its process."""

    def __init__(
        self, gguf: Path, *, context_tokens: int, sequences: int, threads: int, adapter: Path | None = None
    ) -> None:
        """`adapter` is a LoRA as a GGUF of its own, which llama.cpp adds to every layer as it computes."""
        self._lib = library()
        self._complaints: list[str] = []
        self._callback = _listening(self._complaints)  # llama.cpp keeps the pointer, so the object must live on
        self._lib.llama_log_set(self._callback, None)
        self._model = self._lib.llama_model_load_from_file(str(gguf).encode(), self._lib.llama_model_default_params())
        if not self._model:
            raise LlamaError(f"llama.cpp cannot load {gguf}: {self._last_words()}")
        params = self._lib.llama_context_default_params()
        # Sequences keep apart (kv_unified stays false): sharing the cache changed logits by more than 1 with the
        # places that neighbours happened to take.
        params.n_ctx, params.n_seq_max = context_tokens * sequences, sequences
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise LlamaError(f"no room for {sequences} sequences of {context_tokens} tokens: {self._last_words()}")
        if adapter is not None:
            self._put_on(adapter)
        self._vocabulary = self._lib.llama_model_get_vocab(self._model)
        self._memory = self._lib.llama_get_memory(self._context)
        self._batch = self._lib.llama_batch_init(BATCH_TOKENS, 0, 1)
        self.vocabulary_size = int(self._lib.llama_vocab_n_tokens(self._vocabulary))

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; with `special`, control tokens in the text are read as such and BOS is added if the file says."""
        raw = text.encode()
        room = (c_int32 * (len(raw) + 8))()
        count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), room, len(room), special, special)
        if count < 0:
            raise LlamaError(f"a text of {len(raw)} bytes cannot be tokenised")
        return list(room[:count])

    def piece(self, token: int) -> bytes:
        """The token's bytes (which may be half a character); control tokens have none."""
        room = ctypes.create_string_buffer(256)
        count = self._lib.llama_token_to_piece(self._vocabulary, token, room, len(room), 0, False)
        if count < 0:
            raise LlamaError(f"token {token} has no text")
        return room.raw[:count]

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))

    def decode(self, steps: Sequence[Step]) -> Floats:
        """Logits (outputs, vocabulary) of at most BATCH_TOKENS steps; valid until the next call."""
        for index, step in enumerate(steps):
            self._batch.token[index], self._batch.pos[index] = step.token, step.position
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, step.sequence
            self._batch.logits[index] = step.output
        self._batch.n_tokens = len(steps)
        if status := self._lib.llama_decode(self._context, self._batch):
            raise LlamaError(f"llama_decode failed with {status}: {self._last_words()}")
        outputs = sum(step.output for step in steps)
        if not outputs:
            return np.empty((0, self.vocabulary_size), np.float32)
        return np.ctypeslib.as_array(self._lib.llama_get_logits(self._context), (outputs, self.vocabulary_size))

    def forget(self, sequence: int) -> None:
        """Frees the sequence's cells."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _put_on(self, adapter: Path) -> None:
        lora = self._lib.llama_adapter_lora_init(self._model, str(adapter).encode())
        if not lora or self._lib.llama_set_adapters_lora(self._context, (c_void_p * 1)(lora), 1, (c_float * 1)(1.0)):
            raise LlamaError(f"llama.cpp cannot add {adapter}: {self._last_words()}")

    def _last_words(self) -> str:
        return " ".join(self._complaints[-3:]) or "it did not say why"


def library() -> ctypes.CDLL:
    """The shared library, its version and layout checked."""
    try:
        version = importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        raise LlamaError("xllamacpp is not installed: pip install 'huigan[train]'") from None
    if version != PINNED_VERSION:
        raise LlamaError(
            f"xllamacpp {version} is installed: install xllamacpp=={PINNED_VERSION}, whose layout is known"
        )
    found = importlib.util.find_spec("xllamacpp")
    assert found is not None
    assert found.origin is not None
    lib = ctypes.CDLL(str(Path(found.origin).parent / "xllamacpp.abi3.so"))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    _check_layout(lib)
    lib.llama_backend_init()
    return lib


def _check_layout(lib: ctypes.CDLL) -> None:
    defaults = lib.llama_context_default_params()
    wrong = [name for name, value in CONTEXT_DEFAULTS.items() if getattr(defaults, name) != value]
    batch = lib.llama_batch_init(1, 0, 1)
    if wrong or batch.n_tokens or batch.embd or not (batch.token and batch.seq_id and batch.seq_id[0] and batch.logits):
        raise LlamaError(f"llama.cpp's structs are laid out otherwise than expected ({wrong or 'llama_batch'})")


def _listening(complaints: list[str]) -> Any:
    """A log callback that keeps the last warnings and errors."""

    def hear(level: int, text: bytes, _: object) -> None:
        if level >= WARNING_LEVEL:
            complaints.append(text.decode(errors="replace").strip())
            del complaints[:-20]

    return LogCallback(hear)
