"""The files that came with messages: what they are, and where they are kept. Knows nothing of what is in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select

from storage.db import Session
from storage.records import Attachment, AttachmentKind
from storage.rows import add as add_row
from storage.rows import batches, every
from storage.tables import attachment


def add(
    session: Session,
    message_id: int,
    at: datetime,
    *,
    kind: AttachmentKind,
    name: str,
    mime_type: str,
    sha256: str,
    size_bytes: int,
    path: str,
) -> Attachment:
    return add_row(
        session,
        Attachment,
        attachment,
        message_id=message_id,
        kind=kind,
        name=name,
        mime_type=mime_type,
        sha256=sha256,
        size_bytes=size_bytes,
        path=path,
        added_at=at,
    )


def of_messages(session: Session, message_ids: Iterable[int]) -> dict[int, list[Attachment]]:
    """By message, in the order they came; only messages that have any."""
    found: dict[int, list[Attachment]] = defaultdict(list)
    for ids in batches(message_ids):
        query = select(attachment).where(attachment.c.message_id.in_(ids)).order_by(attachment.c.id)
        for each in every(session, Attachment, query):
            found[each.message_id].append(each)
    return dict(found)


def remove(session: Session, message_ids: Iterable[int]) -> list[str]:
    """Forget what came with these messages. The paths of files that no other message has: whoever removes them from
    the disk does so once this is committed."""
    gone: set[str] = set()
    for ids in batches(message_ids):
        dropped = delete(attachment).where(attachment.c.message_id.in_(ids)).returning(attachment.c.path)
        gone.update(session.scalars(dropped))
    kept = set(session.scalars(select(attachment.c.path).where(attachment.c.path.in_(sorted(gone)))))
    return sorted(gone - kept)
