"""The tags in Ollama as an admin keeps them: listed with what they are needed for, removed where for nothing. A tag
that answers, that a rollback would need, or that waits for approval stays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from huigan.operate import releases as operate_releases
from huigan.operate import tags
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import Ollama
from storage import audit, deployments, releases, runs
from storage.db import Database
from storage.records import RunState

LIVE, ROLLBACK, AWAITED, ALIAS = "live", "rollback", "awaited", "alias"


@dataclass(frozen=True)
class Kept:
    tag: str
    size_bytes: int
    is_loaded: bool
    needed_for: str | None  # LIVE, ROLLBACK, AWAITED or ALIAS; None: it may go


def listed(db: Database, client: Ollama) -> list[Kept]:
    """As Ollama lists them, the newest first. Raises ServingError."""
    needed = db.read(needs)
    sizes, loaded = library.sizes(client), set(library.loaded(client))
    return [Kept(tag, size, tag in loaded, needed.get(tag)) for tag, size in sizes.items()]


def needs(session: Session) -> dict[str, str]:
    """Tags that must stay, and what for."""
    found = {tags.ALIAS: ALIAS}
    for each in runs.newest(session, 1000, states=frozenset({RunState.AWAITING_APPROVAL})):
        proposed = releases.of_artefact(session, each.artefact_id) if each.artefact_id is not None else None
        found |= {proposed.tag: AWAITED} if proposed else {}
    before = operate_releases.before_live(deployments.history(session, operate_releases.HISTORY))
    live = deployments.live(session)
    found |= {releases.get(session, before).tag: ROLLBACK} if before is not None else {}
    found |= {live.release.tag: LIVE} if live else {}
    return {whole(tag): why for tag, why in found.items()}


def whole(tag: str) -> str:
    """As Ollama lists it."""
    return tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"


def remove(db: Database, client: Ollama, tag: str, *, by_user_id: int, at: datetime) -> bool | Refusal:
    """False if there was none. Refused: `tag_needed`. Raises ServingError."""
    if whole(tag) in db.read(needs):
        db.write(audit.record, by_user_id, "tag.remove", at, tag=tag, refused="tag_needed")
        return Refusal("tag_needed", {"tag": tag})
    is_gone = library.delete(client, tag)
    db.write(audit.record, by_user_id, "tag.remove", at, tag=tag)
    return is_gone


def note_pull(session: Session, tag: str, by_user_id: int, at: datetime, ended: str | None = None) -> None:
    """That it was asked for, or how it ended."""
    told = {"ended": ended} if ended else {}
    audit.record(session, by_user_id, "tag.pull", at, tag=tag, **told)
