"""Going back: to the release that answered before, or to the nearest before it that can answer again.

What holds something that somebody took back, and what is gone from Ollama and from this machine's disk, is passed over,
and said. What cannot be loaded just now, for Ollama is away or has no memory, is worth waiting for: nothing is passed
over for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from huigan.operate import releases, tags
from huigan.operate.refusals import Refusal
from huigan.operate.releases import HISTORY, ROLLBACK, PassedOver, Promoted, open_release
from huigan.serving.client import Ollama
from huigan.serving.errors import UnknownTag
from storage import audit, deployments
from storage.db import Database, Session

FILES_GONE = "files_gone"
UNFIT = frozenset({"data_withdrawn", "release_not_open"})  # refusals of one release, which another may not meet


def rollback(
    db: Database,
    client: Ollama,
    *,
    by_user_id: int | None,
    at: datetime,
    to: int | None = None,
    alias: str | None = tags.ALIAS,
) -> Promoted | Refusal:
    """Let the release that answered before answer again; rolling back twice goes two back. Raises as `promote` does.

    Refused as `promote` is, `nothing_before`, and `nothing_fit_before` where all of them are passed over.
    """
    passed_over: list[PassedOver] = []
    if to is not None:
        return releases.swap(db, client, to, ROLLBACK, by_user_id, at, alias)
    for number in ways_back(db.read(deployments.reigns, HISTORY)):
        try:
            result = releases.swap(db, client, number, ROLLBACK, by_user_id, at, alias, passed_over)
        except UnknownTag:
            passed_over.append(PassedOver(number, FILES_GONE))
            continue
        if isinstance(result, Promoted) or result.code not in UNFIT:
            return result
        passed_over.append(PassedOver(number, result.code))
    refusal = Refusal("nothing_fit_before" if passed_over else "nothing_before")
    db.write(audit.record, by_user_id, "release.rollback", at, refused=refusal.code)
    return refusal


def ways_back(newest_first: Sequence[tuple[int, str]]) -> list[int]:
    """Of the releases that answered, and why: those before the live one, nearest first, where a rollback undoes what
    it went back over."""
    stack: list[int] = []
    for number, why in reversed(newest_first):
        if stack and stack[-1] == number:
            continue
        if why == ROLLBACK and number in stack:
            while stack[-1] != number:
                stack.pop()
        else:
            stack.append(number)
    return [each for each in dict.fromkeys(reversed(stack)) if each != stack[-1]]


def way_back(session: Session) -> int | None:
    """The release that a rollback would go back to, as far as the database knows."""
    ways = ways_back(deployments.reigns(session, HISTORY))
    return next((each for each in ways if not isinstance(open_release(session, each), Refusal)), None)
