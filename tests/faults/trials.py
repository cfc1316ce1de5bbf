"""Faults that strike what moves canaries and live releases: SIGKILL before every statement, commit and request of an
act, and after. Then another process looks, as schedules do, and an admin's act or a run's is taken up again, as a bot
and a supervisor do. All of it ends as where nobody was killed: one live release, one notice, each conversation its own.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from huigan.operate import bases, canaries, releases
from huigan.operate import runs as operate_runs
from huigan.serving.client import Ollama
from schedules import release_watch
from storage import deployments, runs, users
from storage.db import Database, connect
from storage.records import RunState
from tests.fakes.ollama import FakeOllama, Tag
from tests.faults import invariants
from tests.faults.forks import Fork
from tests.faults.matrix import Came, Cell
from tests.huigan.operate.conftest import ARTEFACT, AT, minutes
from tests.huigan.operate.trials import DOWN, UP, Trials, base_of, liked

KILLED = -9
ADMIN = 1
TALKS = range(1, 41)  # conversations; which release answers is drawn by their number
CANDIDATE = 2  # the base is 1
LATER = minutes(10)
LOST = timedelta(seconds=60)

Act = Callable[[Database, Ollama, datetime], object]


@dataclass(frozen=True)
class Scene:
    begin: Callable[[Trials], object]  # what there is as the act begins
    act: Act
    at: datetime = LATER


def look(db: Database, client: Ollama, at: datetime) -> None:
    """As schedules do every half minute."""
    release_watch.look(db, client, at)


def put_on_trial(db: Database, _client: Ollama, at: datetime) -> None:
    """The last transaction of a run; a run whose worker was lost is handed on."""
    db.write(operate_runs.reap, at - LOST, at)
    run = db.read(runs.get, 1)
    if run.state is RunState.QUEUED:
        run = db.write(runs.claim, "another", at) or run
    if run.state is RunState.RUNNING:
        db.write(releases.put_on_trial, run.id, run.attempt, ARTEFACT, f"huigan:run{run.id}-0123456789ab", at)


def begin(db: Database, client: Ollama, at: datetime) -> None:
    canaries.begin(db, client, CANDIDATE, by_user_id=ADMIN, at=at)


def grow(db: Database, _client: Ollama, at: datetime) -> None:
    db.write(canaries.set_share, 0.8, ADMIN, at)


def stop(db: Database, _client: Ollama, at: datetime) -> None:
    db.write(canaries.stop, ADMIN, at)


def promote(db: Database, client: Ollama, at: datetime) -> None:
    releases.promote(db, client, CANDIDATE, by_user_id=ADMIN, at=at)


def reject(db: Database, _client: Ollama, at: datetime) -> None:
    releases.reject(db, CANDIDATE, by_user_id=ADMIN, why="no", at=at)


def is_running(trials: Trials) -> None:
    run = trials.running()
    trials.fake.add(f"huigan:run{run.id}-0123456789ab")


def is_proposed(trials: Trials) -> None:
    trials.tried()
    trials.db.write(canaries.stop, ADMIN, minutes(1))


def is_better(trials: Trials) -> None:
    liked(trials, trials.tried(), is_liked=True)


def is_worse(trials: Trials) -> None:
    liked(trials, trials.tried(), is_liked=False)


def is_live_and_worse(trials: Trials) -> None:
    trials.rated(base_of(trials), [UP] * 40, minutes(1))
    trials.rated(trials.published(at=minutes(2)), [DOWN] * 40, minutes(3))


SCENES: dict[str, Scene] = {
    "start by a run": Scene(is_running, put_on_trial),
    "start by an admin": Scene(is_proposed, begin),
    "growth": Scene(Trials.tried, grow),
    "promotion on proof": Scene(is_better, look),
    "withdrawal on harm": Scene(is_worse, look),
    "end without proof": Scene(Trials.tried, look, AT + timedelta(days=11)),
    "rollback": Scene(is_live_and_worse, look),
    "stop by an admin": Scene(Trials.tried, stop),
    "promotion by an admin": Scene(Trials.tried, promote),
    "rejection by an admin": Scene(Trials.tried, reject),
}


# The process that is killed


class Doom:
    """Kills this process, as kill -9 does, at the instant of that number; 0: never."""

    def __init__(self, number: int) -> None:
        self.number, self.passed = number, 0

    def __call__(self, *_: Any) -> None:
        self.passed += 1
        if self.passed == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

    def over(self, db: Database) -> None:
        for name in ("before_cursor_execute", "commit", "checkin"):
            event.listen(db.engine, name, self)


class DoomedOllama(Ollama):
    def __init__(self, host: str, doom: Doom) -> None:
        super().__init__(host)
        self._doom = doom

    def _request_raw(self, *told: Any, **more: Any) -> Any:
        self._doom()
        answered = super()._request_raw(*told, **more)
        self._doom()
        return answered


def doomed(url: str, host: str, name: str, number: int, trace: str) -> None:
    """Leaves how many instants there were, where it lives to see the end."""
    db, doom, scene = connect(url), Doom(number), SCENES[name]
    doom.over(db)
    scene.act(db, DoomedOllama(host, doom), scene.at)
    Path(trace).write_text(str(doom.passed))


# What is struck, and what must hold


@dataclass
class Ground:
    """A scene as the act begins, put back before each strike."""

    scene: Scene
    name: str
    folder: Path
    fake: FakeOllama
    made: Path
    talks: dict[int, str]  # the tag that answers in each
    tags: dict[str, Tag]
    blobs: dict[str, bytes]

    @contextmanager
    def struck(self, number: int) -> Iterator[tuple[Database, Fork]]:
        self.fake.reset()
        self.fake.tags |= self.tags
        self.fake.blobs |= self.blobs
        url = f"sqlite:///{shutil.copy(self.made, self.folder / f'{number}.db')}"
        trace = str(self.folder / "instants")
        process = Fork(self.folder / "acts.log", doomed, url, self.fake.host, self.name, number, trace)
        db = connect(url)
        try:
            yield db, process
        finally:
            process.kill()
            process.wait()
            db.close()

    def instants(self) -> int:
        return int((self.folder / "instants").read_text())


@contextmanager
def ground(cell: Cell, name: str) -> Iterator[Ground]:
    cell.folder.mkdir(exist_ok=True)
    made = Path(shutil.copy(cell.grounds.migrated, cell.folder / "made.db"))
    with FakeOllama().running() as fake:
        db, client = connect(f"sqlite:///{made}"), Ollama(fake.host)
        fake.add("llama3:8b", system="You are kind.")
        bases.register(db, client, "llama3:8b", "/weights", by_user_id=None, at=AT)
        db.write(users.meet, "telegram", "admin", "Ann", None, AT)
        SCENES[name].begin(Trials(db, fake, client))
        talks = {each: answers_in(db, each) for each in TALKS}
        db.close()
        yield Ground(SCENES[name], name, cell.folder, fake, made, talks, dict(fake.tags), dict(fake.blobs))


def killed(cell: Cell, scene: str, rounds: int | None = None) -> Came:
    """At so many instants of the act, or at each."""
    with ground(cell, scene) as here:
        with here.struck(0) as (db, process):
            assert process.wait() == 0, (cell.folder / "acts.log").read_text()[-3000:]
            look(db, Ollama(here.fake.host), here.scene.at)
            alone, broken, instants = came_of(db, here.fake), held(db, here.fake), here.instants()
        numbers = range(1, instants + 1)
        chosen = numbers if rounds is None else sorted(cell.rng.sample(numbers, min(rounds, instants)))
        for number in chosen:
            broken += [f"instant {number} of {instants}: {each}" for each in struck(here, number, alone)]
        return Came("as if nothing had been", broken, len(chosen), len(chosen))


def again(here: Ground, db: Database) -> None:
    """The act is taken up again, and then looked again."""
    client = Ollama(here.fake.host)
    here.scene.act(db, client, here.scene.at)
    look(db, client, here.scene.at)


def struck(here: Ground, number: int, alone: dict[str, Any]) -> list[str]:
    with here.struck(number) as (db, process):
        broken = [] if process.wait() == KILLED else [f"it ended with {process.returncode}"]
        broken += held(db, here.fake) + invariants.conversations_keep_their_canary(db, here.talks)
        look(db, Ollama(here.fake.host), here.scene.at)
        broken += held(db, here.fake)
        again(here, db)
        broken += held(db, here.fake) + invariants.conversations_keep_their_canary(db, here.talks)
        found = came_of(db, here.fake)
        return broken + [f"{name}: {found[name]}, not {alone[name]}" for name in alone if found[name] != alone[name]]


def answers_in(db: Database, conversation_id: int) -> str:
    found = db.read(deployments.for_turn, conversation_id, sampled=False)
    assert found is not None
    return found.release.tag


def held(db: Database, fake: FakeOllama) -> list[str]:
    return [
        *invariants.one_release_is_live(db, fake.tags),
        *invariants.a_canary_is_a_proposal(db, fake.tags),
        *invariants.runs_move_as_runs_do(db),
        *invariants.notices_are_put_once(db),
    ]


def came_of(db: Database, fake: FakeOllama) -> dict[str, Any]:
    live = db.read(deployments.live)
    assert live is not None
    kept = [(each["release_id"], each["share"], each["by"], each["why"]) for each in invariants.rows(db, "deployment")]
    alias = fake.tags.get(canaries.tags.ALIAS)
    return {
        "deployments": kept,
        "runs": [(each["id"], each["state"]) for each in invariants.rows(db, "run")],
        "notices": [(each["code"], each["params"]) for each in invariants.rows(db, "outbox")],
        "tags": sorted(fake.tags),
        "alias": alias is not None and alias.digest == fake.tags[live.release.tag].digest,
    }
