"""Files beside messages: found in their order, and let go of only when no other message has them."""

from __future__ import annotations

from storage import attachments, messages, updates
from storage.db import Database, Session
from storage.records import AttachmentKind
from tests.storage.noun_world import AT, conversation, message


def attach(session: Session, message_id: int, sha256: str) -> None:
    attachments.add(
        session,
        message_id,
        AT,
        kind=AttachmentKind.IMAGE,
        name="",
        mime_type="image/jpeg",
        sha256=sha256,
        size_bytes=1,
        path=f"/kept/{sha256}",
    )


def test_a_file_that_two_messages_have_is_let_go_of_with_the_second(db: Database) -> None:
    def put(session: Session) -> tuple[int, int]:
        talk = conversation(session)
        first, second = message(session, talk).id, message(session, talk).id
        for message_id, sha256 in ((first, "a"), (first, "b"), (second, "a")):
            attach(session, message_id, sha256)
        return first, second

    first, second = db.write(put)
    found = db.read(attachments.of_messages, [first, second, 99])
    assert {key: [each.sha256 for each in files] for key, files in found.items()} == {first: ["a", "b"], second: ["a"]}
    assert db.write(attachments.remove, [first]) == ["/kept/b"]
    assert db.write(attachments.remove, [second]) == ["/kept/a"]


def test_the_newest_version_of_a_message_is_the_last_that_was_edited(db: Database) -> None:
    def put(session: Session) -> tuple[int, int, int]:
        talk = conversation(session)
        said, other = message(session, talk), message(session, talk)
        for number in range(2):
            messages.add(session, talk.id, talk.user_id, "!", f"{said.source}:e{number}", AT, replaces_id=said.id)
        newest = messages.by_source(session, f"{said.source}:e1")
        assert newest is not None
        return said.id, other.id, newest.id

    said, other, newest = db.write(put)
    assert db.read(messages.newest_version, said).id == newest
    assert db.read(messages.newest_version, other).id == other


def test_what_follows_an_update_is_of_its_key_newer_and_not_handled(db: Database) -> None:
    for update_id, key in ((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "a")):
        db.write(updates.store, update_id, {}, AT, key=key, worker=f"w{update_id}")
    db.write(updates.mark_handled, 4, AT)
    assert [each.update_id for each in db.read(updates.following, 2)] == [5]
    assert db.read(updates.following, 4) is None
    assert db.read(updates.following, 99) is None
    assert [each.update_id for each in db.read(updates.since, 2, 2)] == [2, 4]
    assert db.read(updates.since, 99, 2) == []


def test_what_is_open_before_an_update_is_found_by_whose_it_is_and_where(db: Database) -> None:
    keys = {1: "-100:0:7", 2: "-100:44:7", 3: "-100:0:77", 4: "-100:0:7:stop", 5: "-1000:0:7", 6: None, 7: "-100:0:7"}
    for update_id, key in keys.items():
        db.write(updates.store, update_id, {}, AT, key=key, worker="w")
    assert [each.update_id for each in db.read(updates.before, 7, "-100:%:7")] == [1, 2]
    db.write(updates.mark_handled, 1, AT)
    assert [each.update_id for each in db.read(updates.before, 8, "-100:%:7")] == [2, 7]
    assert [db.read(updates.is_open, update_id) for update_id in (1, 2, 99)] == [False, True, False]
