"""pytest tests/trainer/test_weights.py: whatever the source, a whole local folder of safetensors or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.huigan.llama.tiny import tiny_gguf
from trainer.weights import WeightsUnavailable, local_weights

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


# ---- folders


def test_a_folder_is_used_where_it_is(tiny: Path, tmp_path: Path) -> None:
    assert local_weights(str(tiny), tmp_path) == tiny
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer"), ("model.safetensors", "lacks model.safetensors")],
)
def test_a_folder_that_lacks_something_is_refused_by_name(copied: Path, missing: str, said: str) -> None:
    (copied / missing).unlink()
    with pytest.raises(WeightsUnavailable, match=said):
        local_weights(str(copied), copied)


def test_pickles_are_no_weights(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(WeightsUnavailable, match="pickles are refused"):
        local_weights(str(copied), copied)


def test_every_shard_of_the_index_must_be_there(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsUnavailable, match="lacks model-00002-of-00002"):
        local_weights(str(copied), copied)
    (copied / "model.safetensors.index.json").write_text("[")
    with pytest.raises(WeightsUnavailable, match="damaged"):
        local_weights(str(copied), copied)


@pytest.mark.parametrize(
    "shard", ["pytorch_model.bin", "model.pt", "../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", ""]
)
def test_an_index_that_names_a_pickle_or_a_file_elsewhere_is_refused(copied: Path, shard: str) -> None:
    if shard.startswith("pytorch"):
        (copied / shard).write_bytes(b"a pickle")
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsUnavailable, match="no safetensors file beside it"):
        local_weights(str(copied), copied)


@pytest.mark.parametrize("index", ["[" * 100_000, '{"weight_map": []}', '{"weight_map": {"a": null}}', "3", "null"])
def test_an_index_of_any_other_json_is_refused_in_words(copied: Path, index: str) -> None:
    (copied / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsUnavailable):
        local_weights(str(copied), copied)


@pytest.mark.parametrize(
    "source", ["", "nowhere", "a/b/c", "/no/such/folder", "ftp:a/b", "https://example.org/a/b", "../x/y"]
)
def test_a_source_of_no_known_kind_is_refused_with_the_kinds_there_are(tmp_path: Path, source: str) -> None:
    with pytest.raises(WeightsUnavailable, match=r"give an HF folder, a \.gguf file, OWNER/NAME"):
        local_weights(source, tmp_path)


# ---- GGUF files


def test_a_gguf_file_becomes_its_own_weights_once(tiny: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "tiny.gguf"
    tiny_gguf(tiny, gguf)
    folder = local_weights(str(gguf), tmp_path / "data")
    written_at = (folder / "model.safetensors").stat().st_mtime_ns
    assert folder.name == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert local_weights(str(gguf), tmp_path / "data") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written_at
    assert logits(folder) == pytest.approx(logits(tiny), abs=3e-3)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def logits(folder: Path) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("What is the capital of France? 几点开门？", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        values: list[float] = model(ids).logits[0, -1].tolist()
    return values


def test_half_a_conversion_that_a_kill_left_is_begun_anew(tiny: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "tiny.gguf"
    tiny_gguf(tiny, gguf)
    torn = tmp_path / "data" / "from-gguf" / f"{hashlib.sha256(gguf.read_bytes()).hexdigest()}.part"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    assert (local_weights(str(gguf), tmp_path / "data") / "config.json").is_file()
    assert not torn.exists()


def test_a_conversion_that_cannot_be_written_leaves_no_half_on_the_disk(tiny: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "tiny.gguf"
    tiny_gguf(tiny, gguf)
    in_the_way = tmp_path / "data" / "from-gguf" / hashlib.sha256(gguf.read_bytes()).hexdigest()
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    with pytest.raises(NotADirectoryError):
        local_weights(str(gguf), tmp_path / "data")
    assert [*in_the_way.parent.iterdir()] == [in_the_way]


def test_progress_is_told_in_bytes(tiny: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "tiny.gguf"
    tiny_gguf(tiny, gguf)
    told: list[tuple[str, int, int]] = []
    local_weights(str(gguf), tmp_path / "data", progress=lambda *now: told.append(now))
    assert told[-1] == ("checksum", gguf.stat().st_size, gguf.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" + b"\0" * 100, b"GGUF\x03\0\0\0" + b"\xff" * 64])
def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(WeightsUnavailable, match=r"to be a GGUF|not a sound GGUF"):
        local_weights(str(tmp_path / "bad.gguf"), tmp_path / "data")
    assert list((tmp_path / "data").rglob("*.safetensors")) == []


def test_a_gguf_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="no file at"):
        local_weights(str(tmp_path / "gone.gguf"), tmp_path)


# ---- hubs


class Hub(ThreadingHTTPServer):
    """The part of the Hugging Face hub's wire that a download uses, for one repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.folder = folder
        self.asked: list[str] = []
        self.broken = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubRequest(BaseHTTPRequestHandler):
    server: Hub
    COMMIT = "a" * 40

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path, files = self.path.partition("?")[0], sorted(self.server.folder.iterdir())
        if self.server.broken:
            self.send_error(503)
        elif path.startswith("/api/models/owner/tiny/revision/"):
            siblings = [{"rfilename": file.name} for file in files]
            listing = {"id": "owner/tiny", "sha": self.COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.reply(json.dumps(listing).encode(), "application/json", body=body)
        elif path.startswith(f"/api/models/owner/tiny/tree/{self.COMMIT}"):
            tree = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "b" * 40} for file in files]
            self.reply(json.dumps(tree).encode(), "application/json", body=body)
        elif path.startswith(f"/owner/tiny/resolve/{self.COMMIT}/"):
            self.reply((self.server.folder / Path(path).name).read_bytes(), "application/octet-stream", body=body)
        else:
            self.send_error(404)

    def reply(self, content: bytes, kind: str, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def hub(copied: Path) -> Iterator[Hub]:
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    (copied / "modeling_tiny.py").write_text("raise SystemExit('run')")
    server = Hub(copied)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_shape_is_known_before_the_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    asking = [sys.executable, "-c", SHAPE, "owner/tiny", str(tmp_path / "data"), hub.address]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    told = subprocess.run(asking, cwd=REPOSITORY, env=environment, text=True, capture_output=True, check=True)
    assert told.stdout.split() == ["256", "False"]
    assert [path for path in hub.asked if "safetensors" in path] == []
    assert fetch("owner/tiny", tmp_path / "data", hub.address).returncode == 0


SHAPE = """
import sys
from pathlib import Path
from trainer.weights import are_here, config_of
source, data_dir, endpoint = sys.argv[1:]
print(config_of(source, Path(data_dir), endpoint=endpoint)["hidden_size"], are_here(source, Path(data_dir)))
"""

FETCH = """
import sys
from pathlib import Path
from trainer.weights import WeightsUnavailable, local_weights
source, data_dir, endpoint = sys.argv[1:]
told = []
try:
    print(local_weights(source, Path(data_dir), endpoint=endpoint, progress=lambda *now: told.append(now)))
    print(max((done for what, done, total in told if what == "download"), default=0))
except WeightsUnavailable as unavailable:
    sys.exit(str(unavailable))
"""


def fetch(source: str, data_dir: Path, endpoint: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the hub's client reads its environment when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    command = [sys.executable, "-c", FETCH, source, str(data_dir), endpoint]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, text=True, capture_output=True, timeout=300)


def test_a_hub_name_is_fetched_once_from_the_endpoint_given_safetensors_only(hub: Hub, tmp_path: Path) -> None:
    first = fetch("owner/tiny", tmp_path / "data", hub.address)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.splitlines()[0])
    assert logits(folder) == logits(hub.folder)
    assert int(first.stdout.splitlines()[1]) >= (folder / "model.safetensors").stat().st_size
    assert {file.name for file in folder.iterdir()} & {"pytorch_model.bin", "modeling_tiny.py"} == set()
    asked = len(hub.asked)
    hub.broken = True
    assert fetch("owner/tiny", tmp_path / "data", hub.address).stdout.splitlines()[0] == str(folder)
    assert len(hub.asked) == asked


def test_a_hub_that_fails_is_told_with_the_mirrors_to_set(hub: Hub, tmp_path: Path) -> None:
    refused = fetch("owner/other", tmp_path / "data", hub.address)
    assert refused.returncode == 1
    for word in ("owner/other could not be fetched", "HF_ENDPOINT", "modelscope:OWNER/NAME"):
        assert word in refused.stderr


def test_a_repository_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").unlink()
    refused = fetch("owner/tiny", tmp_path / "data", hub.address)
    assert refused.returncode == 1
    assert "pickles are refused" in refused.stderr


def test_modelscope_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="pip install modelscope"):
        local_weights("modelscope:LLM-Research/Llama3-8B-Chinese-Chat", tmp_path)


# The part of modelscope 1.40's `snapshot_download` that is called, serving one repository from a folder.
MODELSCOPE = """
import fnmatch, pathlib, shutil
REPOSITORY = pathlib.Path({folder!r})
def snapshot_download(model_id=None, revision=None, *, local_dir=None, allow_patterns=None, ignore_patterns=None):
    if (model_id, revision) != ("owner/tiny", "v1"):
        raise FileNotFoundError(f"The repo {{model_id}} at {{revision}} does not exist on https://modelscope.cn")
    pathlib.Path(local_dir).mkdir(parents=True, exist_ok=True)
    for file in REPOSITORY.iterdir():
        matches = lambda patterns: any(fnmatch.fnmatch(file.name, each) for each in patterns)
        if matches(allow_patterns) and not matches(ignore_patterns):
            shutil.copy(file, local_dir)
    return local_dir
"""


@pytest.fixture
def modelscope(copied: Path, tmp_path: Path) -> Path:
    """A folder of packages that holds a `modelscope`."""
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    (copied / "modeling_tiny.py").write_text("raise SystemExit('run')")
    package = tmp_path / "packages" / "modelscope"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODELSCOPE.format(folder=str(copied)))
    return package.parent


def test_a_modelscope_name_is_fetched_once_safetensors_only(tiny: Path, modelscope: Path, tmp_path: Path) -> None:
    source = "modelscope:owner/tiny@v1"
    first = fetch(source, tmp_path / "data", "", modelscope)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.splitlines()[0])
    assert folder == tmp_path / "data" / "modelscope" / "owner--tiny--v1"
    assert logits(folder) == logits(tiny)
    assert {file.name for file in folder.iterdir()} & {"pytorch_model.bin", "modeling_tiny.py"} == set()
    (modelscope / "modelscope" / "__init__.py").write_text("raise SystemExit('asked again')")
    assert fetch(source, tmp_path / "data", "", modelscope).stdout.splitlines()[0] == str(folder)


def test_a_modelscope_that_fails_is_told_with_what_to_do(modelscope: Path, tmp_path: Path) -> None:
    refused = fetch("modelscope:owner/other@v1", tmp_path / "data", "", modelscope)
    assert refused.returncode == 1
    for words in ("owner/other could not be fetched", "does not exist", "a folder you downloaded yourself"):
        assert words in refused.stderr
