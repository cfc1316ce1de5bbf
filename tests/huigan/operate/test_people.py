"""Roles, invitations and announcements: what admins may do to people, and what the audit keeps of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from huigan.operate import broadcasts, invitations, people
from huigan.operate.refusals import Refusal
from storage import audit, outbox, users
from storage import invitations as invitation_rows
from storage.db import Database
from storage.records import Role, User

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def person(db: Database, name: str, role: Role = Role.USER) -> User:
    met = db.write(users.meet, "telegram", name, name, None, AT)
    return db.write(users.set_role, met.id, role)


def set_role(db: Database, whom: User, role: Role, by: User) -> User | Refusal:
    return db.write(people.set_role, whom.id, role, by_user_id=by.id, at=AT)


@pytest.mark.parametrize(
    ("by", "whom", "role", "code"),
    [
        (Role.USER, Role.USER, Role.BLOCKED, "not_admin"),
        (Role.ADMIN, Role.USER, Role.ADMIN, "only_owners"),
        (Role.ADMIN, Role.ADMIN, Role.USER, "only_owners"),
        (Role.ADMIN, Role.OWNER, Role.BLOCKED, "only_owners"),
        (Role.ADMIN, Role.USER, Role.BLOCKED, None),
        (Role.ADMIN, Role.BLOCKED, Role.USER, None),
        (Role.OWNER, Role.USER, Role.ADMIN, None),
        (Role.OWNER, Role.ADMIN, Role.USER, None),
        (Role.OWNER, Role.OWNER, Role.USER, None),
    ],
)
def test_who_may_change_whose_role(sqlite_db: Database, by: Role, whom: Role, role: Role, code: str | None) -> None:
    admin, other = person(sqlite_db, "by", by), person(sqlite_db, "whom", whom)
    result = set_role(sqlite_db, other, role, admin)
    after = sqlite_db.read(users.get, other.id).role
    if code is None:
        assert isinstance(result, User)
        assert after is role
    else:
        assert result == Refusal(code)
        assert after is whom
    [entry] = sqlite_db.read(audit.of_act, "user.role")
    assert (entry.user_id, entry.params.get("refused")) == (admin.id, code)


def test_the_last_owner_stays_one_also_where_two_unmake_each_other_at_once(db: Database) -> None:
    ann, bob = person(db, "ann", Role.OWNER), person(db, "bob", Role.OWNER)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda pair: set_role(db, pair[0], Role.USER, pair[1]), [(ann, bob), (bob, ann)]))
    assert sum(isinstance(each, User) for each in found) == 1
    [owner] = db.read(users.admins)
    assert set_role(db, owner, Role.USER, owner) == Refusal("last_owner")
    assert set_role(db, owner, Role.BLOCKED, owner) == Refusal("block_yourself")


def test_who_is_blocked_is_told_once_each_time(db: Database) -> None:
    owner, ann = person(db, "owner", Role.OWNER), person(db, "ann")
    for _ in range(2):
        set_role(db, ann, Role.BLOCKED, owner)
        assert [db.write(people.first_refusal, ann.id, AT) for _ in range(3)] == [True, False, False]
        set_role(db, ann, Role.USER, owner)
    assert [each.code for each in db.read(outbox.unsent)] == ["you_are_unblocked"] * 2


def invite(db: Database, by: User, role: Role = Role.USER, uses: int = 1, days: int = 7) -> str:
    made = db.write(invitations.make, role, uses, days, by_user_id=by.id, at=AT)
    assert isinstance(made, invitations.Made)
    return made.code


def use(db: Database, code: str, who: User, at: datetime = AT) -> User | Refusal:
    return db.write(invitations.use, code, who.id, at)


VOID = Refusal("invitation_void")


def test_a_link_counts_each_person_once_and_ends_by_use_time_or_withdrawal(db: Database) -> None:
    owner = person(db, "owner", Role.OWNER)
    ann, bob, cat = (person(db, name) for name in ("ann", "bob", "cat"))
    code = invite(db, owner, uses=2)
    for who in (ann, ann, bob, ann):
        assert isinstance(use(db, code, who), User)
    assert use(db, code, cat) == VOID
    assert use(db, "guess", cat) == VOID
    late = invite(db, owner)
    assert use(db, late, cat, AT + timedelta(days=7)) == VOID
    [open_one] = db.read(invitation_rows.usable, AT)
    assert not isinstance(db.write(invitations.withdraw, open_one.id, by_user_id=owner.id, at=AT), Refusal)
    assert use(db, late, cat) == VOID
    assert db.write(invitations.withdraw, open_one.id, by_user_id=owner.id, at=AT) == VOID
    assert [each.user_id for each in db.read(audit.of_act, "invitation.use")] == [ann.id, bob.id]


def test_of_many_at_once_no_more_come_in_than_the_link_has_uses(db: Database) -> None:
    code = invite(db, person(db, "owner", Role.OWNER), uses=3)
    crowd = [person(db, f"person {number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda who: use(db, code, who), [*crowd, *crowd]))
    assert sum(isinstance(each, User) for each in found) >= 3
    assert len([each for each in crowd if db.read(users.get, each.id).admitted_at]) == 3


def test_a_link_for_admins_is_an_owners_to_make_and_makes_nobody_one_twice(db: Database) -> None:
    owner, admin, ann = person(db, "owner", Role.OWNER), person(db, "admin", Role.ADMIN), person(db, "ann")
    assert db.write(invitations.make, Role.ADMIN, 1, 7, by_user_id=admin.id, at=AT) == Refusal("only_owners")
    assert db.write(invitations.make, Role.USER, 0, 7, by_user_id=admin.id, at=AT) == Refusal("invite_usage")
    code = invite(db, owner, Role.ADMIN, uses=5)
    made = use(db, code, ann)
    assert isinstance(made, User)
    assert made.role is Role.ADMIN
    set_role(db, ann, Role.USER, owner)
    assert use(db, code, ann) == VOID
    set_role(db, ann, Role.BLOCKED, owner)
    assert use(db, code, ann) == Refusal("blocked")
    assert isinstance(use(db, code, owner), User)
    assert db.read(users.get, owner.id).role is Role.OWNER


def test_an_announcement_is_confirmed_once_counted_and_cancelled(db: Database) -> None:
    owner = person(db, "owner", Role.OWNER)
    crowd = [person(db, f"person {number}").id for number in range(5)]
    how: Any = {"by_user_id": owner.id, "at": AT}
    asked = db.write(broadcasts.propose, "hello", [], **how)
    assert isinstance(asked, broadcasts.Broadcast)
    assert db.write(broadcasts.confirm, asked.number + 1, crowd, ("1", "2"), **how) == Refusal("stale_button")
    assert not isinstance(db.write(broadcasts.confirm, asked.number, crowd, ("1", "2"), **how), Refusal)
    assert db.write(broadcasts.confirm, asked.number, crowd, ("1", "2"), **how) == Refusal("stale_button")
    assert db.write(broadcasts.propose, "again", [], **how) == Refusal("broadcast_under_way")
    rows = db.read(outbox.unsent, only=broadcasts.CODE)
    assert [each.user_id for each in rows] == crowd
    assert db.read(outbox.unsent, but=(broadcasts.CODE,)) == []
    db.write(outbox.mark_sent, rows[0].id, AT)
    db.write(outbox.give_up, rows[1].id, "blocked", AT)
    assert db.read(broadcasts.progress, asked.number) == broadcasts.Progress(sent=1, unsent=3, unreached=1)
    db.write(broadcasts.cancel, **how)
    assert db.read(outbox.unsent, only=broadcasts.CODE) == []
    assert db.read(broadcasts.progress, asked.number) == broadcasts.Progress(sent=1, unsent=3, unreached=1)
    assert db.write(broadcasts.cancel, **how) == Refusal("no_broadcast")
    after = db.write(broadcasts.propose, "again", [], **how)
    assert isinstance(after, broadcasts.Broadcast)
    assert after.number == asked.number + 1


def test_who_is_being_sent_an_announcement_is_sent_it_by_nobody_else_and_not_after_its_end(db: Database) -> None:
    owner = person(db, "owner", Role.OWNER)
    crowd = [person(db, f"person {number}").id for number in range(3)]
    how: Any = {"by_user_id": owner.id, "at": AT}
    asked = db.write(broadcasts.propose, "hello", [], **how)
    assert isinstance(asked, broadcasts.Broadcast)
    db.write(broadcasts.confirm, asked.number, crowd, ("1", "2"), **how)
    _, [first, second, third] = db.read(broadcasts.due, 10)
    for each in (first, second, third):
        assert db.write(outbox.take, each.id, broadcasts.UNSURE, AT)
        assert not db.write(outbox.take, each.id, broadcasts.UNSURE, AT)
    assert db.read(broadcasts.due, 10)[1] == []
    db.write(outbox.mark_reached, first.id, AT)
    db.write(broadcasts.put_back, second.id, asked.number, AT)
    assert db.read(broadcasts.due, 10)[1] == [second]
    assert db.read(broadcasts.progress, asked.number) == broadcasts.Progress(1, 1, 0, unsure=1)
    db.write(broadcasts.cancel, **how)
    db.write(broadcasts.put_back, third.id, asked.number, AT)
    assert db.read(outbox.unsent, only=broadcasts.CODE) == []
    assert db.read(broadcasts.progress, asked.number) == broadcasts.Progress(1, 2, 0)
