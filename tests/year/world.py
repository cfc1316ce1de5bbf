"""A simulated year: the product's own scheduler, database, pipeline, notices and upkeep, by a clock that does not wait.

Nothing sleeps: time goes by from one look of the scheduler to the next, and while a run is at work. What people, admins
and bad luck do is drawn from the seed. What must hold meanwhile is `tests.year.invariants`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import event, func, select

from bot.notices import Notices
from huigan.health import watch
from huigan.operate import (
    backups,
    bases,
    canaries,
    library,
    releases,
    retention,
    rollbacks,
    runs,
    settable,
    timetable,
    withdrawals,
    workers,
)
from huigan.operate.keeping import Limits, Plan
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from schedules import loop, nightly, release_watch
from storage import artefacts, deployments, settings, tables
from storage import releases as release_rows
from storage import runs as run_rows
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Role, Run, RunState
from tests.fakes.ollama import FakeOllama
from tests.year.crowd import MOST, Crowd
from tests.year.stubs import USUAL, Fates, Killed, Stubs, in_place
from trainer import child, clearing, keeper, stores, supervisor
from trainer.stages import Work

ZONE = ZoneInfo("Europe/Berlin")  # it has both changes of the clock
FIRST_DAY = date(2027, 1, 1)
NOON, MORNING = time(13), time(5)  # schedules looks in the morning, and whenever the cron is due
CLOCKS_CHANGE = time(2, 30)  # from when on a look is taken every ten minutes, in a night in which they do
WORKER = "gpu:1"
LONG_MINUTES = 30  # a stage that takes longer is looked at meanwhile
BACKUPS_KEPT, EVERY_BACKUP = 3, 60
KEEP_RELEASES, KEEP_RUNS, BUDGET_BYTES = 4, 10, 1_200_000
LIMITS = Limits({"artefact": KEEP_RELEASES, "candidate": KEEP_RELEASES, "run": KEEP_RUNS, "base": 1}, {}, BUDGET_BYTES)
CRONS = ("0 3 * * *", "30 2 * * *", "15 1 * * *", "0 23 * * *", "0 2 * * 1-5")
QUIET = ("off", "08:00-22:00", "00:00-02:45")
APPROVALS = ("approve", "auto", "approve", "auto")
# The months in which what is new is tried on people first, by what. No clock changes in them.
TRIALS = {2: "conversations", 5: "conversations", 8: "comparisons", 11: "comparisons"}
TRIAL_DAYS = 7
RETRAINS = 0.8  # of days, an admin asks for a run
RECIPE = {
    "name": "year",
    "method": "sft",
    "data": {"min_ratings": 12, "min_raters": 3, "min_answers": 5, "min_pairs": 5, "min_thumbs": 5},
    "rollback": {"min_ratings": 8, "min_raters": 3, "alpha": 0.05},
}
KEEP_MESSAGES_DAYS = 18


@dataclass
class Clock:
    at: datetime

    def __call__(self) -> datetime:
        return self.at

    def to(self, at: datetime) -> None:
        self.at = max(self.at, at)


@dataclass
class Screen:
    """What every admin was told, in place of Telegram."""

    said: list[tuple[int, str]] = field(default_factory=list)

    async def say(self, spot: Any, words: str) -> None:
        self.said.append((spot.chat_id, words))


@dataclass
class Size:
    """Of the database after a night."""

    night: int
    rows: int
    bytes: int
    examples: int


class Year:
    """`nights` of them, one after the other: `for night in year.live(): …`."""

    def __init__(self, db: Database, home: Path, fake: FakeOllama, seed: int, first_day: date = FIRST_DAY) -> None:
        self.db, self.home, self.fake = db, home, fake
        self.rng = random.Random(f"{seed} year")
        self.first_day = first_day
        self.clock = Clock(_local(first_day, time(8)))
        self.client = Ollama(fake.host, timeout_seconds=10)
        self.fates = Fates(seed)
        self.crowd = Crowd(db, random.Random(f"{seed} crowd"), self._liked)
        self.screen = Screen()
        self.counts: Counter[str] = Counter()
        self.sizes: list[Size] = []
        self.schedules_down_until = self.trainer_down_until = self.clock.at
        self.approval = "approve"
        self.plan = loop.Plan(self.recipe, "0 3 * * *", None, ZONE)
        self._notices = Notices(db, self.screen)  # type: ignore[arg-type]
        self.kept = Plan((), ())
        self.lost: set[str] = set()  # of what was needed, by the last pruning

    def recipe(self) -> Recipe:
        """So that a small crowd is enough to decide by."""
        by = TRIALS.get(self.clock.at.astimezone(ZONE).month)
        return _recipe(by or "conversations", "canary" if by else self.approval)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Year]:
        """With a base that answers, an admin, and the first people."""
        logging.disable(logging.CRITICAL)
        event.listen(self.db.engine, "connect", _hasten)
        self.db.engine.dispose()
        every_so_often = gc.get_threshold()
        gc.collect()
        gc.freeze()  # what is imported stays: not to be looked through again and again
        gc.set_threshold(50_000)
        self.home.mkdir(parents=True, exist_ok=True)
        self.fake.add("base:v1", system="Be kind.")
        registered = bases.register(self.db, self.client, "base:v1", "/weights", by_user_id=None, at=self.clock.at)
        assert isinstance(registered, bases.Registered)
        self.admin = self.crowd.join(self.clock.at, role=Role.OWNER).user
        for _ in range(5):
            self.crowd.join(self.clock.at)
        try:
            with in_place(Stubs(self.fates, self.passes, self.clock)):
                yield self
        finally:
            logging.disable(logging.NOTSET)
            gc.unfreeze()
            gc.set_threshold(*every_so_often)

    def live(self, nights: int) -> Iterator[int]:
        for night in range(nights):
            day = self.first_day + timedelta(days=night)
            self._daytime(day)
            if change := _clocks_change(day):
                self._await_the_change()
            self.clock.to(_local(day, NOON))
            self.train()
            for at in _looks(day):
                self._wait_until(at)
                self.look()
                self.train()
            if change:
                self.counts[f"runs as clocks were put {change}"] += len(self.db.read(_begun_by_the_clock, day))
            self.keep_house()
            self._write_down(night)
            yield night

    # --- what happens by itself

    def look(self) -> None:
        """What `huigan schedules`, the bot and the trainer do beside their own work, each where it runs."""
        at = self.clock.at
        if at >= self.trainer_down_until:
            self.db.write(workers.mark_seen, WORKER, at)
        self._decide_and_reap(at)
        if at >= self.schedules_down_until:
            nightly.look(self.db, WORKER, self._back_up, at, ZONE)
            release_watch.look(self.db, self.client, at)

    def _decide_and_reap(self, at: datetime) -> None:
        if at < self.schedules_down_until:
            return
        self.counts["queued"] += loop.consider(self.db, self.plan, at).enqueue
        loop.reap(self.db, at)
        self.counts["looks"] += 1

    def train(self) -> None:
        """The supervisor's round and that of its upkeep, until nothing waits that may begin."""
        while self.clock.at >= self.trainer_down_until:
            at = self.clock.at
            self.db.write(workers.mark_seen, WORKER, at)
            asked_for = self.db.read(timetable.quiet_until, at) is not None
            claimed = self.db.write(run_rows.claim, WORKER, at, asked_for=asked_for)
            if claimed is None:
                break
            self._attempt(claimed)

    def keep_house(self) -> None:
        """What is done beside it, by the trainer and by schedules: watched, cleared, put back, pruned."""
        at = self.clock.at
        watch.look(self.db, self.client, self.home, at, backups_kept=BACKUPS_KEPT)
        self.counts["conversations expired"] += retention.expire(self.db, KEEP_MESSAGES_DAYS, at)
        self.crowd.ledger.expire(at - timedelta(days=KEEP_MESSAGES_DAYS))
        clearing.upkeep(self.db, self.home, at)
        keeper.put_back(self.db, self.client, at)
        before = self._needed_and_there()
        self.kept = stores.prune(self.db, self.home, LIMITS, at)
        for going in self.kept.going:
            self.counts[f"pruned by {going.why}"] += 1
        if at >= self.schedules_down_until:
            gone = library.prune(self.db, self.client, KEEP_RELEASES, at).going
            self.counts["tags pruned"] += len(gone)
            self.lost = {each for each in before if not self._is_there(each)}
            withdrawals.withdraw(self.db, self.client, at)
            loop.forget_updates(self.db, at)

    def _needed_and_there(self) -> set[str]:
        """Tags in Ollama and files on this disk of the releases that must stay."""
        return {each for each in self.db.read(_needed) if self._is_there(each)}

    def _is_there(self, tag_or_path: str) -> bool:
        return tag_or_path in self.fake.tags or Path(tag_or_path).is_file()

    def _attempt(self, run: Run) -> None:
        tell = child.Teller(self.db, run, child.Bars(None, None))
        fate = self.fates.of(run.id)
        if self.rng.random() < 0.1:
            self.fake.inject("/api/generate", 503, "server busy, please try again.  maximum pending requests exceeded")
        self.counts["attempts"] += 1
        try:
            child.walk(self.db, run, self.home, self.client, tell, patience_seconds=0.5)
        except Killed:
            self.counts["killed"] += 1
            if fate.silent:  # the machine went with it; who looks next puts the run back
                self.clock.to(self.clock.at + timedelta(minutes=3))
                self.trainer_down_until = self.clock.at + timedelta(minutes=self.rng.choice((1, 90)))
                self.look()
                return
            self.db.write(_lost, run, self.clock.at)

    def passes(self, work: Work, minutes: int) -> None:
        """A stage is at work: it beats, schedules looks, and somebody may act meanwhile."""
        self.clock.to(self.clock.at + timedelta(minutes=minutes))
        self.db.write(_beat, work.run, self.clock.at)
        if minutes > LONG_MINUTES:
            self._decide_and_reap(self.clock.at)
        dice = self.rng.random()
        if dice < 0.01:
            runs.cancel(self.db, work.run.id, by_user_id=self.admin.id, at=self.clock.at)
            self.counts["cancelled by an admin"] += 1
        elif dice < 0.02:
            self.crowd.forget_one(self.clock.at)

    def _wait_until(self, at: datetime) -> None:
        """Looks also when the next firing is due, as a scheduler that looks every half minute does."""
        kept = self.db.read(settings.get, loop.DECISION_KEY)
        told = kept.value["next_at"] if kept else None
        fires_at = datetime.fromisoformat(told) + timedelta(seconds=20) if told else None
        if fires_at is not None and self.clock.at < fires_at < at:
            self.clock.to(fires_at)
            self.look()
            self.train()
        self.clock.to(at)

    def _back_up(self, at: datetime) -> backups.Backup:
        """A real one now and then, for it takes as long as all else of a night; else the word of one."""
        folder, made = self.home / "backups", self.counts["backups"]
        self.counts["backups"] += 1
        if made % EVERY_BACKUP == 0:
            options: dict[str, Any] = {"recipes": [], "environment": {}, "version": "0", "at": at}
            self._backup = backups.make(self.db, folder, keep=BACKUPS_KEPT, **options)
        else:
            self.db.write(settings.put, backups.MADE_KEY, {"made_at": at.isoformat()}, None, at)
        return self._backup

    # --- what people do

    def _daytime(self, day: date) -> None:
        rng, morning = self.rng, _local(day, time(8))
        self.clock.to(morning)
        if len(self.crowd.people) < MOST and rng.random() < 0.15:
            self.crowd.join(self.clock.at)
        if rng.random() < RETRAINS and self.db.read(deployments.canary) is None:
            self._retrain()
        self.crowd.day(morning, self._wanted(day))
        if rng.random() < 0.04:
            self.crowd.forget_one(self.clock.at)
        if rng.random() < 0.03:
            self.crowd.decline_one(self.clock.at)
        self._administer(day)
        asyncio.run(self._notices.drain())

    def _wanted(self, day: date) -> int:
        """How many questions: what is tried makes people curious, and as clocks change there is a reason to run."""
        if self.db.read(deployments.canary) is not None:
            return self.rng.randint(4, 7)
        return self.rng.randint(2 if _clocks_change(day) else 0, 4)

    def _await_the_change(self) -> None:
        """An admin sees to it that a run is due in the hour that is left out, or comes twice."""
        for name, written in (("schedule", "30 2 * * *"), ("quiet_hours", "off"), ("cool_down_hours", "0")):
            self._set(name, written)
        self.schedules_down_until = self.trainer_down_until = self.clock.at

    def _administer(self, day: date) -> None:
        rng, at = self.rng, self.clock.at
        tried = self.db.read(deployments.canary)
        for each in self.db.read(run_rows.newest, 5, states=frozenset({RunState.AWAITING_APPROVAL})):
            if tried is None and rng.random() < 0.6:  # else what people think is waited for
                self._decide(each)
        if tried is not None and rng.random() < 0.1:
            self._meddle()
        if rng.random() < 0.03:
            self._go_back(at)
        if rng.random() < 0.04:
            self._set("schedule", rng.choice(CRONS))
        if rng.random() < 0.03:
            self._set("quiet_hours", rng.choice(QUIET))
        if rng.random() < 0.02:
            self._set("cool_down_hours", rng.choice(("0", "6")))
        if rng.random() < 0.02:
            self.approval = rng.choice(APPROVALS)
        if rng.random() < 0.02:
            self.schedules_down_until = at + timedelta(days=rng.randint(1, 4))
            self.counts["schedules down"] += 1
        if rng.random() < 0.02:
            self.trainer_down_until = at + timedelta(days=rng.randint(1, 3))
            self.counts["trainer down"] += 1
        if rng.random() < 0.02:
            lost = self.db.read(deployments.live)
            if lost is not None and lost.artefact.path is not None:
                self.fake.tags.pop(lost.release.tag, None)
                self.counts["tags lost"] += 1

    def _retrain(self) -> None:
        """An admin does not wait for the night."""
        asked = runs.enqueue(self.db, self.recipe(), why="admin", by_user_id=self.admin.id, at=self.clock.at)
        self.counts["asked for by an admin" if not isinstance(asked, Refusal) else f"admin: {asked.code}"] += 1

    def _go_back(self, at: datetime) -> None:
        """It passes over what was pruned long ago; an Ollama that is away fails it."""
        try:
            done = rollbacks.rollback(self.db, self.client, by_user_id=self.admin.id, at=at)
        except ServingError:
            self.counts["rollbacks that failed"] += 1
            return
        self.counts["rollbacks refused" if isinstance(done, Refusal) else "rolled back"] += 1

    def _meddle(self) -> None:
        """With what is tried."""
        if self.rng.random() < 0.3:
            done: object = self.db.write(canaries.stop, self.admin.id, self.clock.at)
        else:
            done = self.db.write(canaries.set_share, self.rng.choice((0.3, 0.7)), self.admin.id, self.clock.at)
        assert not isinstance(done, Refusal), done

    def _set(self, name: str, written: str) -> None:
        held = self.db.write(settable.choose, name, written, self.admin.id, self.clock.at)
        assert not isinstance(held, Refusal), held
        self.counts["settings changed"] += 1

    def _decide(self, run: Run) -> None:
        number = self.db.read(_release_of, run)
        by: dict[str, Any] = {"by_user_id": self.admin.id, "at": self.clock.at}
        promotes = self.rng.random() < 0.75
        act = "promoted" if promotes else "rejected by an admin"
        try:
            done: object = (
                releases.promote(self.db, self.client, number, **by)
                if promotes
                else releases.reject(self.db, number, why="no", **by)
            )
        except ServingError:  # Ollama was busy: the admin is told, and tries again another day
            act, done = f"{act}: Ollama could not", None
        self.counts[act if not isinstance(done, Refusal) else f"{act}: {done.code}"] += 1

    def _liked(self, run_id: int | None) -> float:
        return USUAL if run_id is None else self.fates.of(run_id).liked

    # --- what is written down

    def acts(self) -> Counter[str]:
        """What was done to releases and data: `canary.stop`, `release.rollback by itself`."""
        return self.db.read(_acts)

    def _write_down(self, night: int) -> None:
        file = Path(str(self.db.engine.url.database))
        self.sizes.append(self._size(night, file))
        if night % 7 == 0:
            self.fake.exchanges.clear()

    def _size(self, night: int, file: Path) -> Size:
        rows, examples = self.db.read(_rows)
        taken = sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*"))
        return Size(night, rows, taken, examples)

    def disk_bytes(self) -> int:
        return sum(stores.size_of(folder) for name in ("runs", "bases") if (folder := self.home / name).is_dir())


@cache
def _recipe(by: str, approval: str) -> Recipe:
    canary = {"by": by, "share": 0.5, "alpha": 0.2, "min_ratings": 6, "min_raters": 3, "max_days": TRIAL_DAYS}
    return Recipe.from_dict({**RECIPE, "approval": approval, "canary": canary})


def _local(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, ZONE).astimezone(UTC)


def _looks(day: date) -> list[datetime]:
    """The next morning; every ten minutes of a night in which the clocks change."""
    after = day + timedelta(days=1)
    looks = {_local(after, MORNING)}
    if _clocks_change(day):
        first = _local(after, CLOCKS_CHANGE)
        looks |= {first + timedelta(minutes=10 * count) for count in range(26)}
    return sorted(looks)


def _clocks_change(day: date) -> str | None:
    """In the night after that day: forward or back."""
    evening, morning = _local(day, time(22)), _local(day + timedelta(days=1), time(8))
    hours = (morning - evening) / timedelta(hours=1)
    return "forward" if hours < 10 else "back" if hours > 10 else None


def _begun_by_the_clock(session: Session, day: date) -> list[Run]:
    """In the night after that day."""
    evening = _local(day, time(22))
    return [each for each in run_rows.newest(session, 5) if each.why == "schedule" and each.queued_at > evening]


def _hasten(connection: Any, _record: object) -> None:
    """Nobody's power fails here: a database that is thrown away is not waited for."""
    connection.execute("PRAGMA synchronous=OFF").close()


def _acts(session: Session) -> Counter[str]:
    rows = session.execute(select(tables.audit.c.act, tables.audit.c.user_id))
    shown = ((act, user_id) for act, user_id in rows if act.startswith(("canary.", "release.", "data.")))
    return Counter(act if user_id else f"{act} by itself" for act, user_id in shown)


def _beat(session: Session, run: Run, at: datetime) -> None:
    workers.mark_seen(session, WORKER, at)
    run_rows.beat(session, run.id, run.attempt, at)


def _lost(session: Session, run: Run, at: datetime) -> None:
    """As the supervisor does when its child was killed."""
    known = run_rows.get(session, run.id)
    if (known.attempt, known.state) == (run.attempt, RunState.RUNNING):
        runs.lose(session, known, at, code=supervisor.lost_by(-9))


def _needed(session: Session) -> set[str]:
    releases_ = [release for release, _ in library.needed(session)]
    artefacts_ = [artefacts.get(session, each.artefact_id) for each in releases_]
    return {library.whole(each.tag) for each in releases_} | {each.path for each in artefacts_ if each.path}


def _release_of(session: Session, run: Run) -> int:
    assert run.artefact_id is not None
    found = release_rows.of_artefact(session, run.artefact_id)
    assert found is not None
    return found.id


def _rows(session: Session) -> tuple[int, int]:
    """Of all tables; and of those that say what data sets hold."""
    every = [
        select(func.count()).select_from(table).scalar_subquery().label(table.name)
        for table in tables.metadata.sorted_tables
    ]
    counts = session.execute(select(*every)).one()
    return sum(counts), counts.dataset_example + counts.dataset_person
