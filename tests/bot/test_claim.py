"""The claim code makes the first owner, once."""

from __future__ import annotations

from datetime import UTC, datetime

from bot import claim
from huigan.turns.opening import Refusal, Speaker
from storage import settings, users
from storage.db import Database
from storage.records import Role, User

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ANN, BOB = Speaker("1", "Ann", "en"), Speaker("2", "Bob", "en")


def test_who_has_the_code_becomes_the_owner_and_nobody_after_them(db: Database) -> None:
    code = db.write(claim.issue, AT)
    assert code is not None
    assert db.write(claim.claim, BOB, "guess", AT) == Refusal("claim_wrong")
    owner = db.write(claim.claim, ANN, f" {code.lower()} ", AT)
    assert isinstance(owner, User)
    assert owner.role is Role.OWNER
    assert db.write(claim.claim, BOB, code, AT) == Refusal("claim_used")
    again = db.write(claim.claim, ANN, code, AT)
    assert isinstance(again, User), "an update that is replayed"
    assert db.write(claim.issue, AT) is None


def test_a_new_code_replaces_the_old_one_and_only_its_digest_is_kept(sqlite_db: Database) -> None:
    old = sqlite_db.write(claim.issue, AT)
    new = sqlite_db.write(claim.issue, AT)
    assert old is not None
    assert new is not None
    kept = sqlite_db.read(settings.get, claim.KEY)
    assert kept is not None
    assert new not in str(kept.value)
    assert sqlite_db.write(claim.claim, ANN, old, AT) == Refusal("claim_wrong")


def test_no_code_is_issued_where_somebody_was_appointed(sqlite_db: Database) -> None:
    code = sqlite_db.write(claim.issue, AT)
    sqlite_db.write(users.appoint, "telegram", ["1"], AT)
    assert sqlite_db.write(claim.issue, AT) is None
    assert code is not None
    assert sqlite_db.write(claim.claim, BOB, code, AT) == Refusal("claim_used")


def test_an_appointed_owner_is_spoken_to_in_their_language_once_it_is_known(sqlite_db: Database) -> None:
    sqlite_db.write(users.appoint, "telegram", ["1"], AT)
    assert sqlite_db.write(users.meet, "telegram", "1", "Ann", "en", AT).locale == "en"
    assert sqlite_db.write(users.meet, "telegram", "1", "Ann", "zh-Hans", AT).locale == "en"
