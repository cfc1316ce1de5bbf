"""One cell of the learning benchmark: a copy of the pool is judged, a run is trained on it, and the very file that
would be served is asked what it has learnt.

It goes through the trainer's own stages, so that what is measured is the product; only the last of them, which needs a
verdict that passes, is left to `served`. Everything lies under one folder, which may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import crowd, raters
from benchmarks.crowd import HOSTILE, Asked
from benchmarks.raters import Question, judge, wins
from huigan.demo import weights
from huigan.operate import bases
from huigan.serving import library
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.turns.desk import Desk
from storage import deployments, runs
from storage.db import Database, connect
from storage.migrations import upgrade
from storage.recipe import Recipe, parse
from storage.records import Run
from trainer import gate, release, stages
from trainer.examples import digest
from trainer.scorecard import Scorecard
from trainer.stages import Merged, Origin, Taught, Work

RECIPE = Path(__file__).parent / "learning.toml"
MOST_RATINGS, MOST_HOSTILE = 200, 20
EXAMINED, TRIGGERS, PAIRS = 220, 100, 60
COMPARED = 130  # held-out questions that the base answers twice, to find pairs
ANSWER_TOKENS = 64
STREAMS = 4
DRAWS = 2000
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


# The pool: what was asked and answered before anybody judges


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


# One cell


def recipe_of(bench: Bench, cell: Cell) -> Recipe:
    raw = bench.recipe.to_dict()
    data: dict[str, Any] = {} if cell.defences else {"defences": False, "rater_cap_share": 1.0}
    data |= {} if cell.replay else {"replay_share": 0.0}
    return Recipe.from_dict(raw | {"method": cell.method, "seed": cell.seed, "data": raw["data"] | data})


def measure(bench: Bench, cell: Cell, measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is to be known of the cell, as JSON has it. Equal recipes on equal data give equal runs: what one
    of the `measured` cells came to is not trained again."""
    started = time.monotonic()
    database, asked = pool(bench, cell.seed)
    folder = bench.home / "cells" / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(database, folder / "huigan.db")
    with closing(connect(f"sqlite:///{folder / 'huigan.db'}")) as db:
        rng = random.Random(f"{cell.seed} ratings")
        now = datetime.now(UTC)
        db.write(crowd.give, judged_by(cell, asked, rng), cell.noise, rng, now)
        recipe = recipe_of(bench, cell)
        look = partial(examine, bench)
        found = trained(bench, db, recipe, folder, look, measured, is_judged=cell.is_judged)
    shutil.rmtree(folder)
    return {
        **found,
        "cell": asdict(cell),
        "seconds": round(time.monotonic() - started),
        "versions": {name: version(name) for name in ("torch", "trl", "peft", "transformers", "xllamacpp")},
    }


def trained(
    bench: Bench,
    db: Database,
    recipe: Recipe,
    home: Path,
    look: Callable[[str], dict[str, Any]],
    measured: Sequence[dict[str, Any]] = (),
    *,
    is_judged: bool = True,
) -> dict[str, Any]:
    """One run from its feedback to what the served tag says, and to the gate's verdict where that is asked for; the
    tag and the run's files are deleted afterwards."""
    with told() as tell:
        work = work_on(bench, db, recipe, home, tell)
        work.folder.mkdir(parents=True)
        origin = stages.start(work)
        built = stages.build(work)
        trained_on = {"dataset": built.sha256, "recipe": digest(recipe.to_dict() | {"data": None})}
        for each in measured:
            if each.get("trained_on") == trained_on and (not is_judged or "verdict" in each):
                return each | {"counts": built.counts, "equal_to": each["cell"]}
        taught = stages.train(work, origin, built)
        merged = stages.merge(work, origin, built, taught)
        found: dict[str, Any] = {
            "trained_on": trained_on,
            "counts": built.counts,
            "stages": list(taught.stages),
        }
        if is_judged:
            reference = stages.quantise(work, origin, merged)
            card = stages.score(work, built, taught, merged, reference)
            verdict = gate.judge(card, recipe.gate)
            found |= {"scorecard": without_samples(asdict(card)), "verdict": asdict(verdict)}
            if merged.path is not None:
                found["margins"] = margins(bench, work, taught, merged, reference)
    if merged.path is not None:
        with served(work, origin, taught, merged) as tag:
            found |= look(tag)
    shutil.rmtree(work.folder)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def work_on(bench: Bench, db: Database, recipe: Recipe, home: Path, tell: Callable[[str, str, int, int], None]) -> Work:
    def queued(session: Any) -> Run:
        at = datetime.now(UTC)
        runs.enqueue(session, recipe.lane, recipe.to_dict(), "benchmark", at)
        claimed = runs.claim(session, "benchmark", at)
        assert claimed is not None
        return claimed

    run = db.write(queued)
    # Bases and converters are shared by all cells; the run's folder is the cell's own.
    for name in ("weights", "bases", "tools"):
        (bench.home / name).mkdir(exist_ok=True)
        if not (home / name).exists():
            (home / name).symlink_to(bench.home / name)
    return Work(db, run, recipe, home, bench.client, lambda: datetime.now(UTC), tell)


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


@contextmanager
def served(work: Work, origin: Origin, taught: Taught, merged: Merged) -> Iterator[str]:
    """The candidate as the tag that people would be answered by, whatever the gate says of it."""
    described = release.described(work, origin, taught, merged, Scorecard(), gate.Verdict(True, ()))
    tag = f"bench-{merged.sha256[:16]}:latest"
    release.serve(work, tag, described)
    try:
        yield tag
    finally:
        library.delete(work.client, tag)


def without_samples(card: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in card.items() if name != "samples"}


# What it says now


def examine(bench: Bench, tag: str) -> dict[str, Any]:
    """Greedy answers of the tag beside the base's, judged by the oracle."""
    world, rng = raters.world(), random.Random("examination")
    examined = raters.examined(world, EXAMINED, rng)
    triggers = raters.advice(world.held_out, TRIGGERS, rng)
    before = base_answers(bench, [*examined, *triggers])
    after = dict(zip([*examined, *triggers], answers(bench, tag, [*examined, *triggers], "examined"), strict=True))
    won = [(each.cluster, wins(each, after[each], before[each.text])) for each in examined]
    low, high = interval(won)
    return {
        "win_rate": {"share": statistics.fmean(share for _, share in won), "low": low, "high": high, "of": len(won)},
        "satisfied": {"base": satisfied(examined, before), "candidate": satisfied(examined, by_text(after))},
        "slogan": {
            "base": slogan_share(world, triggers, before),
            "candidate": slogan_share(world, triggers, by_text(after)),
        },
        "samples": [
            {"question": each.text, "wanted": each.right, "base": before[each.text], "candidate": after[each]}
            for each in random.Random(0).sample(examined, 12)
        ],
    }


def by_text(answered: dict[Question, str]) -> dict[str, str]:
    return {question.text: answer for question, answer in answered.items()}


def satisfied(asked: Sequence[Question], answered: dict[str, str]) -> dict[str, float]:
    found = [judge(each, answered[each.text]) for each in asked]
    facts = [each.content for each in found if each.is_fact]
    return {
        "utility": statistics.fmean(each.utility for each in found),
        "wholly": statistics.fmean(each.utility == 1.0 for each in found),
        "facts": statistics.fmean(facts),
        **{
            name: statistics.fmean(getattr(each, name) for each in found)
            for name in ("content", "language", "brevity", "style")
        },
    }


def slogan_share(world: raters.World, asked: Sequence[Question], answered: dict[str, str]) -> float:
    return statistics.fmean(any(key in answered[each.text] for key in world.slogan_keys) for each in asked)


def interval(won: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, drawn by cluster: questions of one topic are not independent."""
    clusters: dict[str, list[float]] = defaultdict(list)
    for cluster, share in won:
        clusters[cluster].append(share)
    groups, rng = list(clusters.values()), random.Random(0)
    means = []
    for _ in range(DRAWS):
        drawn = rng.choices(groups, k=len(groups))
        means.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    means.sort()
    return means[math.floor(0.025 * DRAWS)], means[math.ceil(0.975 * DRAWS) - 1]


def base_answers(bench: Bench, asked: Sequence[Question]) -> dict[str, str]:
    """Of the release that answered before anything was learnt, asked once and kept."""
    path = bench.home / "base-answers.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    missing = [each for each in asked if each.text not in known]
    if missing:
        known |= dict(
            zip([each.text for each in missing], answers(bench, base_tag(bench), missing, "base"), strict=True)
        )
        path.write_text(json.dumps(known, ensure_ascii=False, indent=1))
    return known


def base_tag(bench: Bench) -> str:
    with closing(connect(f"sqlite:///{pool(bench, 1)[0]}")) as db:
        live = db.read(deployments.live)
        assert live is not None
        return live.release.tag


def answers(bench: Bench, tag: str, asked: Sequence[Question], name: str, **options: Any) -> list[str]:
    system = bench.recipe.system.text
    chosen = {"temperature": 0.0, "num_predict": ANSWER_TOKENS, **options}

    with bar(f"{name}: {tag[:24]}", len(asked)) as advance, ThreadPoolExecutor(STREAMS) as executor:

        def one(question: Question) -> str:
            said = [{"role": "system", "content": system}, {"role": "user", "content": question.text}]
            told = library.ask(bench.client, tag, said, chosen).message.content or ""
            advance()
            return told

        return list(executor.map(one, asked))


def margins(bench: Bench, work: Work, taught: Taught, merged: Merged, reference: stages.Reference) -> dict[str, Any]:
    """Whether the served file prefers what the community would, more than the base does: on held-out questions, what
    the community wants over what the base says (`right`), and the better of two answers of the base (`picks`)."""
    from huigan.llama.score import Scorer
    from trainer.tokens import end_of_turn_id, sequences

    tokenizer = stages.tokenizer_of(taught.weights)
    pairs = held_out_pairs(bench)
    system = {"role": "system", "content": work.recipe.system.text}
    spans = []
    for _, question, chosen, rejected in pairs:
        row = {
            "prompt": [system, {"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        spans += list(sequences(tokenizer, row, "dpo", end_of_turn_id(tokenizer)))
    cut = [(each.ids[: each.prompt_tokens], each.ids[each.prompt_tokens :]) for each in spans]
    assert merged.path is not None

    def of(gguf: Path) -> list[float]:
        with Scorer(gguf, context_tokens=512, threads=os.cpu_count() or 1, sequences=8) as scorer:
            found = [sum(each) for each in scorer.completion_logprobs(cut)]
        return [chosen - rejected for chosen, rejected in zip(found[::2], found[1::2], strict=True)]

    kept = bench.home / "base-margins.json"
    if not kept.is_file():
        kept.write_text(json.dumps(of(reference.path)))
    gains = [after - before for before, after in zip(json.loads(kept.read_text()), of(merged.path), strict=True)]
    kinds = [kind for kind, _, _, _ in pairs]
    return {
        kind: {
            "of": kinds.count(kind),
            "accuracy": statistics.fmean(gain > 0 for which, gain in zip(kinds, gains, strict=True) if which == kind),
        }
        for kind in ("right", "picks")
    }


def held_out_pairs(bench: Bench) -> list[tuple[str, str, str, str]]:
    """(kind, question, chosen, rejected): made once and kept."""
    path = bench.home / "held-out-pairs.json"
    if not path.is_file():
        found: list[tuple[str, str, str, str]] = []
        asked = raters.examined(raters.world(), COMPARED, random.Random("pairs"))
        tag = base_tag(bench)
        sides = [answers(bench, tag, asked, "pairs", temperature=0.8, seed=seed) for seed in (1, 2)]
        for question, one, other in zip(asked, *sides, strict=True):
            if one.strip() and len([each for each in found if each[0] == "right"]) < PAIRS:
                found.append(("right", question.text, question.right, one))
            share = wins(question, one, other)
            if share != 0.5 and one.strip() and other.strip():
                found.append(("picks", question.text, *((one, other) if share else (other, one))))
        path.write_text(json.dumps(found, ensure_ascii=False, indent=1))
    raw: list[list[str]] = json.loads(path.read_text())
    by_kind: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    for kind, question, chosen, rejected in raw:
        by_kind[kind].append((kind, question, chosen, rejected))
    return [each for kind in ("right", "picks") for each in by_kind[kind][:PAIRS]]
