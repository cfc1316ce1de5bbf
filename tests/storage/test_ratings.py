"""Of one rater on one answer the newest row counts, whatever was rated when, and up to any watermark."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from storage import ratings
from storage.db import Database, Session
from storage.records import Rating, Reason, Thumb
from storage.tables import rating
from tests.storage.noun_world import AT, answered, people

given_ratings = st.tuples(
    st.integers(0, 2),  # answer
    st.integers(0, 2),  # rater
    st.sampled_from(Thumb),
    st.none() | st.sampled_from(Reason),
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)


def newest_by_rater(rows: list[Rating]) -> list[Rating]:
    """The model: a dictionary that later rows overwrite."""
    said = {(row.answer_id, row.user_id): row for row in rows}
    return sorted((row for row in said.values() if row.thumb is not Thumb.WITHDRAWN), key=lambda row: row.id)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(given_ratings, max_size=20), st.data())
def test_the_newest_rating_of_each_rater_counts(
    db: Database, script: list[tuple[int, int, Thumb, Reason | None, str | None]], data: st.DataObject
) -> None:
    def play(session: Session) -> None:
        session.execute(delete(rating))
        shown, raters, rows = answered(session, 3), people(session, 3), []
        for minute, (which, who, thumb, reason, text) in enumerate(script):
            at = AT + timedelta(minutes=minute)
            rows.append(
                ratings.add(session, shown[which].id, raters[who].id, thumb, at, reason=reason, correction=text)
            )
        assert [(row.thumb, row.reason, row.correction) for row in rows] == [each[2:] for each in script]
        model = newest_by_rater(rows)
        assert ratings.counting(session) == model
        assert ratings.count(session) == len(model)
        assert ratings.watermark(session) == max((row.id for row in rows), default=0)
        assert ratings.counting(session, answer_ids=[shown[0].id]) == [
            row for row in model if row.answer_id == shown[0].id
        ]
        for answer in shown:
            for rater in raters:
                said = [row for row in rows if (row.answer_id, row.user_id) == (answer.id, rater.id)]
                assert ratings.newest(session, answer.id, rater.id) == (said[-1] if said else None)
        if rows:
            mark = data.draw(st.sampled_from(rows))
            assert ratings.counting(session, up_to=mark.id) == newest_by_rater(
                [row for row in rows if row.id <= mark.id]
            )
            later = [row for row in model if row.id > mark.id]
            assert ratings.counting(session, after=mark.id) == later
            assert ratings.count(session, mark.rated_at) == len(later)

    db.write(play)
