"""Whom the bot asks which of two answers is better: never two in a row, and only where it is of use."""

from __future__ import annotations

import random

import pytest

from huigan.turns import sampling
from storage import answers, artefacts, attachments, deployments, releases, turns, users
from storage.db import Database, Session
from storage.records import Answer, AttachmentKind, Ended, Role, Seen, Turn
from tests.storage.noun_world import AT, conversation, message


def asked(session: Session, number: int) -> list[Turn]:
    """Turns of one conversation that are answered, by somebody who agrees to training."""
    talk, closed = conversation(session), []
    users.consent(session, talk.user_id, AT)
    for _ in range(number):
        turn = turns.wait(session, talk.id, message(session, talk).id, talk.user_id, AT)
        answered(session, turn)
        closed.append(turn)
    return closed


def answered(session: Session, turn: Turn) -> Answer:
    assert turns.open_next(session, turn.id, "w", AT)
    assert turns.close(session, turn.id, Ended.COMPLETE, AT)
    return answers.add(session, turn, "!", Seen("s", [], 0, "0", {}), Ended.COMPLETE, AT, tag="t")


def test_the_rate_decides_and_two_in_a_row_never_come(db: Database) -> None:
    def play(session: Session) -> None:
        first, second = asked(session, 2)
        assert sampling.second_answer(session, first.id, random.Random(1), AT) is None
        sampling.set_rate(session, 1.0, None, AT)
        again = sampling.second_answer(session, first.id, random.Random(1), AT)
        assert again is not None
        assert (again.again, again.sampled) == (True, True)
        answered(session, again)
        assert sampling.second_answer(session, second.id, random.Random(1), AT) is None

    db.write(play)


def test_a_canary_is_not_asked_about_a_picture_which_it_may_not_see(db: Database) -> None:
    def play(session: Session) -> None:
        [plain], [pictured] = asked(session, 1), asked(session, 1)
        picture = {"name": "", "mime_type": "image/jpeg", "sha256": "0" * 64, "size_bytes": 1, "path": "/p"}
        attachments.add(session, pictured.message_id, AT, kind=AttachmentKind.IMAGE, **picture)
        sampling.set_rate(session, 1.0, None, AT)
        artefact = artefacts.add(
            session, quantisation="F16", template="", system="", parameters={}, weights=None, created_at=AT
        )
        made = releases.add(session, "huigan:run1-0", artefact.id, AT)
        deployments.deploy(session, made.id, "run 1", deployments.COMPARISONS, AT, share=0.5)
        assert sampling.second_answer(session, pictured.id, random.Random(1), AT) is None
        assert sampling.second_answer(session, plain.id, random.Random(1), AT) is not None

    db.write(play)


def test_without_consent_and_for_the_blocked_nothing_is_answered_twice(db: Database) -> None:
    def play(session: Session) -> None:
        [turn] = asked(session, 1)
        sampling.set_rate(session, 1.0, None, AT)
        users.decline(session, turn.user_id, AT)
        assert sampling.second_answer(session, turn.id, random.Random(1), AT) is None
        users.consent(session, turn.user_id, AT)
        users.set_role(session, turn.user_id, Role.BLOCKED)
        assert sampling.second_answer(session, turn.id, random.Random(1), AT) is None
        users.set_role(session, turn.user_id, Role.USER)
        assert sampling.second_answer(session, turn.id, random.Random(1), AT) is not None

    db.write(play)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_only_a_share_is_a_rate(db: Database, share: float) -> None:
    with pytest.raises(ValueError, match="no share"):
        db.write(sampling.set_rate, share, None, AT)
    assert db.read(sampling.rate) == 0.0
