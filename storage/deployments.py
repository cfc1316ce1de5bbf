"""Which release answers, since when and why. Inserted only: the hot swap is one INSERT here.

Live is the newest with share 1. Newer ones with a share below 1 are of a canary: the newest row of all says whether
there is one, and 0 ends it. So whatever is decided about either is one INSERT, and every swap ends the canary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select

from storage import releases
from storage.db import Session
from storage.records import Artefact, Deployment, Live, Release
from storage.rows import add, every, first, joined
from storage.tables import artefact, deployment, release

# Why a share is below 1: that share of conversations is answered by it, or of messages answered a second time.
CONVERSATIONS, COMPARISONS = "conversations", "comparisons"


HISTORY = select(deployment).order_by(deployment.c.id.desc()).limit(bindparam("limit"))
JOINED = (
    select(deployment, release, artefact)
    .join(release, release.c.id == deployment.c.release_id)
    .join(artefact, artefact.c.id == release.c.artefact_id)
    .order_by(deployment.c.id.desc())
    .limit(1)
)
LIVE = JOINED.where(deployment.c.share >= 1.0)
REIGNS = (
    select(deployment.c.release_id, deployment.c.why)
    .where(deployment.c.share >= 1.0)
    .order_by(deployment.c.id.desc())
    .limit(bindparam("limit"))
)


def deploy(session: Session, release_id: int, by: str, why: str, at: datetime, *, share: float = 1.0) -> Deployment:
    return add(session, Deployment, deployment, release_id=release_id, share=share, by=by, why=why, since_at=at)


def live(session: Session) -> Live | None:
    """The newest deployment with share 1; None before the first `huigan base add`."""
    return _newest(session, LIVE)


def hold(session: Session) -> None:
    """Until the end of this transaction nobody else who holds decides. SQLite's writers wait for each other anyway."""
    session.execute(select(deployment.c.id).order_by(deployment.c.id.desc()).limit(1).with_for_update())


def canary(session: Session) -> Live | None:
    """The release that is tried beside the live one, if one is."""
    return _newest(session, JOINED) if _tried(session) is not None else None


def of_canary(session: Session) -> list[Deployment]:
    """Of the canary that there is: its deployments, oldest first. More than one where its share was changed."""
    tried = _tried(session)
    return [] if tried is None else [*_back_to_its_beginning(session, tried)][::-1]


def _tried(session: Session) -> Deployment | None:
    """The newest, where it is a canary's: what is asked at each look and each turn, and mostly None."""
    newest = first(session, Deployment, HISTORY, limit=1)
    return newest if newest is not None and 0.0 < newest.share < 1.0 else None


def _back_to_its_beginning(session: Session, newest: Deployment) -> Iterator[Deployment]:
    for each in every(session, Deployment, select(deployment).order_by(deployment.c.id.desc())):
        if (each.release_id, each.why) != (newest.release_id, newest.why) or not 0.0 < each.share < 1.0:
            return
        yield each


def for_turn(session: Session, conversation_id: int, *, sampled: bool) -> Live | None:
    """What answers in that conversation; `sampled`: a second time, for somebody to compare."""
    tried = canary(session)
    if tried is None:
        return live(session)
    if tried.deployment.why == COMPARISONS:
        return tried if sampled else live(session)
    return tried if lot(tried.release.tag, conversation_id) < tried.deployment.share else live(session)


def lot(tag: str, conversation_id: int) -> float:
    """From 0 up to 1, the same whenever it is drawn: below its share, a conversation is the canary's. So what is a
    canary's stays so when the share grows, and each canary has others."""
    drawn = hashlib.sha256(f"{tag}/{conversation_id}".encode()).digest()
    return int.from_bytes(drawn[:6]) / 2**48


def of_tag(session: Session, tag: str) -> Live | None:
    """The newest deployment of the release with that tag."""
    released = releases.by_tag(session, tag)
    return None if released is None else _newest(session, JOINED.where(deployment.c.release_id == released.id))


def _newest(session: Session, query: Select[Any]) -> Live | None:
    row = session.execute(query).first()
    return (
        None if row is None else Live(*joined(row, (Deployment, deployment), (Release, release), (Artefact, artefact)))
    )


def live_at(session: Session, at: datetime) -> int | None:
    """The release that answered then."""
    then = select(deployment.c.release_id).where(deployment.c.share >= 1.0, deployment.c.since_at <= at)
    return session.scalar(then.order_by(deployment.c.id.desc()).limit(1))


def first_at(session: Session) -> datetime | None:
    """Since when anything answers at all."""
    return session.scalar(select(deployment.c.since_at).order_by(deployment.c.id).limit(1))


def reigns(session: Session, limit: int) -> list[tuple[int, str]]:
    """Of what answered alone, newest first: which release, and why."""
    return [(number, why) for number, why in session.execute(REIGNS, {"limit": limit})]


def history(session: Session, limit: int = 50) -> list[Deployment]:
    """Newest first."""
    return every(session, Deployment, HISTORY, limit=limit)
