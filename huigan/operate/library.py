"""The tags in Ollama as an admin keeps them: listed with what they are needed for, removed where for nothing. A tag
that answers, that a rollback would need, or that waits for approval stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from huigan.operate import keeping, lineage, rollbacks, tags
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import artefacts, audit, dataset_copies, deployments, holdings, releases, runs
from storage.db import Database, Session
from storage.records import Release, RunState

log = logging.getLogger(__name__)

LIVE, ROLLBACK, AWAITED, ALIAS, CANARY = "live", "rollback", "awaited", "alias", "canary"


@dataclass(frozen=True)
class Kept:
    tag: str
    size_bytes: int
    is_loaded: bool
    needed_for: str | None  # LIVE, ROLLBACK, AWAITED, CANARY or ALIAS; None: it may go


def listed(db: Database, client: Ollama) -> list[Kept]:
    """As Ollama lists them, the newest first. Raises ServingError."""
    needed = db.read(needs)
    sizes, loaded = library.sizes(client), set(library.loaded(client))
    return [Kept(tag, size, tag in loaded, needed.get(tag)) for tag, size in sizes.items()]


def needs(session: Session) -> dict[str, str]:
    """Tags that must stay, and what for."""
    named = {each.tag: why for each, why in needed(session)}
    return {whole(tag): why for tag, why in ({tags.ALIAS: ALIAS} | named).items()}


def needed(session: Session) -> list[tuple[Release, str]]:
    """Releases that must stay, and what for; of several reasons the strongest is last. One that was withdrawn, for it
    holds what somebody took back, never comes back."""
    wanted = _wanted(session)
    gone = holdings.withdrawn_of(session, (each.id for each, _ in wanted))
    return [(each, why) for each, why in wanted if each.id not in gone]


def _wanted(session: Session) -> list[tuple[Release, str]]:
    found: list[tuple[Release, str]] = []
    for each in runs.newest(session, 1000, states=frozenset({RunState.AWAITING_APPROVAL})):
        proposed = releases.of_artefact(session, each.artefact_id) if each.artefact_id is not None else None
        found += [(proposed, AWAITED)] if proposed else []
    before = rollbacks.way_back(session)
    found += [(releases.get(session, before), ROLLBACK)] if before is not None else []
    newest = deployments.history(session, 1)
    found += [(releases.get(session, each.release_id), CANARY) for each in newest if 0 < each.share < 1]
    live = deployments.live(session)
    return [*found, (live.release, LIVE)] if live else found


def prune(db: Database, client: Ollama, keep: int | None, at: datetime, *, dry: bool = False) -> keeping.Plan:
    """Take the tags of older releases out of Ollama, but for the newest `keep` and what is needed. What was removed by
    a call that was cut short is gone; the next one goes on. `dry`: only say which. Raises ServingError."""
    there = set(sizes := library.sizes(client))
    things = db.read(_things, sizes)
    planned = keeping.plan(things, keeping.Limits({"tag": keep}), at)
    for each in () if dry else planned.going:
        if whole(each.thing.name) not in db.read(needs):  # somebody may have gone back to it meanwhile
            library.delete(client, each.thing.name)
            there -= {whole(each.thing.name)}
            db.write(audit.record, None, "tag.prune", at, tag=each.thing.name)
    if not dry:
        _let_go(db, there, at)
    return planned


def _let_go(db: Database, there: set[str], at: datetime) -> None:
    """Of runs of which nothing is left. Where the live release's tag is not in this Ollama, it may be another one, or
    one that lost them: what it lacks says nothing then."""
    live = db.read(deployments.live) if db.read(dataset_copies.nowhere) else None
    if live is not None and whole(live.release.tag) in there:
        lineage.let_go(db, there | db.read(needs).keys(), at)


def look(db: Database, client: Ollama, keep: int | None, at: datetime) -> None:
    """As `prune`; an Ollama that is away is looked at again later."""
    try:
        prune(db, client, keep, at)
    except ServingError as error:
        log.warning("old tags stay in Ollama for now: %s", error)


def _things(session: Session, sizes: Mapping[str, int]) -> list[keeping.Thing]:
    """Of the tags in Ollama those that are releases of runs: what anybody else has there is theirs."""
    wanted = needs(session)
    found = [releases.by_tag(session, tag) for tag in sizes]
    made = [each for each in found if each and artefacts.get(session, each.artefact_id).run_id is not None]
    return [
        keeping.Thing("tag", each.tag, sizes[each.tag], each.id, each.created_at, wanted.get(whole(each.tag)))
        for each in made
    ]


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
