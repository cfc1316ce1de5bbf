"""Ollama's tags as an operator handles them: named for what they hold, readied, tried, pointed at. No database.

A tag of ours never changes: its name holds a digest of everything that shapes an answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import Refused, ServingError, UnknownTag
from storage.records import Artefact, Release

log = logging.getLogger(__name__)

ALIAS = "huigan:live"
ALIAS_TRIES = 5
ALIAS_PAUSE_SECONDS = 0.2
QUESTION = "你好！Who are you?"
TRIAL_TOKENS = 32


def name_of(origin: str, file_digest: str, template: str, system: str, parameters: Mapping[str, Any]) -> str:
    """`huigan:ORIGIN-DIGEST`: the same for the same file served in the same way. `origin` is "base" or "run7"."""
    kept = json.dumps([file_digest, template, system, dict(parameters)], sort_keys=True, ensure_ascii=False)
    return f"huigan:{origin}-{hashlib.sha256(kept.encode()).hexdigest()[:12]}"


def run_of(tag: str) -> int | None:
    """Which run it was made of by its name; None where of none."""
    found = re.fullmatch(r"huigan:run(\d+)-\w+", tag)
    return int(found[1]) if found else None


def ready(client: Ollama, release: Release, artefact: Artefact, options: Mapping[str, Any] | None = None) -> None:
    """Load a release's tag, so that its first answer does not wait. Raises ServingError.

    Where Ollama lost the tag and the file is here, the tag is made again; else the trainer's machine may do so.
    """
    try:
        library.warm(client, release.tag, options=options)
    except UnknownTag:
        if not is_here(artefact):
            raise
        make(client, release, artefact)
        library.warm(client, release.tag, options=options)


def is_here(artefact: Artefact) -> bool:
    """Whether this machine has the very file: a path is that of the machine where it was made, and another may lie
    under the same one here."""
    if artefact.path is None or artefact.sha256 is None or not Path(artefact.path).is_file():
        return False
    with Path(artefact.path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artefact.sha256


def make(client: Ollama, release: Release, artefact: Artefact) -> None:
    """Upload the artefact's file, which is here, and make its release's tag of it. Raises ServingError."""
    library.create(
        client,
        release.tag,
        Path(str(artefact.path)),
        template=artefact.template,
        system=artefact.system,
        parameters=artefact.parameters,
    )


def try_out(client: Ollama, tag: str, system: str) -> None:
    """Ask one question. Raises ServingError, Refused if there is no word in the answer."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}]
    told = library.ask(client, tag, messages, {"temperature": 0.0, "num_predict": TRIAL_TOKENS})
    if not (told.message.content or told.message.thinking or "").strip():
        raise Refused(f"{tag} answered with nothing: its template may not fit the file")


def point(client: Ollama, alias: str, tag: str) -> bool:
    """Move the alias, which only other clients read. Best effort: False, and a warning, where it stays behind.

    Copying over a name is not atomic in Ollama: it answers `EOF` to whoever meets it half done, hence the retries.
    """
    for attempt in range(1, ALIAS_TRIES + 1):
        try:
            library.copy(client, tag, alias)
        except ServingError as error:
            log.warning("alias %s stays where it is, try %d of %d: %s", alias, attempt, ALIAS_TRIES, error)
            if "EOF" not in str(error):
                return False
            time.sleep(ALIAS_PAUSE_SECONDS)
        else:
            return True
    return False


def catch_up(client: Ollama, alias: str, tag: str) -> bool:
    """Move an alias that was left behind: its mover was killed, or Ollama was busy. One that is not there, which is an
    operator's choice, is not made. True where it was moved. Raises ServingError."""
    found = library.digests(client)
    if alias not in found or found.get(tag) in {None, found[alias]}:
        return False
    return point(client, alias, tag)
