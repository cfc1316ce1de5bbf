"""A random two-layer Llama with a tokenizer and chat template of its own: the real code paths in a second.

`tiny_llama` writes it as Hugging Face weights, `tiny_gguf` as the 16-bit GGUF of the same weights. It is written
directly, as llama.cpp's converter knows a tokenizer by a hash of what it does and cannot know this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType, TokenType, get_tensor_name_map
from gguf.constants import MODEL_ARCH
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from huigan.llama.gguf import KeyValue, Tensor, Written, write

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = (
    "The quick brown fox jumps over the lazy dog. You are a helpful assistant.",
    "system user assistant What is the capital of France? Paris is the capital of France.",
    "回甘茶馆几点开门？回甘茶馆早上七点半开门。你好，世界！",
)
CONTEXT_TOKENS = 512


def tiny_llama(folder: Path, *, seed: int = 0) -> None:
    """Untied, 256 wide, two layers, four query heads on two key heads, about 1.3 million weights."""
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_gguf(folder: Path, out: Path) -> Written:
    """The weights that `tiny_llama` wrote (or a merge of them), as a 16-bit GGUF."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    arrays = dict(_arrays(model))
    tensors = [Tensor(name, array.shape, _kind(array)) for name, array in arrays.items()]
    return write(out, _key_values(model.config, tokenizer), tensors, lambda tensor: [arrays[tensor.name]])


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits as GPT-2's, which llama.cpp has built in."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=CHATML
    )


def _arrays(model: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for key, values in model.state_dict().items():
        array = values.numpy()
        for projection, heads in _permuted(model.config):
            if key.endswith(f"{projection}.weight"):
                array = array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        yield names.get_name(key, try_suffixes=(".weight",)), array if array.ndim == 1 else array.astype(np.float16)


def _permuted(config: LlamaConfig) -> Iterable[tuple[str, int]]:
    return (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads))


def _kind(array: npt.NDArray[Any]) -> GGMLQuantizationType:
    return GGMLQuantizationType.F32 if array.dtype == np.float32 else GGMLQuantizationType.F16


def _key_values(config: LlamaConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[KeyValue]:
    text, uint32, float32 = (GGUFValueType[name] for name in ("STRING", "UINT32", "FLOAT32"))
    model = tokenizer.backend_tokenizer.to_str()
    yield KeyValue.of("general.architecture", "llama", text)
    yield KeyValue.of("general.name", "tiny", text)
    yield KeyValue.of("general.file_type", int(LlamaFileType.MOSTLY_F16), uint32)
    for key, value in (
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("rope.dimension_count", config.hidden_size // config.num_attention_heads),
        ("vocab_size", config.vocab_size),
    ):
        yield KeyValue.of(f"llama.{key}", value, uint32)
    yield KeyValue.of("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps, float32)
    yield KeyValue.of("llama.rope.freq_base", config.rope_parameters["rope_theta"], float32)
    yield from _vocabulary(tokenizer, model)


def _vocabulary(tokenizer: PreTrainedTokenizerFast, model: str) -> Iterator[KeyValue]:
    text, uint32, int32, array = (GGUFValueType[name] for name in ("STRING", "UINT32", "INT32", "ARRAY"))
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    kinds = [int(TokenType.CONTROL if token in SPECIAL_TOKENS else TokenType.NORMAL) for token in tokens]
    merges = [" ".join(pair) for pair in json.loads(model)["model"]["merges"]]
    yield KeyValue.of("tokenizer.ggml.model", "gpt2", text)
    yield KeyValue.of("tokenizer.ggml.pre", "gpt-2", text)
    yield KeyValue.of("tokenizer.ggml.tokens", tokens, array, text)
    yield KeyValue.of("tokenizer.ggml.token_type", kinds, array, int32)
    yield KeyValue.of("tokenizer.ggml.merges", merges, array, text)
    yield KeyValue.of("tokenizer.ggml.eos_token_id", tokenizer.eos_token_id, uint32)
    yield KeyValue.of("tokenizer.ggml.padding_token_id", tokenizer.pad_token_id, uint32)
    yield KeyValue.of("tokenizer.ggml.add_bos_token", False, GGUFValueType.BOOL)
    yield KeyValue.of("tokenizer.chat_template", tokenizer.chat_template, text)
