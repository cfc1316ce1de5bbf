"""Who is answered by a canary: its share of conversations, each from then on; or nobody, but a second time."""

from __future__ import annotations

import random

from huigan.turns import sampling
from huigan.turns.desk import Desk
from huigan.turns.opening import answer_again
from storage import artefacts, deployments, releases, turns, users
from storage.db import Database, Session
from storage.records import Answer, Release, Turn
from tests.fakes.ollama import OUT_OF_MEMORY, FakeOllama
from tests.huigan.turns.conftest import AT, says


def tried(db: Database, fake: FakeOllama, why: str, share: float) -> Release:
    """Beside base:v1."""

    def put(session: Session) -> Release:
        live = deployments.live(session)
        assert live is not None
        shape = live.artefact
        how = {"template": shape.template, "system": shape.system, "parameters": {"temperature": 0.2}}
        made = releases.add(
            session, "huigan:run1-0", artefacts.add(session, quantisation="F16", **how, created_at=AT).id, AT
        )
        deployments.deploy(session, made.id, "run 1", why, AT, share=share)
        return made

    fake.add("huigan:run1-0")
    return db.write(put)


async def answered(desk: Desk, turn: Turn) -> Answer:
    view = await desk.hand_in(turn).closed()
    assert view.answer is not None
    return view.answer


async def test_each_conversation_stays_with_who_answers_it_and_names_it(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    made = tried(sqlite_db, fake, deployments.CONVERSATIONS, 0.5)
    people = [f"p{number}" for number in range(12)]
    first = [(await answered(desk, says(sqlite_db, "one", who))).tag for who in people]
    assert set(first) == {"base:v1", made.tag}
    sqlite_db.write(deployments.deploy, made.id, "user 1", deployments.CONVERSATIONS, AT, share=0.9)
    then = [(await answered(desk, says(sqlite_db, "two", who))).tag for who in people]
    assert all(later == made.tag for before, later in zip(first, then, strict=True) if before == made.tag)
    sqlite_db.write(deployments.deploy, made.id, "canary", "withdraw", AT, share=0.0)
    last = [await answered(desk, says(sqlite_db, "three", who)) for who in people]
    assert {(each.tag, each.release_id) for each in last} == {("base:v1", 1)}


async def test_a_canary_by_comparisons_answers_a_share_once_more_as_it_would_alone(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    made = tried(sqlite_db, fake, deployments.COMPARISONS, 0.9)
    turn = says(sqlite_db, "one")
    sqlite_db.write(users.consent, turn.user_id, AT)
    assert (await answered(desk, turn)).tag == "base:v1"
    second = sqlite_db.write(sampling.second_answer, turn.id, random.Random(1), AT)
    assert second is not None
    given = await answered(desk, second)
    assert (given.tag, given.release_id) == (made.tag, made.id)
    assert given.seen.options == {"num_predict": 1024}, "neither warmer nor seeded: it is another release anyway"
    regenerated = sqlite_db.write(answer_again, turn.message_id, turn.user_id, AT)
    assert isinstance(regenerated, Turn)
    assert (await answered(desk, regenerated)).tag == "base:v1"


async def test_without_a_canary_nothing_is_sampled(sqlite_db: Database, desk: Desk) -> None:
    turn = says(sqlite_db, "one")
    sqlite_db.write(users.consent, turn.user_id, AT)
    await answered(desk, turn)
    assert sqlite_db.write(sampling.second_answer, turn.id, random.Random(1), AT) is None


async def test_a_turn_that_fails_before_its_first_word_still_names_whom_it_asked(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.inject("/api/chat", *OUT_OF_MEMORY)
    turn = says(sqlite_db, "one")
    view = await desk.hand_in(turn).closed()
    assert view.answer is None
    assert sqlite_db.read(turns.get, turn.id).tag == "base:v1"
