"""What must hold after each night of a simulated year, and at its end. Each check gives the troubles that it found."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from bot.notices import words
from huigan.operate import library as needed
from huigan.serving import library
from huigan.texts import LOCALES, told
from schedules import rebuild
from storage import artefacts, deployments, releases, runs, tables
from storage.db import Session
from storage.records import Notice, Run, RunState
from tests.year.world import BUDGET_BYTES, KEEP_RELEASES, KEEP_RUNS, TRIAL_DAYS, ZONE, Year
from trainer import dataset
from trainer.feedback import SPLITS, TASKS
from trainer.stages import folder_of

BY_ITSELF = {"schedule", rebuild.WHY}
STUCK = timedelta(days=1)
# Each data set says of each of its examples what it was made from and whose it is; whatever else a night leaves is few.
ROWS_AN_EXAMPLE, OTHER_ROWS = 5, 300
EVERY_RUN = 10_000


def after_night(year: Year, night: int) -> Iterator[str]:
    """Told with the night that it was."""
    for check in (answering, tried, disk, stuck, nightly_runs, ratings, newest_data, growth):
        yield from (f"night {night}: {trouble}" for trouble in check(year))
    if night % 30 == 0:
        yield from (f"night {night}: {trouble}" for trouble in forgotten(year))


def at_the_end(year: Year) -> Iterator[str]:
    for check in (forgotten, endings, notices, proofs, led_to):
        yield from check(year)


# What befalls a server within a year; else the year has shown less than it says.
BEFALLS = (
    "runs as clocks were put forward",
    "runs as clocks were put back",
    "pruned by budget",
    "pruned by number",
    "conversations expired",
    "killed",
    "tags lost",
    "schedules down",
    "trainer down",
)
ACTS = (
    "canary.begin",
    "canary.promote",
    "canary.withdraw",
    "canary.end",
    "data.let_go",
    "data.clear",
    "release.withdraw",
)


def of_a_year(year: Year) -> Iterator[str]:
    """That it all happened."""
    acts = year.acts()
    if (count := len(year.db.read(runs.newest, EVERY_RUN))) < len(year.sizes):
        yield f"{count} runs in {len(year.sizes)} nights"
    yield from (f"{each}: not once" for each in BEFALLS if not year.counts[each])
    yield from (f"{each}: not once" for each in ACTS if not acts[f"{each} by itself"])
    yield from (f"{each} of the crowd: not once" for each, count in year.crowd.counts.items() if not count)


def answering(year: Year) -> Iterator[str]:
    """One release answers; its tag and those that wait for an admin are in Ollama; nothing needed was pruned."""
    live = year.db.read(deployments.live)
    if live is None:
        yield "nothing answers"
        return
    run_id = live.artefact.run_id
    if run_id is not None and year.db.read(runs.get, run_id).state is not RunState.RELEASED:
        yield f"release {live.release.id} answers, and its run {run_id} is not released"
    there, needs = set(library.tags(year.client)), year.db.read(needed.needs)
    for tag, why in needs.items():
        if why in {needed.LIVE, needed.AWAITED, needed.CANARY} and tag not in there:
            yield f"{tag} is not in Ollama, and is needed for: {why}"
    # After a rollback the one before may be one that was pruned long ago; but none goes once it is needed.
    yield from (f"{each} was pruned, and is needed" for each in sorted(year.lost))
    released = [tag for tag in there if "run" in tag]
    unneeded = [tag for tag in released if tag not in needs]
    if year.clock.at >= year.schedules_down_until and len(unneeded) > KEEP_RELEASES:
        yield f"{len(unneeded)} tags are in Ollama that nothing needs"


def tried(year: Year) -> Iterator[str]:
    """What is tried waits for approval, and is judged in time."""
    found = year.db.read(deployments.of_canary)
    if not found:
        return
    run_id = year.db.read(artefacts.get, year.db.read(releases.get, found[0].release_id).artefact_id).run_id
    state = None if run_id is None else year.db.read(runs.get, run_id).state
    if state is not RunState.AWAITING_APPROVAL:
        yield f"release {found[0].release_id} is tried, and its run {run_id} is {state}"
    if max(found[0].since_at + timedelta(days=TRIAL_DAYS), year.schedules_down_until) < year.clock.at - STUCK:
        yield f"release {found[0].release_id} is tried since {found[0].since_at}"


def disk(year: Year) -> Iterator[str]:
    wanted = {each.name for each in year.kept.kept if each.needed_for is not None}
    folders = [each for each in (year.home / "runs").glob("*") if str(each) not in wanted]
    if len(folders) > KEEP_RUNS:
        yield f"{len(folders)} folders are kept of {KEEP_RUNS}"
    held = [each for each in folders if (each / "candidate.gguf").is_file()]
    if len(held) > 2 * KEEP_RELEASES:  # of releases, and of runs that led to none
        yield f"{len(held)} files are kept of twice {KEEP_RELEASES} that nothing needs"
    if (taken := year.disk_bytes()) > BUDGET_BYTES and not year.kept.over_bytes:
        yield f"{taken} bytes lie on the disk, over the budget of {BUDGET_BYTES}"
    if year.kept.over_bytes and any(
        each.needed_for is None and each.kind in {"run", "artefact", "candidate"} for each in year.kept.kept
    ):
        yield "the budget is exceeded, and something lies there that nothing needs"


def stuck(year: Year) -> Iterator[str]:
    at = year.clock.at
    running = year.db.read(runs.newest, 10, states=frozenset({RunState.RUNNING}))
    yield from (f"run {each.id} runs and nobody works on it" for each in running if at >= year.schedules_down_until)
    for each in year.db.read(runs.newest, 10, states=frozenset({RunState.QUEUED})):
        # A run whose machine died keeps its lane until schedules looks.
        if max(each.queued_at, year.trainer_down_until, year.schedules_down_until) < at - STUCK:
            yield f"run {each.id} waits since {each.queued_at}"


def nightly_runs(year: Year) -> Iterator[str]:
    """Of those that start by themselves, one a night by the wall. One that is made up for by day is the night's before,
    and may have its own beside it."""
    newest = [each for each in year.db.read(runs.newest, 3) if each.why in BY_ITSELF and _is_night(each.queued_at)]
    counted = Counter((each.lane, _night_of(each.queued_at)) for each in newest)
    yield from (f"{count} runs began by themselves on {key}" for key, count in counted.items() if count > 1)


def _is_night(at: datetime) -> bool:
    return not 7 <= at.astimezone(ZONE).hour < 22


def _night_of(at: datetime) -> str:
    return f"{(at.astimezone(ZONE) - timedelta(hours=12)).date()}"


def ratings(year: Year) -> Iterator[str]:
    """Everything that was said is there, but what somebody took with them."""
    rated, compared = year.db.read(_judgements)
    for name, there, given in (
        ("ratings", rated, year.crowd.ledger.ratings),
        ("comparisons", compared, year.crowd.ledger.comparisons),
    ):
        if there != set(given):
            yield f"{name} lost: {sorted(set(given) - there)[:5]}, not gone: {sorted(there - set(given))[:5]}"


def _judgements(session: Session) -> tuple[set[int], set[int]]:
    return set(session.scalars(select(tables.rating.c.id))), set(session.scalars(select(tables.comparison.c.id)))


def newest_data(year: Year) -> Iterator[str]:
    newest = year.db.read(runs.newest, 1)
    if newest:
        yield from _gone_in(year, folder_of(year.home, newest[0]))


def forgotten(year: Year) -> Iterator[str]:
    """No word of theirs lies in any run's folder; and what they took back is told of no data set that lies there."""
    for folder in sorted((year.home / "runs").glob("*")):
        yield from _gone_in(year, folder)


def _gone_in(year: Year, folder: Path) -> Iterator[str]:
    found = everything_in(folder)
    yield from (f"words of {name} lie in {folder.name}" for name in year.crowd.gone if name in found)


def everything_in(folder: Path) -> str:
    """All texts in it, the Parquet files decoded."""
    if not folder.is_dir():
        return ""
    data = folder / "dataset"
    rows = [dataset.rows_of(data, task, split) for task in TASKS for split in SPLITS] if data.is_dir() else []
    texts = [path.read_text(errors="replace") for path in folder.rglob("*") if path.suffix in {".json", ".md", ".html"}]
    return "\n".join([json.dumps(rows, ensure_ascii=False, default=str), *texts])


def growth(year: Year) -> Iterator[str]:
    """By no more rows than there is feedback to learn from, times a constant."""
    if len(year.sizes) < 2:
        return
    more, given = year.sizes[-1].rows - year.sizes[-2].rows, year.crowd.ledger
    if more > ROWS_AN_EXAMPLE * (len(given.ratings) + len(given.comparisons)) + OTHER_ROWS:
        yield f"the database grew by {more} rows"


def endings(year: Year) -> Iterator[str]:
    """Every run has an end, with a reason in words that each language has."""
    kept = dict(year.db.read(_told))
    for run in year.db.read(runs.newest, EVERY_RUN):
        if run.state in {RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_APPROVAL}:
            continue
        if run.ended_at is None:
            yield f"run {run.id} is {run.state} and has no end"
        for locale in LOCALES:
            yield from (f"run {run.id} ({run.state}): {trouble}" for trouble in _unsaid(year, run, kept, locale))


def _unsaid(year: Year, run: Run, kept: dict[str | None, Notice], locale: str) -> Iterator[str]:
    error = dict(run.error or {})
    if run.state is RunState.FAILED and not error.get("code"):
        yield "failed for no reason"
    if error and told(locale, "error", str(error["code"]), error) == error["code"]:
        yield f"no words in {locale} for {error}"
    if run.state is RunState.REJECTED and run.artefact_id is not None:
        reasons = (year.db.read(artefacts.get, run.artefact_id).verdict or {})["reasons"]
        if not reasons:
            yield "rejected for no reason"
        for each in reasons:
            if told(locale, "gate", each["code"], each["params"]) == each["code"]:
                yield f"no words in {locale} for {each}"
    notice = kept.get(f"run:{run.id}:{run.state}")
    if notice is not None and words(notice, locale) == notice.code:
        yield f"no words in {locale} for {notice.code}"
    waited = f"run:{run.id}:{RunState.AWAITING_APPROVAL}" in kept
    if notice is None and not waited:
        yield "nobody was told of its end"


def notices(year: Year) -> Iterator[str]:
    """Each is told once, in words, to the admin; and what is wrong once a day at the most."""
    told_to = Counter(year.screen.said)
    raised: dict[str, list[datetime]] = {}
    for key, notice in year.db.read(_told):
        if notice.sent_at is None and notice.created_at and notice.created_at < year.clock.at - timedelta(days=2):
            yield f"notice {notice.id} ({notice.code}) was never sent"
        if any(words(notice, locale) == notice.code for locale in LOCALES):
            yield f"notice {notice.id} ({notice.code}) has no words"
        if notice.code in {"alert_raised", "alert_still"} and key is not None and notice.created_at is not None:
            raised.setdefault(key.removesuffix(notice.created_at.isoformat()), []).append(notice.created_at)
    for about, ats in raised.items():
        if any(later - earlier < timedelta(minutes=5) for earlier, later in itertools.pairwise(ats)):
            yield f"{about} is told again and again"
    sent = year.db.read(_sent_to_the_admin, year.admin.id)
    if sum(told_to.values()) != sent:
        yield f"{sum(told_to.values())} messages were sent for {sent} notices"


def _sent_to_the_admin(session: Session, by_user: int) -> int:
    """Of what the admin did the admin is not told."""
    rows = session.execute(select(tables.outbox.c.params).where(tables.outbox.c.sent_at.is_not(None)))
    return sum(params.get("by_user") != by_user for (params,) in rows)


def _told(session: Session) -> list[tuple[str | None, Notice]]:
    every = session.execute(select(tables.outbox).order_by(tables.outbox.c.id)).all()
    fields = ("id", "code", "params", "user_id", "undeliverable", "created_at", "sent_at")
    return [(row.key, Notice(**{name: getattr(row, name) for name in fields})) for row in every]


def proofs(year: Year) -> Iterator[str]:
    """What was promoted, or withdrawn, by what people thought of it was proven by their bets."""
    for _, notice in year.db.read(_told):
        if notice.code in {"canary_promoted", "canary_withdrawn"}:
            side = "better" if notice.code == "canary_promoted" else "worse"
            if not any(
                each["params"].get(side, 0) >= each["params"].get("bar", 1) for each in notice.params["reasons"]
            ):
                yield f"{notice.code} without a proof: {notice.params}"


def led_to(year: Year) -> Iterator[str]:
    """Rows say whose words are in a data set only where something is left of its run."""
    there = set(year.fake.tags)
    went_on, known = year.db.read(_lineage)
    for run_id, ended in known.items():
        alive = [
            each
            for each in (run_id, *went_on.get(run_id, ()))
            if list((year.home / "runs").glob(f"{each}-*")) or any(f"run{each}-" in tag for tag in there)
        ]
        if ended and not alive:
            yield f"nothing is left of run {run_id}, and rows say who taught it"


def _lineage(session: Session) -> tuple[dict[int, list[int]], dict[int, bool]]:
    """What went on from each run; and of those whose data sets say what is in them, whether they have ended."""
    run, data = tables.run.c, tables.dataset.c
    went_on: dict[int, list[int]] = {}
    for before, after in session.execute(select(run.continues_run_id, run.id).where(run.continues_run_id.is_not(None))):
        went_on.setdefault(before, []).append(after)
    known = (
        select(run.id, run.ended_at)
        .join(tables.dataset, data.run_id == run.id)
        .where(data.id.in_(select(tables.dataset_person.c.dataset_id)))
    )
    return went_on, {run_id: ended_at is not None for run_id, ended_at in session.execute(known)}
