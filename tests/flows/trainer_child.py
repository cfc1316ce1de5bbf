"""The trainer's child as a process, which can be told to kill itself, as kill -9 does, at an exact point of its work.

python -m tests.flows.trainer_child DATABASE_URL RUN ATTEMPT HOME OLLAMA [STAGE WHAT [DONE]]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from huigan.serving.client import Ollama
from storage.db import connect
from trainer import child


class Dying(child.Teller):
    point: tuple[str, ...] = ()

    def __call__(self, stage: str, what: str, done: int, total: int) -> None:
        super().__call__(stage, what, done, total)
        if self.point and (stage, what, str(done))[: len(self.point)] == self.point:
            os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, run_id: str, attempt: str, home: str, host: str, *point: str) -> int:
    Dying.point = point
    child.Teller = Dying  # type: ignore[misc]
    db = connect(url)
    return child.main(db, int(run_id), int(attempt), Path(home), Ollama(host), threads=1, patience_seconds=2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
