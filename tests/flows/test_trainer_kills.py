"""kill -9 of the trainer's child or supervisor in every stage: the run goes on and ends with the same file and verdict.

And too little memory while merging, which ends the run, and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from huigan.texts import LOCALES, text
from storage import deployments, outbox, releases, runs
from storage.records import Artefact, RunState
from tests.trainer.processes import is_gone, until
from tests.trainer.world import ENVIRONMENT, REPOSITORY, World, counting_ollama, tiny_base
from trainer.child import DONE
from trainer.stages import folder_of
from trainer.supervisor import worker_name

KILLED = -9
PATIENCE_SECONDS = 120
Point = tuple[object, ...]  # stage, what, and how much of it is done

POINTS: list[Point] = [
    ("dataset", "", 0),
    ("train", "sft", 4),
    ("train", "dpo", 3),
    ("merge", "dequantise", 3),  # the 16-bit base, which every later run takes from there
    ("merge", "merge", 3),
    ("quantise", "quantise", 3),
    ("score", "live: generate"),
    ("gate", "", 0),
    ("release", "create", 0),
    ("release", "try", 2),
]
# A run outlives the loss of two supervisors, and not of a third.
LOSSES: list[tuple[Point, Point]] = [
    (("dataset", "", 0), ("train", "dpo", 3)),
    (("merge", "merge", 3), ("quantise", "quantise", 3)),
    (("score", "live: generate"), ("gate", "", 0)),
    (("release", "create", 0), ("release", "try", 2)),
]


@dataclass(frozen=True)
class Ended:
    """What a run came to."""

    artefact: Artefact
    tag: str
    base: bytes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@contextmanager
def opened(folder: Path, tiny: Path) -> Iterator[World]:
    with counting_ollama(tiny) as ollama:
        world = World(folder, tiny, ollama, from_gguf=True)
        yield world
        world.db.close()


@pytest.fixture
def world(tmp_path: Path, tiny: Path) -> Iterator[World]:
    with opened(tmp_path, tiny) as made:
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Ended:
    """A run that was left alone."""
    with opened(tmp_path_factory.mktemp("alone"), tiny) as world:
        assert world.child(world.enqueue()) == DONE, world.said
        return end_of(world)


def end_of(world: World) -> Ended:
    """Of its first run, which was released. Nothing half-written lies about."""
    (run,) = world.db.read(runs.newest)
    assert run.state is RunState.RELEASED, run.error
    assert world.tag() != "base:1"
    assert world.tag() in world.ollama.tags
    assert not [*world.home.rglob("*.part")]
    (base,) = (world.home / "bases").glob("*.f16.gguf")
    (report,) = world.home.rglob("report.html")
    assert "https://" not in report.read_text().replace("http://www.w3.org", "")
    return Ended(world.artefact(run), world.tag(), base.read_bytes())


def check_same(ended: Ended, alone: Ended) -> None:
    one, other = alone.artefact, ended.artefact
    assert one.sha256 == other.sha256 is not None
    assert one.verdict == other.verdict
    assert one.scorecard == other.scorecard
    assert (alone.tag, alone.base) == (ended.tag, ended.base)


def answered(world: World) -> list[str]:
    """Every tag that was ever live: deployments are only added to."""
    history = world.db.read(deployments.history)
    return [world.db.read(releases.get, each.release_id).tag for each in sorted(history, key=lambda each: each.id)]


def notices(world: World) -> list[str]:
    return [each.code for each in world.db.read(outbox.unsent)]


@contextmanager
def supervisors(world: World, count: int, harm: dict[str, list[object]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """That many of them on one database; `harm` comes to the children of the attempts it names."""
    told = json.dumps({name: [*map(str, each)] for name, each in harm.items()})
    command = [sys.executable, "-m", "tests.flows.trainer_supervisor", world.url, str(world.home), world.ollama.host]
    with ExitStack() as stack:
        started = []
        for number in range(count):
            said = stack.enter_context((world.folder / f"supervisor-{number}").open("wb"))
            process = subprocess.Popen([*command, told], cwd=REPOSITORY, env=os.environ | ENVIRONMENT, stderr=said)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
        yield started


def said(world: World) -> str:
    """What the supervisors and their children wrote, for whoever reads why a test failed."""
    logs = [*world.folder.glob("supervisor-*"), *(world.home / "logs").glob("*")]
    return "\n".join(f"{each.name}:\n{each.read_text()}" for each in sorted(logs))


def wait_for_end(world: World, run_id: int) -> RunState:
    def state() -> RunState:
        return world.db.read(runs.get, run_id).state

    until(lambda: state() not in {RunState.QUEUED, RunState.RUNNING}, PATIENCE_SECONDS)
    return state()


def check_leashed(world: World, attempts: int) -> None:
    """Each attempt had one child, which was gone before the next began."""
    traces = {each.name: each.read_text().split() for each in (world.folder / "children").iterdir()}
    assert sorted(traces) == [f"1-{attempt}" for attempt in range(1, attempts + 1)]
    assert [len(pids) for pids in traces.values()] == [1] * attempts
    until(lambda: all(is_gone(int(pid)) for (pid,) in traces.values()))


def check_handed_on(world: World, killed: list[subprocess.Popen[bytes]]) -> None:
    """Every supervisor that was killed had the run once, and lost it."""
    host = worker_name().partition(":")[0]
    lost = [each.detail["lost"] for each in world.db.read(runs.events, 1) if "lost" in each.detail]
    assert sorted(lost) == sorted(f"{host}:{each.pid}" for each in killed)


@pytest.mark.slow
def test_a_run_killed_at_every_point_ends_as_one_that_was_left_alone(world: World, alone: Ended) -> None:
    run = world.enqueue()
    for point in POINTS:
        assert world.child(run, *point) == KILLED, (point, world.said)
        assert world.tag() == "base:1"
        run = world.hand_on(run)
    assert world.child(run) == DONE, world.said
    check_same(end_of(world), alone)


@pytest.mark.long
@pytest.mark.parametrize("points", LOSSES, ids=lambda points: "-".join(point[0] for point in points))
def test_a_run_whose_supervisors_are_killed_ends_as_one_that_was_left_alone(
    world: World, alone: Ended, points: tuple[Point, Point]
) -> None:
    world.queue()
    harm: dict[str, list[object]] = {f"1-{attempt}": ["orphan", *point] for attempt, point in enumerate(points, 1)}
    with supervisors(world, 3, harm) as started:
        assert wait_for_end(world, 1) is RunState.RELEASED, said(world)
        killed = [each for each in started if each.poll() == KILLED]
        (left,) = (each for each in started if each not in killed)
        left.send_signal(signal.SIGTERM)
        assert left.wait(PATIENCE_SECONDS) == 0, said(world)
    check_same(end_of(world), alone)
    assert answered(world) == ["base:1", alone.tag]
    check_leashed(world, attempts=3)
    check_handed_on(world, killed)


@pytest.mark.long
def test_a_run_that_takes_three_supervisors_along_is_given_up(world: World) -> None:
    world.queue()
    with supervisors(world, 4, {f"1-{attempt}": ["orphan", "start", "", 0] for attempt in (1, 2, 3, 4)}) as started:
        assert wait_for_end(world, 1) is RunState.FAILED, said(world)
        killed = [each for each in started if each.poll() == KILLED]
        assert len(killed) == 3
    assert world.db.read(runs.get, 1).error == {"code": "worker_lost", "attempts": 3}
    assert (answered(world), world.ollama.tags, notices(world)) == (["base:1"], {}, ["run_failed"])
    check_leashed(world, attempts=3)
    check_handed_on(world, killed)


@pytest.mark.slow
def test_too_little_memory_while_merging_fails_the_run_and_the_next_one_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what training freed is not kept for the merge's blocks
    run = world.queue()
    with supervisors(world, 1, {"1-1": ["starve", "merge", "merge", 1]}) as (supervisor,):
        assert wait_for_end(world, run.id) is RunState.FAILED, said(world)
        failed = world.state(run)
        assert failed.error is not None
        assert failed.error["code"] == "out_of_memory", said(world)
        assert all(text(locale, "error.out_of_memory", **failed.error) for locale in LOCALES)
        assert (failed.stage, notices(world)) == ("merge", ["run_failed"])
        assert (answered(world), world.ollama.tags) == (["base:1"], {})
        left = {each.name for each in folder_of(world.home, run).iterdir()}
        assert "train.json" in left
        assert not left & {"merge.json", "candidate.gguf"}
        assert not [*world.home.rglob("*.part")]

        following = world.queue()
        assert wait_for_end(world, following.id) is RunState.RELEASED, said(world)
        assert supervisor.poll() is None
    assert answered(world) == ["base:1", world.tag()]
