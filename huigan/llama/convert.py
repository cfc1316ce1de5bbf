"""Hugging Face weights into 16-bit GGUF by llama.cpp's own converter, and any GGUF back into a 16-bit one.

The converter is only in source archives, and its code is not ours to ship: it is fetched once, through pip and so
through the user's own index and mirror, checked against a pinned hash, and run as a process with its own gguf-py, which
differs from PyPI's. A checkout of the user's takes its place. It is shown weights without the code that lies beside
them. It knows nothing of adapters being merged or of runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huigan.llama.gguf import BadGguf, Written, read, sync_folder
from huigan.llama.merge import Progress, rewrite, silent

SDIST = "llama-cpp-python==0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
VENDORED = "vendor/llama.cpp"
HF_SCRIPT = "convert_hf_to_gguf.py"
LORA_SCRIPT = "convert_lora_to_gguf.py"
WANTED = (HF_SCRIPT, LORA_SCRIPT, "conversion", "gguf-py")
DATA = frozenset({".safetensors", ".json", ".model", ".jinja", ".txt", ".md"})  # endings of what is no code
UNKNOWN_PRE_TOKENIZER = "BPE pre-tokenizer was not recognized"
NETWORK_WORDS = ("No matching distribution", "Max retries", "Connection", "ConnectTimeout", "ReadTimeout", "ProxyError")


class ConverterMissing(RuntimeError):
    """llama.cpp's converter could not be had; the message says why and what to do."""


class ConversionFailed(RuntimeError):
    """The converter ran and gave up; the message says what to do."""


@dataclass(frozen=True)
class Converter:
    """A folder with llama.cpp's conversion scripts."""

    folder: Path

    def script(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ConverterMissing(
                f"{self.folder} has no {name}: llama.cpp has moved or renamed it. Leave LLAMA_CPP_DIR empty to use the "
                f"version this was written for ({SDIST}), or point it at a checkout that has the script"
            )
        return path


def converter(data_folder: Path, llama_cpp: Path | None = None) -> Converter:
    """The user's checkout if given, else the pinned copy under `data_folder`, fetched at first use."""
    if llama_cpp is not None:
        found = Converter(llama_cpp)
        found.script(HF_SCRIPT)
        return found
    kept = data_folder / f"llama.cpp-{SDIST_SHA256[:12]}"
    if not kept.is_dir():
        data_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_folder) as scratch:
            unpack(fetch(Path(scratch)), Path(scratch) / "llama.cpp")
            (Path(scratch) / "llama.cpp").replace(kept)
        sync_folder(data_folder)
    return Converter(kept)


def fetch(folder: Path, *, requirement: str = SDIST, sha256: str = SDIST_SHA256) -> Path:
    """Downloads the source archive with pip, which checks the hash before it runs any of the archive's code."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    name = requirement.partition("==")[0]
    # Not `--no-binary :all:`, which would have pip compile the archive's build tools, too.
    options = ["--no-deps", "--no-binary", name, "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConverterMissing(_why_not_fetched(requirement, done.stderr))
    archive = next(folder.glob("*.tar.gz"))
    check(archive, sha256)
    return archive


def check(archive: Path, sha256: str = SDIST_SHA256) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ConverterMissing(f"{archive.name} has sha256 {found}, expected {sha256}: {HASH_ADVICE}")


def unpack(archive: Path, folder: Path) -> None:
    """The conversion scripts of the archive, and nothing else, into `folder`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = _wanted_path(member.name)
            if path is not None and member.isfile():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    Converter(folder).script(HF_SCRIPT)


def convert(weights: Path, out: Path, tools: Converter, *, outtype: str = "f16") -> Path:
    """Writes a folder of Hugging Face weights as GGUF; raises ConverterMissing, ConversionFailed."""
    with tempfile.TemporaryDirectory() as scratch:
        return _run(tools, HF_SCRIPT, [str(without_code(weights, Path(scratch)))], out, outtype)


def convert_lora(adapter: Path, base_weights: Path, out: Path, tools: Converter, *, outtype: str = "f16") -> Path:
    """Writes an adapter as a GGUF of its own, for servers that add adapters themselves and for cross-checks."""
    with tempfile.TemporaryDirectory() as scratch:
        base = without_code(base_weights, Path(scratch))
        return _run(tools, LORA_SCRIPT, ["--base", str(base), str(adapter)], out, outtype)


def without_code(weights: Path, scratch: Path) -> Path:
    """Links to the files of `weights` in a folder of the same name, which the converter writes into what it makes; but
    for pickles and code, and for what names code: the converter has transformers run whatever `auto_map` names."""
    clean = scratch / weights.resolve().name
    clean.mkdir()
    for file in weights.iterdir():
        if file.suffix not in DATA or not file.is_file():
            continue
        named = file.read_bytes() if file.name.endswith("config.json") else b""
        if b"auto_map" in named or b"\\u" in named:  # or spelt so that it is not seen at once
            (clean / file.name).write_text(json.dumps(json.loads(named, object_hook=_naming_no_code)))
        else:
            (clean / file.name).symlink_to(file.resolve())
    return clean


def _naming_no_code(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name != "auto_map"}


def dequantise(gguf: Path, out: Path, *, progress: Progress = silent) -> Written:
    """Any GGUF as a 16-bit one, all key-values copied: what was lost in quantising stays lost."""
    return rewrite(read(gguf), out, "F16", {}, what="dequantise", progress=progress)


def _run(tools: Converter, script: str, arguments: Sequence[str], out: Path, outtype: str) -> Path:
    part = out.with_name(out.name + ".part")
    command = [sys.executable, str(tools.script(script)), *arguments, "--outfile", str(part), "--outtype", outtype]
    environment = {**os.environ, "PYTHONPATH": str(tools.folder / "gguf-py"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        if done.returncode:
            raise ConversionFailed(_why_not_converted(script, done.stderr))
        read(part)
        part.replace(out)
    except BadGguf as error:
        raise ConversionFailed(f"{script} wrote a file that does not hold together: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return out


def _wanted_path(name: str) -> PurePosixPath | None:
    """The path below vendor/llama.cpp of an archive member that is wanted; None for the rest and for escapes."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "/".join(path.parts[1:3]) != VENDORED:
        return None
    inside = PurePosixPath(*path.parts[3:])
    return inside if inside.parts and inside.parts[0] in WANTED else None


HASH_ADVICE = "the index served another file. Try another index or mirror, or set LLAMA_CPP_DIR to a checkout you trust"


def _why_not_fetched(requirement: str, stderr: str) -> str:
    said = " ".join(stderr.split()[-60:])
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"{requirement}: the hash differs, {HASH_ADVICE}. pip said: {said}"
    if "No module named pip" in stderr:
        return f"{requirement} cannot be fetched without pip: python -m ensurepip, or set LLAMA_CPP_DIR to a checkout"
    if any(word in stderr for word in NETWORK_WORDS):
        return (
            f"{requirement} cannot be reached: check the network and pip's index (PIP_INDEX_URL), "
            f"or set LLAMA_CPP_DIR to a checkout of llama.cpp. pip said: {said}"
        )
    return f"pip could not fetch {requirement}; set LLAMA_CPP_DIR to a checkout of llama.cpp. pip said: {said}"


def _why_not_converted(script: str, stderr: str) -> str:
    if UNKNOWN_PRE_TOKENIZER in stderr:
        return (
            f"{script}: {UNKNOWN_PRE_TOKENIZER}. The tokenizer was saved again or borrowed: put the original "
            "tokenizer files of the base into the weights' folder, or keep to merging in GGUF space"
        )
    return f"{script} failed: {' '.join(stderr.split()[-80:])}"
