"""Owners: whom HUIGAN_ADMINS names, for as long as it does, or who had the claim code, once."""

from __future__ import annotations

from datetime import UTC, datetime

from bot import claim
from huigan.turns.opening import Refusal, Speaker
from storage import audit, settings, users
from storage.db import Database, Session
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


def roles(db: Database) -> dict[str, Role]:
    def found(session: Session) -> dict[str, Role]:
        known = (users.find(session, "telegram", number) for number in "123")
        return {each.external_id: each.role for each in known if each}

    return db.read(found)


def test_who_is_named_is_an_owner_for_as_long_as_they_are_named(db: Database) -> None:
    db.write(claim.appoint, ["1", "2"], AT)
    assert roles(db) == {"1": Role.OWNER, "2": Role.OWNER}
    db.write(claim.appoint, ["2", "1"], AT)
    db.write(claim.appoint, ["2"], AT)
    assert roles(db) == {"1": Role.USER, "2": Role.OWNER}
    told = [(each.act, each.params) for each in db.read(audit.newest)]
    assert told == [("owner.dismiss", {"user": 1}), ("owner.appoint", {"user": 2}), ("owner.appoint", {"user": 1})]


def test_who_is_named_no_longer_is_again_what_they_were(sqlite_db: Database) -> None:
    admin = sqlite_db.write(users.meet, "telegram", "3", "Cat", "en", AT)
    sqlite_db.write(users.set_role, admin.id, Role.ADMIN)
    sqlite_db.write(claim.appoint, ["3"], AT)
    sqlite_db.write(claim.appoint, ["3"], AT)
    sqlite_db.write(claim.appoint, [], AT)
    assert roles(sqlite_db) == {"3": Role.ADMIN}


def test_who_claimed_the_bot_stays_its_owner_named_or_not(sqlite_db: Database) -> None:
    code = sqlite_db.write(claim.issue, AT)
    assert code is not None
    sqlite_db.write(claim.claim, ANN, code, AT)
    sqlite_db.write(claim.appoint, ["1", "2"], AT)
    sqlite_db.write(claim.appoint, [], AT)
    assert roles(sqlite_db) == {"1": Role.OWNER, "2": Role.USER}


def test_what_was_decided_of_them_meanwhile_stands_when_they_are_named_no_longer(sqlite_db: Database) -> None:
    sqlite_db.write(claim.appoint, ["1"], AT)
    sqlite_db.write(users.set_role, 1, Role.BLOCKED)
    sqlite_db.write(claim.appoint, [], AT)
    assert roles(sqlite_db) == {"1": Role.BLOCKED}


def test_somebody_named_voids_the_code_and_nobody_named_any_more_issues_one(sqlite_db: Database) -> None:
    code = sqlite_db.write(claim.issue, AT)
    assert code is not None
    sqlite_db.write(claim.appoint, ["1"], AT)
    assert sqlite_db.write(claim.claim, BOB, code, AT) == Refusal("claim_used")
    new = sqlite_db.write(claim.issue, AT)
    assert new is not None
    assert isinstance(sqlite_db.write(claim.claim, BOB, new, AT), User)
    assert roles(sqlite_db) == {"1": Role.USER, "2": Role.OWNER}


def test_an_appointed_owner_is_spoken_to_in_their_language_once_it_is_known(sqlite_db: Database) -> None:
    sqlite_db.write(claim.appoint, ["1"], AT)
    assert sqlite_db.write(users.meet, "telegram", "1", "Ann", "en", AT).locale == "en"
    assert sqlite_db.write(users.meet, "telegram", "1", "Ann", "zh-Hans", AT).reads == "zh-Hans"


def test_a_chosen_language_stays_whatever_telegram_tells(sqlite_db: Database) -> None:
    user = sqlite_db.write(users.meet, "telegram", "1", "Ann", "en", AT)
    sqlite_db.write(users.choose_locale, user.id, "zh-Hant")
    assert sqlite_db.write(users.meet, "telegram", "1", "Ann", "zh-Hans", AT).reads == "zh-Hant"
    assert sqlite_db.write(users.choose_locale, user.id, None).reads == "zh-Hans"
