"""Who is answered: nobody blocked, by invitation only who was let in, and nobody more often a day than was set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from huigan.turns import admission
from huigan.turns.opening import Place, Refusal, Speaker, answer_again, open_turn
from storage import access, chats, turns, users
from storage.db import Database, Session
from storage.records import ChatKind, Ended, Role, Turn

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
GROUP = Place("telegram", "-7", ChatKind.GROUP)


def asks(db: Database, who: str, text: str, *, at: datetime = AT, place: Place | None = None) -> Turn | Refusal | None:
    where = place or Place("telegram", who, ChatKind.PRIVATE)
    return db.write(open_turn, where, Speaker(who), text, f"telegram:{who}:{text}", at)


def known(db: Database, who: str) -> int:
    return db.write(users.meet, "telegram", who, who, None, AT).id


def test_open_to_all_everybody_is_answered_but_who_is_blocked(db: Database) -> None:
    assert isinstance(asks(db, "1", "a"), Turn)
    db.write(users.set_role, known(db, "1"), Role.BLOCKED)
    assert asks(db, "1", "b") == Refusal("blocked")


def test_by_invitation_who_was_let_in_is_answered_and_in_a_group_that_was_everybody(db: Database) -> None:
    db.write(access.set_mode, access.INVITED, None, AT)
    assert asks(db, "1", "a") == Refusal("not_invited")
    assert asks(db, "1", "b", place=GROUP) == Refusal("not_invited")
    db.write(users.admit, known(db, "1"), AT)
    assert isinstance(asks(db, "1", "a"), Turn), "nothing was stored of what was refused"
    assert asks(db, "2", "a", place=GROUP) == Refusal("not_invited")
    group = db.read(chats.find, "telegram", "-7")
    assert group is not None
    db.write(chats.admit, group.id, AT)
    assert isinstance(asks(db, "2", "a", place=GROUP), Turn)
    assert asks(db, "2", "c") == Refusal("not_invited"), "the group was let in, not the person"
    db.write(users.set_role, known(db, "3"), Role.ADMIN)
    assert isinstance(asks(db, "3", "a"), Turn)


def test_the_terminal_is_always_answered(sqlite_db: Database) -> None:
    sqlite_db.write(access.set_mode, access.INVITED, None, AT)
    place = Place("terminal", "ann", ChatKind.TERMINAL)
    assert isinstance(sqlite_db.write(open_turn, place, Speaker("ann"), "hi", "terminal:1", AT), Turn)


def test_a_budget_counts_what_was_got_and_says_when_it_begins_anew(db: Database) -> None:
    db.write(access.set_budget, 2, None, AT)
    first, second = asks(db, "1", "a"), asks(db, "1", "b")
    assert isinstance(first, Turn)
    assert isinstance(second, Turn)
    spent = asks(db, "1", "c")
    assert isinstance(spent, Refusal)
    assert spent.code == "budget_spent"
    assert spent.params["budget"] == 2
    assert timedelta(0) < timedelta(hours=spent.params["hours"], minutes=spent.params["minutes"]) <= timedelta(hours=25)
    assert isinstance(asks(db, "1", "a"), Turn), "an update that is replayed asks for nothing new"
    db.write(turns.close, first.id, Ended.FAILED, AT)
    assert isinstance(db.write(answer_again, first.message_id, known(db, "1"), AT), Turn), "what failed was not got"
    assert isinstance(db.write(answer_again, second.message_id, known(db, "1"), AT), Refusal)
    assert isinstance(asks(db, "1", "d", at=AT + timedelta(days=1)), Turn)
    db.write(access.set_budget, 0, None, AT)
    assert isinstance(asks(db, "1", "e"), Turn)


def test_of_many_at_once_no_more_are_answered_than_the_budget_has(db: Database) -> None:
    db.write(access.set_budget, 3, None, AT)
    known(db, "1")
    places = [Place("telegram", f"-{number}", ChatKind.GROUP) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda place: asks(db, "1", f"in {place.chat}", place=place), places))
    assert sum(isinstance(each, Turn) for each in found) == 3


def test_a_day_is_that_of_its_zone_from_midnight_to_midnight() -> None:
    begins_at, ends_at = admission.day(datetime(2026, 11, 24, 20, 0, tzinfo=UTC), ZoneInfo("Asia/Shanghai"))
    assert (begins_at, ends_at) == (datetime(2026, 11, 24, 16, tzinfo=UTC), datetime(2026, 11, 25, 16, tzinfo=UTC))


def test_an_answer_made_to_be_compared_costs_nobody_anything(sqlite_db: Database) -> None:
    sqlite_db.write(access.set_budget, 2, None, AT)
    first = asks(sqlite_db, "1", "a")
    assert isinstance(first, Turn)

    def sample(session: Session) -> Turn:
        return turns.wait(session, first.conversation_id, first.message_id, first.user_id, AT, again=True, sampled=True)

    sqlite_db.write(sample)
    assert isinstance(asks(sqlite_db, "1", "b"), Turn)
