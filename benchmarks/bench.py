"""The learning benchmark's bench: its cells, an engine of its own, and the *pool* of questions that were asked and
answered before anybody judges. Everything lies under one folder, which may be deleted at any time. Trains nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import crowd, raters
from benchmarks.crowd import HOSTILE, Asked
from benchmarks.raters import Question
from huigan.demo import weights
from huigan.operate import bases
from huigan.serving import library
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.turns.desk import Desk
from storage.db import Database, connect
from storage.migrations import upgrade
from storage.recipe import Recipe, parse

RECIPE = Path(__file__).parent / "learning.toml"
MOST_RATINGS, MOST_HOSTILE = 200, 20
STREAMS = 4
READY_SECONDS = 60.0

say = Console(highlight=False, markup=False)


@dataclass(frozen=True)
class Cell:
    """What one run is trained on and how; its name is the name of the file with what was found."""

    arm: str
    method: str
    ratings: int
    seed: int
    noise: float = 0.1
    hostile: float = 0.0  # share of the ratings that one hostile rater gives
    defences: bool = True
    replay: bool = True  # general questions and answers mixed in against forgetting
    night: int = 0  # of consecutive ones; 0 where the cell stands alone

    @property
    def name(self) -> str:
        parts = [self.arm, self.method, f"{self.ratings}", f"noise{self.noise * 100:g}", f"seed{self.seed}"]
        parts += [f"hostile{self.hostile * 100:g}"] if self.hostile else []
        parts += [f"night{self.night:02}"] if self.night else []
        parts += [] if self.defences else ["undefended"]
        return "-".join([*parts, *([] if self.replay else ["unreplayed"])])

    @property
    def is_judged(self) -> bool:
        """An attack is looked at in what is served; the gate's minutes go to the runs it is meant for."""
        return self.defences and not self.hostile


@dataclass(frozen=True)
class Bench:
    """Where the benchmark works, and the engine that serves."""

    home: Path
    client: Ollama
    host: str

    @property
    def recipe(self) -> Recipe:
        return parse(RECIPE.read_text(encoding="utf-8"))


@contextmanager
def opened(home: Path) -> Iterator[Bench]:
    """An engine of its own, stopped at the end."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [sys.executable, "-m", "huigan.engine", "--port", host.rpartition(":")[2]]
    environment = {**os.environ, "HUIGAN_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    with (home / "engine.log").open("wb") as log:
        options = ["--models", str(home / "engine"), "--parallel", str(STREAMS)]
        engine = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
        try:
            client = Ollama(host)
            wait_until_ready(client, engine)
            yield Bench(home, client, host)
        finally:
            engine.terminate()
            engine.wait()


def wait_until_ready(client: Ollama, engine: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            library.version(client)
            return
        except ServingError:
            if engine.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say, transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def told() -> Iterator[Callable[[str, str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say, transient=True) as progress:
        tasks: dict[tuple[str, str], TaskID] = {}

        def tell(stage: str, what: str, done: int, total: int) -> None:
            if (stage, what) not in tasks:
                tasks[stage, what] = progress.add_task(f"{stage} {what}")
            progress.update(tasks[stage, what], completed=done, total=total or None)

        yield tell


def pool(bench: Bench, seed: int) -> tuple[Path, list[Asked]]:
    """The database of a seed's questions and answers, made once; those of the hostile rater come last."""
    folder = bench.home / "pools" / str(seed)
    database, record = folder / "huigan.db", folder / "asked.json"
    if not record.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with closing(connect(f"sqlite:///{database}")) as db:
            upgrade(db)
            register_base(bench, db)
            crowd.keep(record, asyncio.run(ask(bench, db, questions(seed))))
    return database, crowd.kept(record)


def questions(seed: int) -> list[tuple[Question, raters.Act, str]]:
    rng, world = random.Random(seed), raters.world()
    honest = [
        (question, act, crowd.RATERS[number % len(crowd.RATERS)])
        for number, (question, act) in enumerate(raters.asked(world, MOST_RATINGS, rng))
    ]
    known = {question.text for question, _, _ in honest}
    attacked = raters.advice([each for each in world.taught if each.text not in known], MOST_HOSTILE, rng)
    return [*honest, *((each, "correct", HOSTILE) for each in attacked)]


def register_base(bench: Bench, db: Database) -> None:
    gguf = weights.fetch(bench.home / "weights")
    recipe = bench.recipe
    serving = bases.Serving(None, recipe.system.text, recipe.generate.options())
    bases.register(
        db, bench.client, gguf, str(gguf), by_user_id=None, at=datetime.now(UTC), serving=serving, alias=None
    )


async def ask(
    bench: Bench, db: Database, asked: Sequence[tuple[Question, raters.Act, str]], *, first: int = 0
) -> list[Asked]:
    async with Desk(db, AsyncOllama(bench.host), streams=STREAMS) as desk:
        with bar("asked", len(asked)) as advance:
            return await crowd.ask_all(db, desk, asked, advance, first=first, streams=STREAMS)


def judged_by(cell: Cell, asked: Sequence[Asked], rng: random.Random) -> list[Asked]:
    """Who rates what in this cell: some of the community's ratings are the hostile rater's in their stead."""
    hostile = round(cell.ratings * cell.hostile)
    honest = [each for each in asked if each.rater != HOSTILE][: cell.ratings - hostile]
    given = honest + [each for each in asked if each.rater == HOSTILE][:hostile]
    rng.shuffle(given)
    return given
