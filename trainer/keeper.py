"""Puts back into Ollama the tags that it lost, where their files lie on this machine: the bot's has none of them.

Only what is needed: what answers, what a rollback would go back to, what waits for approval. It knows no runs.
"""

from __future__ import annotations

import logging
from datetime import datetime

from huigan.operate import library as operate_library
from huigan.operate import tags
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import NotRunning
from storage import artefacts, audit, releases
from storage.db import Database, Session
from storage.records import Artefact, Release

log = logging.getLogger(__name__)


def put_back(db: Database, client: Ollama, at: datetime) -> list[str]:
    """Which tags are back. What cannot be put back from here is left to another machine; an Ollama that is away, to a
    later look. Raises ServingError."""
    try:
        there = set(library.tags(client))
    except NotRunning:
        return []
    back = []
    for release, artefact in db.read(_needed):
        if operate_library.whole(release.tag) not in there and tags.is_here(artefact):
            tags.make(client, release, artefact)
            db.write(audit.record, None, "tag.put_back", at, tag=release.tag)
            log.warning("Ollama had lost %s: it is back", release.tag)
            back.append(release.tag)
    return back


def _needed(session: Session) -> list[tuple[Release, Artefact]]:
    known = (releases.by_tag(session, tag) for tag in operate_library.needs(session))
    return [(each, artefacts.get(session, each.artefact_id)) for each in known if each is not None]
