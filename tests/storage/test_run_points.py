"""A run's curve over its attempts, and the cards that show it."""

from __future__ import annotations

from storage import run_cards, run_points, runs, users
from storage.db import Database
from storage.records import CardKind
from tests.storage.noun_world import AT


def the_run(db: Database) -> int:
    added = db.write(runs.enqueue, "default", {}, "test", AT)
    assert added is not None
    return added.id


def test_an_attempt_that_goes_on_replaces_what_it_does_over_and_no_more(db: Database) -> None:
    number = the_run(db)
    first = [("sft", step, {"loss": 3.0 - step}) for step in range(1, 5)]
    db.write(run_points.add, number, 1, first, AT)
    db.write(run_points.add, number, 1, first[:1], AT)  # told twice
    db.write(run_points.add, number, 2, [("sft", 3, {"loss": 9.0}), ("dpo", 1, {"loss": 0.7, "margin": 0.0})], AT)
    curve = db.read(run_points.curve, number)
    assert [(each.method, each.step, each.measures["loss"]) for each in curve] == [
        ("sft", 1, 2.0),
        ("sft", 2, 1.0),
        ("sft", 3, 9.0),
        ("dpo", 1, 0.7),
    ]


def test_a_card_is_known_by_its_message_and_changes_until_it_is_finished(db: Database) -> None:
    number = the_run(db)
    admin = db.write(users.meet, "telegram", "7", "A", None, AT)
    kept = [
        db.write(run_cards.add, number, admin.id, kind, "telegram", "7", str(n), AT) for n, kind in enumerate(CardKind)
    ]
    assert db.write(run_cards.add, number, admin.id, CardKind.PROGRESS, "telegram", "7", "0", AT) is None
    assert db.read(run_cards.unfinished, "telegram", CardKind.PROGRESS) == [kept[0]]
    assert db.read(run_cards.unfinished, "terminal", CardKind.PROGRESS) == []
    assert kept[0] is not None
    db.write(run_cards.finish, kept[0].id, AT)
    assert db.read(run_cards.unfinished, "telegram", CardKind.PROGRESS) == []
    assert [each.id for each in db.read(run_cards.of_run, number, CardKind.PROGRESS)] == [kept[0].id]
