"""The trainer's child as a process, which can be told to come to harm at an exact point of its work.

python -m tests.flows.trainer_child DATABASE_URL RUN ATTEMPT HOME OLLAMA [die|orphan|starve STAGE WHAT [DONE]]

`die` kills itself, as kill -9 does; `orphan` kills its supervisor so, and goes no further; `starve` gets no more memory
than it has at that point.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from huigan.serving.client import Ollama
from storage.db import connect
from tests.trainer.processes import is_gone
from trainer import child

LEFT_BYTES = 128 * 1024  # to record what happened; less than a block of the merge takes


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def orphan() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # as a long step does that does not look around


def starve() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + LEFT_BYTES, resource.RLIM_INFINITY))


ACTS: dict[str, Callable[[], None]] = {"die": die, "orphan": orphan, "starve": starve}


class Harmed(child.Teller):
    harm: tuple[str, ...] = ()  # an act, and the point where it comes

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        super().__call__(stage, what, done, total)
        act, *where = self.harm or ("",)
        if where and [stage, what, str(done)][: len(where)] == where:
            ACTS[act]()


def leave_a_trace(folder: Path, name: str) -> None:
    """Our process id, and those of earlier children that are still there. Raises where this attempt had a child."""
    folder.mkdir(exist_ok=True)
    earlier = [each.read_text().split()[0] for each in folder.iterdir()]
    with (folder / name).open("x") as trace:
        trace.write(" ".join([str(os.getpid()), *(each for each in earlier if not is_gone(int(each)))]))


def main(url: str, run_id: str, attempt: str, home: str, host: str, *harm: str) -> int:
    leave_a_trace(Path(home).with_name("children"), f"{run_id}-{attempt}")
    Harmed.harm = harm
    child.Teller = Harmed  # type: ignore[misc]
    db = connect(url)
    return child.main(db, int(run_id), int(attempt), Path(home), Ollama(host), threads=1, patience_seconds=2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
