"""kill -9 of the trainer's child in every stage: it goes on where it was, and ends with the same file and verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.records import RunState
from tests.fakes.ollama import FakeOllama
from tests.trainer.world import World, counting_ollama, tiny_base
from trainer.child import DONE

KILLED = -9
POINTS: list[tuple[object, ...]] = [  # stage, what, and how much of it is done
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def ollama(tiny: Path) -> Iterator[FakeOllama]:
    with counting_ollama(tiny) as fake:
        yield fake


@pytest.fixture
def make(tmp_path: Path, tiny: Path, ollama: FakeOllama) -> Iterator[Callable[[str], World]]:
    made: list[World] = []

    def world(name: str) -> World:
        (tmp_path / name).mkdir()
        made.append(World(tmp_path / name, tiny, ollama, from_gguf=True))
        return made[-1]

    yield world
    for each in made:
        each.db.close()


@pytest.mark.slow
def test_a_run_killed_at_every_point_ends_as_one_that_was_left_alone(make: Callable[[str], World]) -> None:
    alone, killed = make("alone"), make("killed")
    quiet, run = alone.enqueue(), killed.enqueue()
    with ThreadPoolExecutor(1) as beside:
        undisturbed = beside.submit(alone.child, quiet)
        for point in POINTS:
            assert killed.child(run, *point) == KILLED, (point, killed.said)
            assert killed.tag() == "base:1"
            run = killed.hand_on(run)
        assert killed.child(run) == DONE, killed.said
        assert undisturbed.result() == DONE, alone.said

    assert {alone.state(quiet).state, killed.state(run).state} == {RunState.RELEASED}
    one, other = alone.artefact(quiet), killed.artefact(run)
    assert one.sha256 == other.sha256 is not None
    assert one.verdict == other.verdict
    assert one.scorecard == other.scorecard
    assert alone.tag() == killed.tag() != "base:1"
    (whole,), (resumed,) = ([*(each.home / "bases").glob("*.f16.gguf")] for each in (alone, killed))
    assert whole.read_bytes() == resumed.read_bytes()
    assert not [*killed.home.rglob("*.part")]
    (report,) = killed.home.rglob("report.html")
    assert "https://" not in report.read_text().replace("http://www.w3.org", "")
