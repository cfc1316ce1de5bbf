"""`huigan base add`: what is served now becomes a release, under a tag of ours, with the 16-bit weights it came from.

The user's own tag may be moved tomorrow, so its file gets an immutable tag with template, system text and parameters
written out. Nothing here reads weights: they are a name, resolved when a run first needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from huigan.operate import tags
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import TRANSPORT_ERRORS, told_apart
from storage import artefacts, audit, deployments, releases
from storage.db import Database, Session
from storage.recipe import System
from storage.records import Release

T = TypeVar("T")

BARE_TEMPLATE = "{{ .Prompt }}"  # what Ollama falls back to: no roles, no system text
MAGIC = b"GGUF"


@dataclass(frozen=True)
class Registered:
    release: Release
    is_new: bool  # False: it was registered before, and nothing was changed


@dataclass(frozen=True)
class Serving:
    """How it is to be served; None and absent parameters are taken from what Ollama has."""

    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """A file or a tag, with what Ollama says of it."""

    name: str  # for create_from
    path: Path | None
    digest: str
    shown: library.Shown


def register(
    db: Database,
    client: Ollama,
    source: str | Path,
    weights: str | None,
    *,
    by_user_id: int | None,
    at: datetime,
    serving: Serving | None = None,
    alias: str | None = tags.ALIAS,
    progress: library.Progress | None = None,
) -> Registered | Refusal:
    """Make the release and let it answer; the first call makes release 1, a repeated one changes nothing.

    A `Path` is a GGUF file, a `str` a tag in Ollama. Refused: `no_such_file`, `not_gguf`, `no_template` (Ollama
    recognises none in the file: give one). Raises ServingError, UnknownTag for a tag that Ollama lacks.
    """
    if isinstance(source, Path) and (refused := _unfit(source)):
        return refused
    seen = _from_file(client, source) if isinstance(source, Path) else _from_tag(client, source)
    try:
        result = _register(db, client, seen, weights, serving or Serving(), by_user_id, at, progress)
    finally:
        if seen.path is not None:
            library.delete(client, seen.name)
    if alias is not None and isinstance(result, Registered) and result.is_new:
        tags.point(client, alias, result.release.tag)
    return result


def _register(
    db: Database,
    client: Ollama,
    seen: _Source,
    weights: str | None,
    wanted: Serving,
    by_user_id: int | None,
    at: datetime,
    progress: library.Progress | None,
) -> Registered | Refusal:
    template = wanted.template or seen.shown.template
    if not template or template.strip() == BARE_TEMPLATE:
        return Refusal("no_template", {"source": str(seen.path or seen.name)})
    system = wanted.system or seen.shown.system or System().text
    parameters = {**seen.shown.parameters, **wanted.parameters}
    # Weights are part of the name: the same file said to come from other weights is another release.
    tag = tags.name_of("base", f"{seen.digest} {weights}", template, system, parameters)
    if known := db.read(releases.by_tag, tag):
        return Registered(known, is_new=False)
    served: dict[str, Any] = {"template": template, "system": system, "parameters": parameters}
    library.create_from(client, tag, seen.name, **served, progress=progress)
    library.warm(client, tag)
    tags.try_out(client, tag, system)
    values = {
        **served,
        "path": str(seen.path.resolve()) if seen.path else None,
        "sha256": seen.digest if seen.path else None,
        "quantisation": seen.shown.quantisation or "unknown",
        "size_bytes": seen.path.stat().st_size if seen.path else None,
        "weights": weights,
    }
    return db.write(_record, tag, values, by_user_id, at)


def _record(session: Session, tag: str, values: Mapping[str, Any], by_user_id: int | None, at: datetime) -> Registered:
    if known := releases.by_tag(session, tag):
        return Registered(known, is_new=False)
    artefact = artefacts.add(session, **values, run_id=None, created_at=at)
    release = releases.add(session, tag, artefact.id, at)
    by = "terminal" if by_user_id is None else f"user {by_user_id}"
    deployments.deploy(session, release.id, by, "base", at)
    audit.record(session, by_user_id, "base.add", at, release=release.id, tag=tag, weights=values["weights"])
    return Registered(release, is_new=True)


def _unfit(file: Path) -> Refusal | None:
    if not file.is_file():
        return Refusal("no_such_file", {"path": str(file)})
    with file.open("rb") as opened:
        return None if opened.read(len(MAGIC)) == MAGIC else Refusal("not_gguf", {"path": str(file)})


def _from_file(client: Ollama, file: Path) -> _Source:
    """Upload it under a tag that is only looked at: what Ollama makes of the file's own template."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    name = f"huigan:file-{digest[:12]}"
    _ask(lambda: client.create(name, files={file.name: client.create_blob(file)}))
    return _Source(name, file, digest, library.show(client, name))


def _from_tag(client: Ollama, tag: str) -> _Source:
    shown = library.show(client, tag)
    digests = {each.model: each.digest for each in _ask(client.list).models}
    full = tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"
    return _Source(tag, None, digests.get(full) or str(asdict(shown)), shown)


def _ask(call: Callable[[], T]) -> T:
    try:
        return call()
    except TRANSPORT_ERRORS as error:
        raise told_apart(error) from error
