"""What the cells start from, made once: a migrated database, a random two-layer Llama, a run that was left alone, and
copies of a run as it was at the beginning of every stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from storage import artefacts, runs
from storage.db import connect
from storage.migrations import upgrade
from storage.records import Run, RunState
from tests.faults.attempts import begun
from tests.faults.invariants import Ended
from tests.trainer.world import World, counting_ollama, tiny_base
from trainer.child import DONE
from trainer.pipeline import STAGES

KILLED = -9


@dataclass
class Grounds:
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)  # that a stage took

    @cached_property
    def migrated(self) -> Path:
        file = self.folder / "migrated.db"
        opened = connect(f"sqlite:///{file}")
        upgrade(opened)
        opened.close()
        return file

    @cached_property
    def tiny(self) -> Path:
        return tiny_base(self.folder / "tiny")

    @cached_property
    def stages(self) -> dict[str, Path]:
        """A world by stage, whose only run was killed as that stage began; and "end", which was left alone."""
        with counting_ollama(self.tiny) as ollama:
            world = World(_made(self.folder / "growing"), self.tiny, ollama, from_gguf=True)
            run, found = world.enqueue(), dict[str, Path]()
            for stage in STAGES:
                started = time.monotonic()
                assert begun(world, run, dies_at=stage).wait() == KILLED, said_in(world)
                self.seconds[stage] = time.monotonic() - started
                world.db.engine.dispose()
                found[stage] = self.folder / f"at-{stage}"
                shutil.copytree(world.folder, found[stage])
                run = world.hand_on(run)
            world.db.close()
        # What a kill is timed by is the stage that follows its beginning.
        took = [self.seconds[stage] for stage in STAGES]
        self.seconds = dict(zip(STAGES, [*took[1:], took[-1]], strict=True))
        return found

    @cached_property
    def alone(self) -> Ended:
        """A run that was left alone."""
        with self.opened("dataset", self.folder / "alone") as (world, run):
            assert begun(world, run).wait() == DONE, said_in(world)
            return ended(world, run)

    @contextmanager
    def opened(self, stage: str, folder: Path) -> Iterator[tuple[World, Run]]:
        """A copy of the world as the stage begins, its run claimed anew, beside an Ollama of its own."""
        source = self.stages[stage]
        shutil.copytree(source, folder, dirs_exist_ok=True)
        for path in folder.rglob("*.json"):
            if path.name == "adapter_config.json":
                continue  # sealed; and the weights that it names are still there
            for before in (self.folder / "growing", source):
                path.write_text(path.read_text().replace(str(before), str(folder)))
        with counting_ollama(self.tiny) as ollama:
            ollama.add("base:1")
            world = World(folder, self.tiny, ollama, from_gguf=True)
            try:
                yield world, world.hand_on(world.db.read(runs.newest)[0])
            finally:
                world.db.close()


def ended(world: World, run: Run) -> Ended:
    known = world.state(run)
    assert known.state is RunState.RELEASED, (known.state, known.error, said_in(world))
    found = world.db.read(artefacts.of_run, run.id)
    assert found is not None
    return Ended(found.sha256, found.verdict, found.scorecard)


def said_in(world: World) -> str:
    log = world.folder / "attempts.log"
    return log.read_text()[-3000:] if log.exists() else ""


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
