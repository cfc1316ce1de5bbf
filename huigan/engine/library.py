"""Tags and blobs on disk, in the layout of Ollama's own models folder, so that one can be pointed at the other's.

    blobs/sha256-<hex>                        content-addressed, immutable
    manifests/<host>/<namespace>/<model>/<tag>  JSON that names a tag's blobs

A file appears under its name whole or not at all (written aside, fsynced, renamed), so a kill at any instant leaves
every tag either as it was or as it should be. Synchronous; async callers use threads. Runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from huigan.engine import description, names, prompts, template
from huigan.engine.description import Tag
from huigan.engine.errors import ApiError
from huigan.engine.names import Name
from huigan.llama.gguf import BadGguf

log = logging.getLogger(__name__)

Manifest = dict[str, Any]
Layer = dict[str, Any]
Report = Callable[[str], None]

_IMAGE = "application/vnd.ollama.image."
_CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_PARTIAL = ".partial-"  # no tag may begin so
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class Recipe:
    """What `create` is asked for; None and empty mean: as the base has it."""

    name: Name
    base: Name | None = None
    gguf_digest: str = ""
    template: str = ""
    system: str = ""
    parameters: Mapping[str, Any] | None = None
    messages: tuple[tuple[str, str], ...] = ()
    licences: tuple[str, ...] = ()


class Library:
    def __init__(self, root: Path) -> None:
        self._blobs, self._manifests = root / "blobs", root / "manifests"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._manifests.mkdir(parents=True, exist_ok=True)
        self._changing = threading.Lock()  # a blob must not be collected between being found and being named

    def blob(self, digest: str) -> Path:
        """Where a blob lies or would lie. Raises ApiError(400) for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ApiError(400, "invalid digest format")
        return self._blobs / f"sha256-{digest[7:].lower()}"

    def incoming(self) -> IO[bytes]:
        """An open file for a blob on its way. Close it, and `keep` or `discard` it."""
        return tempfile.NamedTemporaryFile(dir=self._blobs, prefix=_PARTIAL, delete=False)

    def keep(self, file: IO[bytes], hexdigest: str) -> None:
        """Give an incoming file its name. Blocks until it is on the disk."""
        _settle(file, self.blob(f"sha256:{hexdigest}"))

    def discard(self, file: IO[bytes]) -> None:
        """Remove an incoming file that was not kept."""
        Path(file.name).unlink(missing_ok=True)

    def existing(self, name: Name) -> Name:
        """The stored name this one means: the same but for case."""
        return next((known for known in self._names() if known.matches(name)), name)

    def tags(self) -> list[Tag]:
        """Every readable tag, newest first."""
        found = []
        for name in self._names():
            try:
                found.append(self.tag(name))
            except (ApiError, OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
                log.warning("tag %s is skipped: its manifest cannot be read (%s)", name, error)
        return sorted(found, key=lambda tag: (-tag.modified_at.timestamp(), tag.name))

    def tag(self, name: Name) -> Tag:
        """Read one tag. Raises FileNotFoundError where there is none."""
        while True:
            raw = self._path(name).read_bytes()
            try:
                return self._tag(name, raw)
            except FileNotFoundError as error:  # what it named is gone: it was replaced just now, or is broken
                if self._path(name).read_bytes() == raw:
                    raise ApiError(500, f"open {error.filename}: no such file or directory") from None

    def _tag(self, name: Name, raw: bytes) -> Tag:
        manifest: Manifest = json.loads(raw)
        config = json.loads(self.blob(manifest["config"]["digest"]).read_bytes())
        model = next(layer for layer in manifest["layers"] if layer["mediaType"] == f"{_IMAGE}model")
        return Tag(
            name=name,
            digest=hashlib.sha256(raw).hexdigest(),
            modified_at=datetime.fromtimestamp(self._path(name).stat().st_mtime, UTC),
            size_bytes=sum(layer["size"] for layer in (manifest["config"], *manifest["layers"])),
            details={
                "parent_model": model.get("from", ""),
                "format": config.get("model_format", "gguf"),
                "family": config.get("model_family", ""),
                "families": config.get("model_families"),
                "parameter_size": config.get("model_type", ""),
                "quantization_level": config.get("file_type", ""),
            },
            gguf=self.blob(model["digest"]),
            template=self._text(manifest, "template") or prompts.PLAIN,
            system=self._text(manifest, "system"),
            parameters=json.loads(self._text(manifest, "params") or "{}"),
            messages=tuple((m["role"], m["content"]) for m in json.loads(self._text(manifest, "messages") or "[]")),
            licences=tuple(self._texts(manifest, "license")),
        )

    def create(self, recipe: Recipe, report: Report) -> None:
        """Make a tag, reporting each step. Raises ApiError, OSError."""
        with self._changing:
            if recipe.base:
                layers, config = self._from_tag(recipe.base, report)
            else:
                layers, config, recipe = self._from_gguf(recipe, report)
            layers = self._overlaid(layers, recipe, report)
            report("writing manifest")
            config_layer = self._layer(json.dumps(dict(config), sort_keys=True), _CONFIG, lambda _: None)
            manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config_layer, "layers": layers}
            self._put(recipe.name, json.dumps(manifest).encode())
        report("success")

    def copy(self, source: Name, destination: Name) -> None:
        """Let `destination` mean what `source` means now. Raises FileNotFoundError."""
        with self._changing:
            self._put(destination, self._path(source).read_bytes())

    def delete(self, name: Name) -> None:
        """Remove a tag, and the blobs that only it used. Raises FileNotFoundError."""
        with self._changing:
            path = self._path(name)
            manifest = path.read_bytes()
            path.unlink()
            _sync_folder(path.parent)
            self._collect(manifest)

    def prune(self) -> None:
        """Remove what no tag uses and nobody is about to: uploads cut off or never named, an hour old or more."""
        with self._changing:
            stale = (p.name for p in self._blobs.iterdir() if time.time() - p.stat().st_mtime > _STALE_SECONDS)
            self._remove_unused(stale)

    def _names(self) -> Iterator[Name]:
        for path in sorted(self._manifests.glob("*/*/*/*")):
            name = Name(*path.relative_to(self._manifests).parts)
            if names.parse(name.full) == name and path.is_file():
                yield name

    def _path(self, name: Name) -> Path:
        return self._manifests / name.path

    def _from_tag(self, base: Name, report: Report) -> tuple[list[Layer], Mapping[str, Any]]:
        try:
            manifest: Manifest = json.loads(self._path(base).read_bytes())
        except FileNotFoundError:
            report("pulling manifest")
            raise _no_registry(base) from None
        layers = [dict(layer) for layer in manifest["layers"]]
        for layer in layers:
            report(f"using existing layer {layer['digest']}")
            if layer["mediaType"] == f"{_IMAGE}model":
                layer["from"] = str(base)
        return layers, json.loads(self.blob(manifest["config"]["digest"]).read_bytes())

    def _from_gguf(self, recipe: Recipe, report: Report) -> tuple[list[Layer], Mapping[str, Any], Recipe]:
        """The file's layer and config, and the recipe with what the file's own chat template implies."""
        path = self.blob(recipe.gguf_digest)
        report("parsing GGUF")
        if not path.exists():
            raise ApiError(500, f"open {path}: no such file or directory")
        try:
            about = description.read(path)
        except BadGguf as error:
            raise ApiError(500, str(error)) from None
        report("verifying conversion")
        digest = f"sha256:{path.name.removeprefix('sha256-')}"
        report(f"{'using existing' if path.name in self._used() else 'creating new'} layer {digest}")
        layers = [{"mediaType": f"{_IMAGE}model", "digest": digest, "size": path.stat().st_size}]
        if known := prompts.built_in(about.jinja):
            parameters = {"stop": list(known.stops), **(recipe.parameters or {})}
            recipe = replace(recipe, template=recipe.template or known.template, parameters=parameters)
        return layers, about.config, recipe

    def _overlaid(self, layers: list[Layer], recipe: Recipe, report: Report) -> list[Layer]:
        if recipe.template:
            _parse_template(recipe.template)
            layers = self._replaced(layers, "template", [recipe.template], report)
        if recipe.system:
            layers = self._replaced(layers, "system", [recipe.system], report)
        if recipe.licences:
            layers = self._replaced(layers, "license", list(recipe.licences), report)
        if recipe.parameters:
            inherited = json.loads(self._text({"layers": layers}, "params") or "{}")
            parameters = inherited | _with_stop_listed(recipe.parameters)
            layers = self._replaced(layers, "params", [json.dumps(parameters, sort_keys=True)], report)
        if recipe.messages:
            said = [{"role": role, "content": content} for role, content in recipe.messages]
            layers = self._replaced(layers, "messages", [json.dumps(said)], report)
        return layers

    def _replaced(self, layers: list[Layer], kind: str, texts: list[str], report: Report) -> list[Layer]:
        others = [layer for layer in layers if layer["mediaType"] != _IMAGE + kind]
        return others + [self._layer(text, _IMAGE + kind, report) for text in texts]

    def _layer(self, text: str, media_type: str, report: Report) -> Layer:
        content = text.encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path = self.blob(digest)
        report(f"{'using existing' if path.exists() else 'creating new'} layer {digest}")
        _write(path, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def _text(self, manifest: Manifest, kind: str) -> str:
        return next(self._texts(manifest, kind), "")

    def _texts(self, manifest: Manifest, kind: str) -> Iterator[str]:
        for layer in manifest["layers"]:
            if layer["mediaType"] == _IMAGE + kind:
                yield self.blob(layer["digest"]).read_text(encoding="utf-8")

    def _put(self, name: Name, manifest: bytes) -> None:
        path = self._path(name)
        before = path.read_bytes() if path.exists() else b""
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, manifest)
        if before:
            self._collect(before)

    def _collect(self, manifest: bytes) -> None:
        """Remove the blobs of a manifest that is gone, except those that others use."""
        try:
            gone = list(self._blob_names(json.loads(manifest)))
        except (ApiError, ValueError, KeyError, TypeError):
            log.warning("a broken manifest was replaced or removed; its blobs stay until the next start")
            return
        self._remove_unused(gone)

    def _remove_unused(self, blobs: Iterable[str]) -> None:
        try:
            used = self._used()
        except (ApiError, ValueError, KeyError, TypeError) as error:
            log.warning("no blob is removed while a manifest cannot be read (%s): delete that tag", error)
            return
        for name in blobs:
            if name not in used:
                log.info("removing %s: no tag uses it", name)
                (self._blobs / name).unlink(missing_ok=True)

    def _used(self) -> set[str]:
        manifests = (json.loads(self._path(name).read_bytes()) for name in self._names())
        return {name for manifest in manifests for name in self._blob_names(manifest)}

    def _blob_names(self, manifest: Manifest) -> Iterator[str]:
        """Raises ApiError for what is no digest: a manifest that others wrote must not name files elsewhere."""
        for layer in (manifest["config"], *manifest["layers"]):
            yield self.blob(layer["digest"]).name


def _parse_template(source: str) -> None:
    try:
        template.parse(source)
    except template.TemplateError as error:
        raise ApiError(400, f"template error: {error}") from None


def _with_stop_listed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    stop = parameters.get("stop")
    return {**parameters, "stop": [stop]} if isinstance(stop, str) else dict(parameters)


def _no_registry(name: Name) -> ApiError:
    """Ollama would ask its registry; an Ollama without a network answers with these words."""
    log.warning("tag %s does not exist, and this engine downloads nothing: create it from a file", name)
    url = f"https://{name.host}/v2/{name.namespace}/{name.model}/manifests/{name.tag}"
    return ApiError(500, f'pull model manifest: Get "{url}": dial tcp: lookup {name.host}: no such host')


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PARTIAL, delete=False) as file:
        file.write(content)
        _settle(file, path)


def _settle(file: IO[bytes], path: Path) -> None:
    """Rename an open file into place, and come back when that would survive a power cut."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
