"""What holds whatever breaks: each function looks at the database, at what the fakes recorded or at the disk, and gives
what is not as it must be, in words. Nothing given, nothing broken.

They know no fault: the same functions look at a day on which nothing happened. `tests/faults/test_invariants.py` breaks
each of them once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text as sql

from huigan.texts import DEFAULT_LOCALE, catalogue
from storage import deployments
from storage.db import Database
from storage.records import Run
from tests.fakes.telegram import Chat

Found = list[str]
Row = dict[str, Any]

OPEN_STATES = ("QUEUED", "RUNNING")
UNFINISHED = {"turn": "closed_at", "update": "handled_at", "showing": "finished_at"}  # a row without it is open


@dataclass(frozen=True)
class Ended:
    """What a run came to."""

    sha256: str | None
    verdict: Any
    scorecard: Any


def rows(db: Database, table: str) -> list[Row]:
    with db.engine.connect() as connection:
        found = connection.execute(sql(f'SELECT * FROM "{table}" ORDER BY 1'))
        return [dict(row._mapping) for row in found]


def messages_are_kept_once(db: Database, sources: Iterable[str]) -> Found:
    """`sources` name all that people said, as the rows do."""
    kept, said = Counter(row["source"] for row in rows(db, "message")), set(sources)
    found = [f"{source} was kept {kept[source]} times" for source in sorted(said) if kept[source] != 1]
    return found + [f"nobody said {source}" for source in sorted(set(kept) - said)]


def messages_are_answered_once(db: Database) -> Found:
    """One turn each, which ended. (Nobody asks for a second answer here.)"""
    turns = Counter(row["message_id"] for row in rows(db, "turn"))
    answers = Counter(row["message_id"] for row in rows(db, "answer"))
    ids = [row["id"] for row in rows(db, "message")]
    found = [f"message {each} has {turns[each]} turns" for each in ids if turns[each] != 1]
    return found + [f"message {each} has {answers[each]} answers" for each in ids if answers[each] > 1]


def ratings_are_kept_once(db: Database, given: Mapping[tuple[str, str], str]) -> Found:
    """`given` is the thumb by who gave it and the source of the message whose answer it is for."""
    people = {row["id"]: row["external_id"] for row in rows(db, "user")}
    sources = {row["id"]: row["source"] for row in rows(db, "message")}
    answered = {row["id"]: sources[row["message_id"]] for row in rows(db, "answer")}
    kept: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows(db, "rating"):
        kept[people[row["user_id"]], answered[row["answer_id"]]].append(str(row["thumb"]))
    return [
        f"{who} rated {source}: {thumb and [thumb]} was given and {kept.get((who, source), [])} kept"
        for (who, source), thumb in sorted({**dict.fromkeys(kept, ""), **given}.items())
        if kept.get((who, source), []) != ([thumb] if thumb else [])
    ]


def nothing_is_left_open(db: Database) -> Found:
    """Every update was handled, every turn closed, every answer shown to its end."""
    return [
        f"{table} {next(iter(row.values()))} is open"
        for table, ended in UNFINISHED.items()
        for row in rows(db, table)
        if row[ended] is None
    ]


def answers_are_seen_once(chats: Iterable[Chat], marks: Iterable[str], complete: Container[str]) -> Found:
    """Each mark stands for one answer and occurs in no other: once on somebody's screen where it is complete, and no
    more than once where it was cut off."""
    screen = "\n".join(message.text for chat in chats for message in chat.answers if not message.deleted)
    found = []
    for mark in marks:
        seen = screen.count(mark)
        if seen > 1 or (mark in complete and seen == 0):
            found.append(f"{mark} is seen {seen} times")
    return found


def runs_come_to_an_end(db: Database) -> Found:
    return [f"run {row['id']} is {row['state']}" for row in rows(db, "run") if str(row["state"]).upper() in OPEN_STATES]


def runs_move_as_runs_do(db: Database) -> Found:
    """Each event begins where the last one ended; the run is where its last event says; an attempt is begun once."""
    found, last, begun = [], dict[int, str](), Counter[tuple[int, int]]()
    for event in rows(db, "run_event"):
        run, before, after = event["run_id"], event["before"], event["after"]
        if (last.get(run)) != before:
            found.append(f"run {run} moved from {before}, and was {last.get(run)}")
        last[run] = after
        begun[run, event["attempt"]] += str(after).upper() == "RUNNING"
    found += [f"run {row['id']} is {row['state']}" for row in rows(db, "run") if last.get(row["id"]) != row["state"]]
    return found + [f"run {run} began attempt {attempt} twice" for (run, attempt), n in begun.items() if n > 1]


def one_release_is_live(db: Database, tags: Container[str]) -> Found:
    """The newest deployment with all the traffic; its tag can be asked; and no run was released twice."""
    live = db.read(deployments.live)
    if live is None:
        return ["no release is live"]
    of_run = Counter(row["run_id"] for row in rows(db, "artefact") if row["run_id"] is not None and row["path"])
    found = [] if live.release.tag in tags else [f"{live.release.tag} is live and nowhere to be asked"]
    named = Counter(row["tag"] for row in rows(db, "release"))
    found += [f"{tag} is the name of {count} releases" for tag, count in named.items() if count > 1]
    return found + [f"run {run} has {count} artefacts" for run, count in of_run.items() if count > 1]


def a_canary_is_a_proposal(db: Database, tags: Container[str]) -> Found:
    """Where there is one, it awaits a decision, is not what answers anyway, and can be asked."""
    tried, live = db.read(deployments.canary), db.read(deployments.live)
    if tried is None:
        return []
    states = {row["id"]: str(row["state"]) for row in rows(db, "run")}
    state = states.get(tried.artefact.run_id or 0, "nobody's")
    found = [] if state.upper() == "AWAITING_APPROVAL" else [f"the canary's run is {state}"]
    found += [] if live is None or live.release.id != tried.release.id else ["what is tried is live"]
    return found + ([] if tried.release.tag in tags else [f"{tried.release.tag} is tried and nowhere to be asked"])


def conversations_keep_their_canary(db: Database, before: Mapping[int, str]) -> Found:
    """`before` is the tag that answered in each: the live release answers, or the canary, which keeps what it had."""
    tried = db.read(deployments.canary)
    found = []
    for each, tag in before.items():
        answers = db.read(deployments.for_turn, each, sampled=False)
        if answers is None:
            found.append(f"nothing answers in conversation {each}")
        elif tried is not None and tag == tried.release.tag != answers.release.tag:
            found.append(f"conversation {each} was the canary's")
    return found


def notices_are_put_once(db: Database) -> Found:
    told = Counter((row["code"], str(row["params"]), row["user_id"]) for row in rows(db, "outbox"))
    return [f"{code} is told {count} times" for (code, *_), count in told.items() if count > 1]


def the_verdict_is_the_undisturbed_one_s(ended: Ended, alone: Ended) -> Found:
    names = ("sha256", "verdict", "scorecard")
    return [f"{name} differs" for name in names if getattr(ended, name) != getattr(alone, name)]


def nothing_half_written_is_left(home: Path) -> Found:
    return [f"{path.name} was left" for path in sorted(home.rglob("*.part"))]


def what_is_served_is_what_was_judged(db: Database, served: Mapping[str, str]) -> Found:
    """`served` is the digest of each tag's file."""
    artefacts = {row["id"]: row for row in rows(db, "artefact")}
    return [
        f"{row['tag']} is not the file that was judged"
        for row in rows(db, "release")
        if (sha256 := artefacts[row["artefact_id"]]["sha256"]) and served.get(row["tag"]) != sha256
    ]


def a_failure_is_told(run: Run, notices: Iterable[str]) -> Found:
    """With a code that has words, once."""
    found = [] if list(notices).count("run_failed") >= 1 else [f"nobody was told that run {run.id} failed"]
    code = str((run.error or {}).get("code", ""))
    known = f"error.{code}" in catalogue(DEFAULT_LOCALE) and code != "internal"
    return found + ([] if known else [f"run {run.id} failed as {run.error}, which nobody foresaw"])
