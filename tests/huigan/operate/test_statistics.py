"""Figures of the feedback: by day in UTC, by release, each rater once."""

from __future__ import annotations

from datetime import timedelta

from huigan.operate import statistics
from huigan.operate.statistics import Liked
from storage import answers, figures, ratings, turns, users
from storage.db import Database, Session
from storage.records import Answer, Ended, Seen, Thumb
from tests.bot.running import serve
from tests.storage.noun_world import AT, conversation, message


def answered_by(session: Session, release_id: int) -> Answer:
    talk = conversation(session)
    turn = turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT)
    seen = Seen("s", [], 0, "0", {})
    return answers.add(session, turn, "!", seen, Ended.COMPLETE, AT, tag="t", release_id=release_id)


def test_days_and_thumbs_are_counted_and_a_changed_mind_counts_once(db: Database) -> None:
    one, two = (serve(db, f"huigan:{each}").id for each in (1, 2))
    serve(db, "huigan:unrated")
    first, second = db.write(answered_by, one), db.write(answered_by, two)
    rater, other = (db.write(users.meet, "telegram", name, name, None, AT).id for name in "ro")
    late = AT + timedelta(days=1)
    for answer, who, thumb, at in (
        (first, rater, Thumb.UP, AT),
        (first, rater, Thumb.DOWN, AT),
        (second, rater, Thumb.UP, late),
        (second, other, Thumb.UP, late),
        (first, other, Thumb.UP, late),
        (first, other, Thumb.WITHDRAWN, late),
    ):
        db.write(ratings.add, answer.id, who, thumb, at)
    found = db.read(statistics.gather, late)
    assert (found.answers, found.ratings, found.raters) == (2, 4, 2)
    assert [(each.answers, each.ratings) for each in found.days[-2:]] == [(2, 1), (0, 3)]
    assert len(found.days) == statistics.DAYS
    assert found.liked == (Liked(one, 0, 1), Liked(two, 2, 0))
    assert db.read(figures.thumbs, [two]) == {two: {Thumb.UP: 2, Thumb.DOWN: 0}}
