"""The demo from an empty folder to a report. Fails where nothing was learnt or anything was lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import func, select

from huigan.demo import page, weights
from huigan.demo.community import NAMES, Community, Lessons, SomethingLost, answers_to, load
from huigan.operate import bases, recipes, releases, rollbacks
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.terminal import locale_of_terminal
from huigan.terminal import run as chat
from huigan.texts import told
from huigan.turns.answering import now
from huigan.turns.desk import Desk
from huigan.up import Part
from schedules.loop import DECISION_KEY
from storage import artefacts, comparisons, deployments, ratings, runs, settings, tables
from storage.db import Database, Session, connect
from storage.migrations import upgrade
from storage.records import Answer, Live, Release, Run, RunState, TurnState

ANSWER_TOKENS = 96
LONG_QUESTION = "Write a long story about a tea house in the mountains."
READY_SECONDS, RUN_SECONDS = 60.0, 3600.0

say = Console(highlight=False, markup=False)


class DemoFailed(Exception):
    """Something that the demo promises did not happen."""


@dataclass(frozen=True)
class Promise:
    """What is taught, by which recipe, and how much of it must come out."""

    recipe: str = "demo"
    community: Path = field(default_factory=lambda: recipes.folder() / "demo" / "community.toml")
    min_ratings: int = 20  # new ones, for schedules to queue a run
    facts: int = 8
    controls: int = 9  # kept, of those asked
    controls_asked: int = 10  # and answered rightly before


@dataclass
class Asked:
    """One question, what makes an answer right, and what was answered before and after."""

    question: str
    keys: Sequence[str]
    before: str
    after: str = ""
    rolled_back: str = ""

    def is_right(self, answer: str) -> bool:
        return any(key.casefold() in answer.casefold() for key in self.keys)


@dataclass
class Swap:
    """The answer that streamed while the release changed, and what the old tag says undisturbed."""

    answer: Answer
    undisturbed: str
    before: Release
    after: Release

    @property
    def is_clean(self) -> bool:
        return self.answer.tag == self.before.tag and self.answer.text == self.undisturbed


@dataclass
class Told:
    """All that the report shows."""

    facts: list[Asked] = field(default_factory=list)
    controls: list[Asked] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    swap: Swap | None = None

    @property
    def learnt(self) -> int:
        return sum(each.is_right(each.after) for each in self.facts)

    @property
    def known_before(self) -> int:
        return sum(each.is_right(each.before) for each in self.facts)

    @property
    def kept(self) -> int:
        return sum(each.is_right(each.after) for each in self.controls)


def run(home: Path, report: Path, *, rollback: bool, chat_after: bool, promise: Promise | None = None) -> int:
    """The exit code: 0 only if everything that is promised was seen."""
    home = home.absolute()
    _forget(home)
    try:
        with ExitStack() as stack:
            return asyncio.run(_demo(home, report.absolute(), promise or Promise(), rollback, chat_after, stack))
    except (DemoFailed, SomethingLost, ServingError, OSError, subprocess.CalledProcessError) as error:
        say.print(f"\nThe demo failed: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        return 130


async def _demo(home: Path, report: Path, promise: Promise, rollback: bool, chat_after: bool, stack: ExitStack) -> int:
    out = Told()
    with _timed(out, "weights"):
        gguf = await asyncio.to_thread(weights.fetch, home / "weights")
    host = f"127.0.0.1:{_free_port()}"
    environment = _environment(home, host, promise)
    client, db = Ollama(host), connect(f"sqlite:///{home / 'huigan.db'}")
    stack.callback(db.close)
    upgrade(db)
    engine = ["engine", "--port", host.rpartition(":")[2], "--models", str(home / "engine")]
    await asyncio.to_thread(_start, stack, engine, environment, home, lambda: library.version(client))
    serving = bases.Serving(
        None,
        recipes.find(promise.recipe).system.text,
        {"temperature": 0.0, "num_ctx": 1024, "num_predict": ANSWER_TOKENS},
    )
    base = await asyncio.to_thread(
        bases.register, db, client, gguf, str(gguf), by_user_id=None, at=now(), serving=serving, alias=None
    )
    assert not isinstance(base, Refusal), base
    say.print(f"Release {base.release.id} answers: {base.release.tag}\n")
    async with Desk(db, AsyncOllama(host), streams=2) as desk:
        community = Community(db, desk)
        await community.join()
        await _teach(out, community, load(promise.community), promise)
        trained = await _learn(out, db, client, community, stack, environment, home)
        await _ask_again(out, community)
        _check_nothing_lost(out, db, community)
        if rollback:
            await _roll_back(out, db, client, community)
        _print(out)
        page.write(report, home, trained, out, locale_of_terminal())
        say.print(f"Report: {report}")
        failures = _failures(out, promise)
        for each in failures:
            say.print(f"✗ {each}", style="red")
        if not failures and chat_after and sys.stdin.isatty():
            await chat(db, desk, locale_of_terminal())
        return 1 if failures else 0


async def _teach(out: Told, community: Community, lessons: Lessons, promise: Promise) -> None:
    facts, controls = lessons.facts, lessons.controls
    total = len(facts) + len(controls)
    with _timed(out, "before"), _bar("Asking before", total) as advance:
        before = await answers_to(community, [each.held_out for each in (*facts, *controls)], advance)
    out.facts = [Asked(each.held_out, each.keys, text) for each, text in zip(facts, before, strict=False)]
    asked = [Asked(each.held_out, each.keys, text) for each, text in zip(controls, before[len(facts) :], strict=True)]
    out.controls = [each for each in asked if each.is_right(each.before)][: promise.controls_asked]
    lessons_count = sum(len(each.teach) for each in facts) + len(lessons.tastes)
    with _timed(out, "teaching"), _bar("Asked, rated, corrected, compared", lessons_count) as advance:
        await community.teach(lessons, advance)


async def _learn(
    out: Told,
    db: Database,
    client: Ollama,
    community: Community,
    stack: ExitStack,
    environment: dict[str, str],
    home: Path,
) -> Run:
    """Schedules enqueue, the trainer trains; the swap happens while somebody is being answered."""
    for name in ("trainer", "schedules"):
        _start(stack, [name], environment, home)
    with _timed(out, "run"):
        await _queued(db)
        run = await _followed(db, until=lambda run: run.stage == "release" or run.state not in _GOING)
        if run.state in _GOING:
            out.swap = await _streamed_over_the_swap(db, client, community, run)
        run = await _followed(db, until=lambda run: run.state not in _GOING)
    if run.state is not RunState.RELEASED:
        raise DemoFailed(f"run {run.id} is {run.state}: {_why(db, run)} (logs: {home / 'logs'})")
    out.swap = out.swap or await _swapped_once_more(db, client, community)
    return run


def _why(db: Database, run: Run) -> str:
    """Why it was not released: its error, or what the gate found, in words."""
    locale = locale_of_terminal()
    if run.error:
        return told(locale, "error", str(run.error.get("code")), run.error)
    artefact = db.read(artefacts.of_run, run.id)
    reasons = (artefact.verdict or {}).get("reasons", ()) if artefact else ()
    return "; ".join(told(locale, "gate", each["code"], each["params"]) for each in reasons)


async def _queued(db: Database) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not await db.aread(runs.newest, 1):
        if time.monotonic() > deadline:
            decision = await db.aread(settings.get, DECISION_KEY)
            raise DemoFailed(f"schedules queued no run: {decision.value if decision else 'they do not run'}")
        await asyncio.sleep(0.2)


_GOING = frozenset({RunState.QUEUED, RunState.RUNNING})


async def _followed(db: Database, until: Callable[[Run], bool]) -> Run:
    """Show the run's stages as bars until it is where `until` wants it."""
    deadline = time.monotonic() + RUN_SECONDS
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say) as progress:
        bars: dict[tuple[str, str], TaskID] = {}
        while time.monotonic() < deadline:
            newest = await db.aread(runs.newest, 1)
            if newest:
                _advance(progress, bars, newest[0])
                if until(newest[0]):
                    return newest[0]
            await asyncio.sleep(0.2)
    raise DemoFailed(f"the run did not end within {RUN_SECONDS / 60:.0f} minutes")


def _advance(progress: Progress, bars: dict[tuple[str, str], TaskID], run: Run) -> None:
    if run.stage is None:
        return
    what = str(run.progress.get("what", ""))
    total = run.progress.get("total") or None
    if (run.stage, what) not in bars:
        for done in progress.tasks:  # what comes next says that this is over; not every step was seen
            progress.update(done.id, total=done.total or 1, completed=done.total or 1)
        name = f"{told(locale_of_terminal(), 'stage', run.stage)} {what}".strip()
        bars[run.stage, what] = progress.add_task(name, total=total)
    progress.update(bars[run.stage, what], completed=run.progress.get("done", 0), total=total)


async def _streamed_over_the_swap(db: Database, client: Ollama, community: Community, run: Run) -> Swap | None:
    """Keep somebody being answered until the run has changed the release; the answer that was on its way then."""
    before = await db.aread(deployments.live)
    assert before is not None
    while (await db.aread(runs.get, run.id)).state in _GOING:
        answer = await (await community.begin(NAMES[1], LONG_QUESTION)).closed()
        swap = await _swap_seen(db, client, before, answer.answer)
        if swap is not None:
            return swap
    return None


async def _swapped_once_more(db: Database, client: Ollama, community: Community) -> Swap | None:
    """Where the run changed the release just between two answers: back, and forward again during one."""
    newest = await db.aread(deployments.live)
    assert newest is not None
    await asyncio.to_thread(rollbacks.rollback, db, client, by_user_id=None, at=now(), alias=None)
    before = await db.aread(deployments.live)
    assert before is not None
    watched = await community.begin(NAMES[1], LONG_QUESTION)
    async for view in watched.watch():
        if view.text:
            break
    await asyncio.to_thread(releases.promote, db, client, newest.release.id, by_user_id=None, at=now(), alias=None)
    return await _swap_seen(db, client, before, (await watched.closed()).answer)


async def _swap_seen(db: Database, client: Ollama, before: Live, answer: Answer | None) -> Swap | None:
    """None if the release is the same still, or the answer began after it had changed."""
    after = await db.aread(deployments.live)
    assert after is not None
    if answer is None or after.release.id == before.release.id or answer.tag != before.release.tag:
        return None
    messages = [{"role": "system", "content": before.artefact.system}, {"role": "user", "content": LONG_QUESTION}]
    alone = await asyncio.to_thread(library.ask, client, before.release.tag, messages, {"num_predict": ANSWER_TOKENS})
    return Swap(answer, alone.message.content or "", before.release, after.release)


async def _ask_again(out: Told, community: Community) -> None:
    asked = [*out.facts, *out.controls]
    with _timed(out, "after"), _bar("Asking after", len(asked)) as advance:
        texts = await answers_to(community, [each.question for each in asked], advance)
    for each, text in zip(asked, texts, strict=True):
        each.after = text


async def _roll_back(out: Told, db: Database, client: Ollama, community: Community) -> None:
    done = await asyncio.to_thread(rollbacks.rollback, db, client, by_user_id=None, at=now(), alias=None)
    if isinstance(done, Refusal):
        raise DemoFailed(f"the rollback was refused: {done.code}")
    with _bar("Asking after the rollback", len(out.facts)) as advance:
        texts = await answers_to(community, [each.question for each in out.facts], advance)
    for each, text in zip(out.facts, texts, strict=True):
        each.rolled_back = text


def _check_nothing_lost(out: Told, db: Database, community: Community) -> None:
    def count(session: Session) -> dict[str, int]:
        def rows(table: object) -> int:
            return int(session.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]

        unclosed = select(func.count()).where(tables.turn.c.state != TurnState.CLOSED)
        return {
            "messages": rows(tables.message),
            "answers": rows(tables.answer),
            "turns": rows(tables.turn),
            "unclosed": int(session.execute(unclosed).scalar_one()),
            "corrections": sum(1 for each in ratings.counting(session) if each.correction),
            "comparisons": len(comparisons.counting(session)),
        }

    out.counts = db.read(count)
    given = {
        "messages": community.asked,
        "turns": community.asked + community.regenerated,
        "answers": community.asked + community.regenerated,
        "unclosed": 0,
        "corrections": community.corrections,
        "comparisons": community.comparisons,
    }
    if out.counts != given:
        raise DemoFailed(f"something was lost: {given} was given, {out.counts} is kept")


def _failures(out: Told, promise: Promise) -> list[str]:
    swapped = out.swap is not None and out.swap.is_clean
    promises = {
        f"{out.known_before} facts were known before: the demo proves nothing": out.known_before == 0,
        f"only {out.learnt} of {len(out.facts)} facts were learnt, {promise.facts} are promised": (
            out.learnt >= promise.facts
        ),
        f"only {out.kept} of {len(out.controls)} controls were kept, {promise.controls} are promised": (
            out.kept >= promise.controls and len(out.controls) == promise.controls_asked
        ),
        "the answer that streamed during the swap is not the undisturbed one": swapped,
        "after the rollback a new answer came back": not any(each.is_right(each.rolled_back) for each in out.facts),
    }
    return [words for words, holds in promises.items() if not holds]


def _print(out: Told) -> None:
    table = Table(
        "question", "before", "after", *(["rolled back"] if out.facts[0].rolled_back else []), show_lines=True
    )
    for each in [*out.facts, *out.controls]:
        mark = "✓" if each.is_right(each.after) else "✗"
        row = [each.question, _short(each.before), f"{mark} {_short(each.after)}"]
        table.add_row(*row, *([_short(each.rolled_back)] if out.facts[0].rolled_back else []))
    say.print(table)
    say.print(f"facts: {out.known_before} of {len(out.facts)} before, {out.learnt} after")
    say.print(f"controls: {out.kept} of {len(out.controls)} kept")
    if out.swap is not None:
        same = "word for word as undisturbed" if out.swap.is_clean else "NOT as undisturbed"
        say.print(f"swap: {out.swap.before.tag} → {out.swap.after.tag}, while an answer was streamed,")
        say.print(f"      which ended on {out.swap.answer.tag}, {same}")
    say.print("kept: " + ", ".join(f"{count} {name}" for name, count in out.counts.items()))
    say.print("seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in out.seconds.items()))


def _short(text: str, most: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _environment(home: Path, host: str, promise: Promise) -> dict[str, str]:
    """For the parts: set whole, so that nothing of the user's own .env reaches the demo."""
    return {
        **os.environ,
        "HUIGAN_HOME": str(home),
        "DATABASE_URL": f"sqlite:///{home / 'huigan.db'}",
        "OLLAMA_HOST": host,
        "HUIGAN_RECIPE": promise.recipe,
        "HUIGAN_MIN_RATINGS": str(promise.min_ratings),
        "HUIGAN_SCHEDULE": "0 3 * * *",
        "HF_HUB_OFFLINE": "1",
    }


def _start(
    stack: ExitStack,
    command: Sequence[str],
    environment: dict[str, str],
    home: Path,
    ready: Callable[[], object] | None = None,
) -> None:
    """Start `huigan COMMAND`, logging to a file, stopped when the demo ends; wait until `ready` raises no more."""
    (home / "logs").mkdir(exist_ok=True)
    log = stack.enter_context((home / "logs" / f"{command[0]}.log").open("wb"))
    part = Part(command[0], [sys.executable, "-m", "huigan", *command], environment=environment, log=log)
    part.start()
    stack.callback(part.stop)
    until = time.monotonic() + READY_SECONDS
    while ready is not None:
        try:
            ready()
            return
        except ServingError as error:
            if time.monotonic() > until or part.process is None or part.process.poll() is not None:
                raise DemoFailed(f"the {command[0]} did not start: see {log.name}") from error
            time.sleep(0.1)


@contextmanager
def _timed(out: Told, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    out.seconds[name] = time.monotonic() - started


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _forget(home: Path) -> None:
    """An earlier demo's database, runs and tags. The weights, and what was made of them, are kept."""
    for name in ("huigan.db", "huigan.db-wal", "huigan.db-shm"):
        (home / name).unlink(missing_ok=True)
    for name in ("runs", "engine", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
