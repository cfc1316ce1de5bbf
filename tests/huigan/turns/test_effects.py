"""What somebody's feedback did: counted by release and run, one answer once; found by indexes alone."""

from __future__ import annotations

from huigan.turns import effects
from storage import artefacts, comparisons, datasets, ratings, releases, runs, users
from storage.db import Database, Session
from storage.records import Lineage, Pick, RunState, Thumb
from storage.tables import run
from tests.storage.noun_world import AT, answered, people
from tests.storage.test_queries import asked


def in_release(
    session: Session, rating_ids: list[int], comparison_ids: list[int], held_out_ids: list[int]
) -> tuple[int, int]:
    """A run whose data set has these, the ratings in two stages, and the release it made."""
    queued = runs.enqueue(session, "lane", {}, "test", AT)
    assert queued is not None
    made = artefacts.add(
        session, run_id=queued.id, path=None, sha256=None, quantisation="Q8_0", size_bytes=None, weights=None,
        template="", system="", parameters={}, scorecard=None, verdict=None, created_at=AT,
    )  # fmt: skip
    session.execute(run.update().where(run.c.id == queued.id).values(state=RunState.RELEASED, artefact_id=made.id))
    lines = [Lineage(f"r{each}{stage}", "train", each, None) for each in rating_ids for stage in ("sft", "kto")]
    lines += [Lineage(f"h{each}", "held_out", each, None) for each in held_out_ids]
    lines += [Lineage(f"c{each}", "train", None, each) for each in comparison_ids]
    datasets.add(session, queued.id, "sft", (9, 9), {}, {}, "0", "", lines, AT)
    return queued.id, releases.add(session, "t:1", made.id, AT).id


def test_each_kind_is_counted_once_an_answer_in_the_release_it_went_into(db: Database) -> None:
    def play(session: Session) -> None:
        me, other = people(session, 2)
        shown = answered(session, 4)
        old = ratings.add(session, shown[0].id, me.id, Thumb.DOWN, AT, correction="好")
        up = ratings.add(session, shown[1].id, me.id, Thumb.UP, AT)
        ratings.add(session, shown[2].id, me.id, Thumb.DOWN, AT)
        ratings.add(session, shown[3].id, me.id, Thumb.WITHDRAWN, AT)
        ratings.add(session, shown[2].id, other.id, Thumb.UP, AT)
        picked = comparisons.add(session, shown[0].message_id, shown[0].id, shown[1].id, me.id, Pick.LEFT, AT)
        run_id, release_id = in_release(session, [old.id], [picked.id], [up.id])
        found = effects.of_user(session, me.id)
        assert (found.has_consented, found.given) == (False, {"correction": 1, "up": 1, "down": 1, "comparison": 1})
        assert found.unused == {"down": 1}
        [used] = found.used
        assert (used.run_id, used.release_id, used.state) == (run_id, release_id, RunState.RELEASED)
        assert used.trained == {"correction": 1, "comparison": 1}
        assert used.held_out == {"up": 1}
        users.consent(session, me.id, AT)
        assert effects.of_user(session, me.id).has_consented
        assert effects.of_user(session, other.id).unused == {"up": 1}

    db.write(play)


def test_no_table_is_read_from_end_to_end(sqlite_db: Database) -> None:
    [me] = sqlite_db.write(people, 1)
    with asked(sqlite_db) as sent:
        sqlite_db.read(effects.of_user, me.id)
    with sqlite_db.engine.connect() as connection:
        for statement, bound in [each for each in sent if not each[0].startswith("BEGIN")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", bound).all()
            assert [row[3] for row in plan if row[3].startswith("SCAN")] == []
