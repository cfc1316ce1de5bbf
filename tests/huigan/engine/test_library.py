"""Tags and blobs on disk: what stays, what goes, and what a kill leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from huigan.engine import names
from huigan.engine.errors import ApiError
from huigan.engine.library import Library, Recipe
from huigan.engine.names import Name

pytestmark = pytest.mark.weights


def name(text: str) -> Name:
    parsed = names.parse(text)
    assert parsed is not None
    return parsed


def ignore(_: str) -> None:
    """Steps are of no interest here."""


def keep(library: Library, content: bytes) -> str:
    with library.incoming() as file:
        file.write(content)
        hexdigest = hashlib.sha256(content).hexdigest()
        library.keep(file, hexdigest)
    return f"sha256:{hexdigest}"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


@pytest.fixture
def model(library: Library, smollm2_gguf: Path) -> str:
    return keep(library, smollm2_gguf.read_bytes())


def blobs(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "blobs").iterdir()}


def test_a_tag_is_read_as_it_was_made(library: Library, model: str) -> None:
    steps: list[str] = []
    parameters = {"stop": "x", "num_ctx": 512}
    recipe = Recipe(name("a:1"), gguf_digest=model, system="规矩", parameters=parameters, messages=(("user", "hi"),))
    library.create(recipe, steps.append)

    tag = library.tag(name("a:1"))

    assert (tag.system, dict(tag.parameters), tag.messages) == (
        "规矩",
        {"stop": ["x"], "num_ctx": 512},
        (("user", "hi"),),
    )
    assert "<|im_start|>" in tag.template
    assert steps[-2:] == ["writing manifest", "success"]


def test_without_parameters_a_tag_stops_where_its_chat_template_does(library: Library, model: str) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model), ignore)
    assert library.tag(name("a:1")).parameters == {"stop": ["<|im_start|>", "<|im_end|>"]}


def test_a_tag_from_a_tag_inherits_what_it_does_not_say(library: Library, model: str) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model, system="one", parameters={"top_k": 3}), ignore)
    library.create(Recipe(name("b:1"), base=name("a:1"), system="two", parameters={"seed": 4}), ignore)
    tag = library.tag(name("b:1"))
    assert (tag.system, tag.parameters["top_k"], tag.parameters["seed"]) == ("two", 3, 4)
    assert tag.details["parent_model"] == "a:1"


def test_names_that_differ_in_case_are_one(library: Library, model: str) -> None:
    library.create(Recipe(name("Smol:V1"), gguf_digest=model), ignore)
    assert library.existing(name("smol:v1")) == name("Smol:V1")


def test_a_blob_stays_while_a_tag_uses_it_and_goes_with_the_last(library: Library, model: str, tmp_path: Path) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model), ignore)
    library.copy(name("a:1"), name("a:2"))
    library.delete(name("a:1"))
    assert library.tag(name("a:2")).gguf.exists()
    library.delete(name("a:2"))
    assert blobs(tmp_path) == set()


def test_what_an_overwritten_tag_alone_used_goes(library: Library, model: str, tmp_path: Path) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model, system="first"), ignore)
    before = blobs(tmp_path)
    library.create(Recipe(name("a:1"), gguf_digest=model, system="second"), ignore)
    gone = before - blobs(tmp_path)
    assert gone == {f"sha256-{hashlib.sha256(b'first').hexdigest()}"}


def test_pruning_removes_old_strangers_and_nothing_in_use(library: Library, model: str, tmp_path: Path) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model), ignore)
    used = blobs(tmp_path)
    for stranger in ("partial-cut", "sha256-" + "0" * 64):
        (tmp_path / "blobs" / stranger).write_bytes(b"x")
    for path in (tmp_path / "blobs").iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    keep(library, b"just uploaded")

    library.prune()

    assert blobs(tmp_path) == used | {f"sha256-{hashlib.sha256(b'just uploaded').hexdigest()}"}


def test_a_broken_manifest_hides_its_tag_and_keeps_every_blob(library: Library, model: str, tmp_path: Path) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model), ignore)
    library.copy(name("a:1"), name("a:2"))
    (tmp_path / "manifests" / name("a:2").path).write_text("{broken")
    assert [str(tag.name) for tag in library.tags()] == ["a:1"]
    library.delete(name("a:1"))
    assert model.replace(":", "-") in blobs(tmp_path)


def test_a_manifest_that_names_files_elsewhere_removes_none_of_them(library: Library, tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("kept")
    path = tmp_path / "manifests" / name("evil:1").path
    path.parent.mkdir(parents=True)
    hostile = {"config": {"digest": "../mine.txt"}, "layers": [{"digest": str(other)}]}
    for manifest in (hostile, {"config": [], "layers": 3}, {"config": {"digest": 3}, "layers": []}, [], None):
        path.write_text(json.dumps(manifest))
        assert library.tags() == []
        library.delete(name("evil:1"))
        assert other.read_text() == "kept"


@pytest.mark.parametrize("kept", [0, 3, 24, 200_000, 90_000_000])
def test_a_truncated_gguf_makes_no_tag(library: Library, smollm2_gguf: Path, kept: int) -> None:
    digest = keep(library, smollm2_gguf.read_bytes()[:kept])
    with pytest.raises(ApiError) as refused:
        library.create(Recipe(name("a:1"), gguf_digest=digest), ignore)
    assert refused.value.status == 500
    assert library.tags() == []


def test_a_bad_template_makes_no_tag(library: Library, model: str) -> None:
    with pytest.raises(ApiError, match="template error: template: :1: unclosed action"):
        library.create(Recipe(name("a:1"), gguf_digest=model, template="{{ .Nope"), ignore)
    assert library.tags() == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:xyz", "sha256:" + "0" * 63, "../../etc/passwd", "sha256:" + "0" * 64 + "/.."]
)
def test_what_is_no_digest_names_no_file(library: Library, digest: str) -> None:
    with pytest.raises(ApiError, match="invalid digest format"):
        library.blob(digest)


def test_a_tag_that_is_copied_over_can_be_read_at_every_moment(library: Library, model: str) -> None:
    for tag, system in (("a:1", "one"), ("a:2", "two")):
        library.create(Recipe(name(tag), gguf_digest=model, system=system), ignore)
    library.copy(name("a:1"), name("alias"))
    copied = threading.Event()

    def copy_back_and_forth() -> None:
        for turn in range(60):
            library.copy(name(f"a:{turn % 2 + 1}"), name("alias"))
        copied.set()

    threading.Thread(target=copy_back_and_forth).start()
    seen = set()
    while not copied.is_set():
        seen.add(library.tag(name("alias")).system)
    assert seen <= {"one", "two"}


def test_the_layout_is_ollamas(library: Library, model: str, tmp_path: Path) -> None:
    library.create(Recipe(name("a:1"), gguf_digest=model), ignore)
    manifest = json.loads((tmp_path / "manifests/registry.ollama.ai/library/a/1").read_text())
    kinds = {layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]}
    assert kinds == {"model", "template", "params"}
    assert all((tmp_path / "blobs" / layer["digest"].replace(":", "-")).exists() for layer in manifest["layers"])
