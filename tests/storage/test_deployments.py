"""What answers whom: the live release, and a canary beside it whose conversations stay its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import artefacts, deployments, releases
from storage.db import Database, Session
from storage.records import Live, Release

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
CONVERSATIONS = range(1, 2001)


def release(session: Session, tag: str) -> Release:
    shaped = {"template": "t", "system": "s", "parameters": {}}
    return releases.add(session, tag, artefacts.add(session, quantisation="F16", **shaped, created_at=AT).id, AT)


def two(session: Session) -> tuple[Release, Release]:
    """The first is live."""
    live, other = release(session, "live:1"), release(session, "other:1")
    deployments.deploy(session, live.id, "test", "test", AT)
    return live, other


def tried(db: Database, of: Release, share: float, why: str = deployments.CONVERSATIONS, hours: float = 0) -> None:
    db.write(deployments.deploy, of.id, "test", why, AT + timedelta(hours=hours), share=share)


def answering(db: Database, *, sampled: bool = False) -> dict[int, str]:
    def ask(session: Session) -> dict[int, str]:
        found = {each: deployments.for_turn(session, each, sampled=sampled) for each in CONVERSATIONS}
        return {each: answering.release.tag for each, answering in found.items() if answering is not None}

    return db.read(ask)


def canarys(db: Database) -> set[int]:
    return {each for each, tag in answering(db).items() if tag == "other:1"}


def tag(found: Live | None) -> str | None:
    return found.release.tag if found else None


def test_a_canary_has_its_share_and_keeps_its_conversations_when_that_grows(db: Database) -> None:
    _, other = db.write(two)
    assert canarys(db) == set()
    tried(db, other, 0.1)
    few = canarys(db)
    assert 0.07 < len(few) / len(CONVERSATIONS) < 0.13
    assert canarys(db) == few
    tried(db, other, 0.5)
    many = canarys(db)
    assert few < many
    assert 0.46 < len(many) / len(CONVERSATIONS) < 0.54
    tried(db, other, 0.1)
    assert canarys(db) == few


def test_each_canary_has_other_conversations() -> None:
    lots = [{each for each in CONVERSATIONS if deployments.lot(tag, each) < 0.2} for tag in ("a:1", "a:2")]
    assert len(lots[0] & lots[1]) < 0.4 * len(lots[0])
    assert all(0.0 <= deployments.lot("a:1", each) < 1.0 for each in CONVERSATIONS)


def test_a_canary_that_is_compared_answers_nothing_but_second_answers(db: Database) -> None:
    _, other = db.write(two)
    tried(db, other, 0.3, deployments.COMPARISONS)
    assert canarys(db) == set()
    assert set(answering(db, sampled=True).values()) == {"other:1"}


def test_a_canary_ends_with_share_0_and_with_every_swap(db: Database) -> None:
    live, other = db.write(two)
    for end in (0.0, 1.0):
        tried(db, other, 0.5)
        assert tag(db.read(deployments.canary)) == "other:1"
        assert tag(db.read(deployments.live)) == "live:1"
        db.write(deployments.deploy, other.id if end == 0.0 else live.id, "test", "end", AT, share=end)
        assert db.read(deployments.canary) is None
        assert db.read(deployments.of_canary) == []
        assert set(answering(db).values()) == {"live:1"}


def test_a_canary_begins_where_its_share_was_first_set_and_anew_after_an_end(db: Database) -> None:
    _, other = db.write(two)
    tried(db, other, 0.1, hours=1)
    tried(db, other, 0.0, "stop", hours=2)
    tried(db, other, 0.1, hours=3)
    tried(db, other, 0.4, hours=4)
    rows = db.read(deployments.of_canary)
    assert [(each.share, each.since_at) for each in rows] == [
        (0.1, AT + timedelta(hours=3)),
        (0.4, AT + timedelta(hours=4)),
    ]


def test_before_the_first_base_nothing_answers(db: Database) -> None:
    assert db.read(deployments.for_turn, 1, sampled=False) is None
    db.write(deployments.hold)
