"""A folder as it is, a GGUF file, a Hugging Face or a ModelScope name → a local folder of 16-bit HF weights.

Only safetensors are taken, never pickles, and no code of a repository is run. What is fetched or converted is kept
under a data folder and done once. This module does not know recipes, runs or training.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

FETCHED = ".fetched"

HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
WANTED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
UNWANTED_FILES = ["original/*", "onnx/*", "*.msgpack", "*.bin", "*.pt", "*.pth", "*.pkl"]
MIRRORS = (
    "check the network, set HF_ENDPOINT to a mirror (for example https://hf-mirror.com), "
    "name a ModelScope copy as modelscope:OWNER/NAME, or give a folder you downloaded yourself"
)


class WeightsUnavailable(Exception):
    """The 16-bit weights cannot be had; the message says what failed and what to do next."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress for callers that show none."""


def local_weights(source: str, data_dir: Path, *, endpoint: str | None = None, progress: Progress = silent) -> Path:
    """A local HF folder (config, tokenizer, safetensors) for `source`; fetched or converted on the first call only.

    `source` is a folder, a .gguf file, `OWNER/NAME[@REVISION]` on the Hugging Face hub at `endpoint`, or
    `modelscope:OWNER/NAME[@REVISION]`. `progress` is called with (what, bytes done, bytes total).
    Raises WeightsUnavailable.
    """
    path = Path(source).expanduser()
    if source and path.is_dir():
        return checked(path)
    if path.suffix == ".gguf":
        return from_gguf(path, data_dir, progress)
    return from_hub(source, data_dir, endpoint, progress)


def config_of(source: str, data_dir: Path, *, endpoint: str | None = None) -> dict[str, Any] | None:
    """What config.json says of a source's shape, before its weights are fetched or converted; None where that fails."""
    path = Path(source).expanduser()
    try:
        if path.suffix == ".gguf":
            return config_of_gguf(path)
        folder = path if source and path.is_dir() else hub_folder(source, data_dir)
        if not (folder / "config.json").is_file():
            fetch(source, folder, ["config.json"], endpoint, silent)
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (WeightsUnavailable, OSError, ValueError, KeyError) as error:
        log.info("the shape of %s is not known yet: %s", source, type(error).__name__)
        return None
    return config


def config_of_gguf(path: Path) -> dict[str, Any]:
    from huigan.llama import gguf

    header = gguf.read(path)
    return {
        "hidden_size": header.hyper("embedding_length"),
        "intermediate_size": header.hyper("feed_forward_length"),
        "num_hidden_layers": header.hyper("block_count"),
        "num_attention_heads": header.hyper("attention.head_count"),
        "num_key_value_heads": header.hyper("attention.head_count_kv"),
        "head_dim": header.hyper("attention.key_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def are_here(source: str, data_dir: Path) -> bool:
    """Whether nothing is left to fetch; a GGUF file is taken to be still converted."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf" or (source and path.is_dir()):
        return path.is_dir()
    return (hub_folder(source, data_dir) / FETCHED).is_file()


def checked(folder: Path) -> Path:
    """`folder`, if it holds all that training needs."""
    if not (folder / "config.json").is_file():
        raise WeightsUnavailable(
            f"{folder} has no config.json: point at the folder that holds config.json and the safetensors"
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise WeightsUnavailable(
            f"{folder} has no tokenizer.json or tokenizer.model: copy the base's own tokenizer files there"
        )
    if missing := missing_shards(folder):
        raise WeightsUnavailable(
            f"{folder} lacks {', '.join(missing[:3])}: fetch the weights again, as safetensors (pickles are refused)"
        )
    return folder


def missing_shards(folder: Path) -> list[str]:
    """What is named and not there. Raises WeightsUnavailable for a name that is none of a safetensors file here: the
    libraries would unpickle whatever an index names otherwise, or read it from wherever it lies."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [] if (folder / "model.safetensors").is_file() else ["model.safetensors"]
    try:
        shards = {str(each) for each in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsUnavailable(f"{index} is damaged: fetch the weights again") from error
    if foreign := sorted(each for each in shards if not SHARD.fullmatch(each)):
        raise WeightsUnavailable(
            f"{index} names {foreign[0]!r}, which is no safetensors file beside it: fetch the weights again, as "
            "safetensors (pickles are refused)"
        )
    return sorted(shard for shard in shards if not (folder / shard).is_file())


def from_gguf(gguf: Path, data_dir: Path, progress: Progress) -> Path:
    """De-quantises `gguf` to float16, once: the folder is named by the file's digest and appears when it is whole."""
    if not gguf.is_file():
        raise WeightsUnavailable(f"no file at {gguf}: check the path")
    check_header(gguf)
    folder = data_dir / "from-gguf" / sha256(gguf, progress)
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            convert(gguf, part)
            part.rename(folder)
        finally:  # a half of it on a full disk helps nobody
            shutil.rmtree(part, ignore_errors=True)
    return checked(folder)


def check_header(path: Path) -> None:
    """Before transformers reads it, which believes what a file says of itself. Raises WeightsUnavailable."""
    from huigan.llama import gguf

    try:
        gguf.read(path)
    except gguf.BadGguf as error:
        raise WeightsUnavailable(str(error)) from error


def convert(gguf: Path, folder: Path) -> None:
    from torch import float16
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=float16, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parser trips over
        raise WeightsUnavailable(
            f"transformers cannot read {gguf} ({error}): give the HF folder it was made from"
        ) from error
    # transformers 5 still takes the loaded model for a quantised one, and refuses to save it as plain weights.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sha256(path: Path, progress: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
            done += len(chunk)
            progress("checksum", done, total)
    return digest.hexdigest()


def from_hub(source: str, data_dir: Path, endpoint: str | None, progress: Progress) -> Path:
    """Resumes what a killed fetch left; FETCHED, written last, says that nothing is missing."""
    folder = hub_folder(source, data_dir)
    if not (folder / FETCHED).is_file():
        fetch(source, folder, WANTED_FILES, endpoint, progress)
        checked(folder).joinpath(FETCHED).touch()
    return checked(folder)


def parsed(source: str) -> tuple[str, str, str | None]:
    """(scheme, name, revision) of a hub's repository; the scheme of Hugging Face's is empty. Raises
    WeightsUnavailable."""
    scheme, _, rest = source.rpartition(":")
    match = HUB_NAME.fullmatch(rest)
    if match is None or scheme not in ("", "modelscope"):
        raise WeightsUnavailable(
            f"no weights at {source!r}: give an HF folder, a .gguf file, OWNER/NAME or modelscope:OWNER/NAME"
        )
    return scheme, match["name"], match["revision"]


def hub_folder(source: str, data_dir: Path) -> Path:
    scheme, name, revision = parsed(source)
    return data_dir / (scheme or "hub") / "--".join([*name.split("/"), *(revision or "main").split("/")])


def fetch(source: str, folder: Path, wanted: Sequence[str], endpoint: str | None, progress: Progress) -> None:
    """Those of a repository's files, into `folder`. Raises WeightsUnavailable."""
    scheme, name, revision = parsed(source)
    options = {
        "revision": revision,
        "local_dir": str(folder),
        "allow_patterns": list(wanted),
        "ignore_patterns": UNWANTED_FILES,
    }
    try:
        if scheme:
            from_modelscope(name, **options)
        else:
            from huggingface_hub import snapshot_download

            snapshot_download(name, endpoint=endpoint, tqdm_class=reporting(progress), **options)
    except Exception as error:  # the clients raise errors of three HTTP libraries, and their own
        raise WeightsUnavailable(f"{name} could not be fetched ({type(error).__name__}: {error}): {MIRRORS}") from error


def from_modelscope(name: str, **options: Any) -> None:
    if importlib.util.find_spec("modelscope") is None:
        raise WeightsUnavailable("the package modelscope is not installed: pip install modelscope")
    import modelscope

    modelscope.snapshot_download(name, **options)


def reporting(progress: Progress) -> Any:
    """A tqdm class that draws nothing and tells `progress` about bars that count bytes."""
    from huggingface_hub.utils import tqdm

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts_bytes = options.get("unit") == "B"
            super().__init__(*args, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0  # a disabled tqdm does not count
            if self.counts_bytes:
                progress("download", int(self.n), int(self.total or 0))
            return None

    return Reporting
