"""The trainer's supervisor as a process, to be killed: its children are real, and come to harm as they are told.

python -m tests.flows.trainer_supervisor DATABASE_URL HOME OLLAMA HARM

HARM is JSON: for an attempt ("RUN-ATTEMPT") what `tests.flows.trainer_child` is told after the five things it needs.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from storage.db import connect
from storage.records import Run
from trainer import supervisor

PACE = supervisor.Pace(tick_seconds=0.2, lost_after_seconds=1.5, grace_seconds=5.0)


def main(url: str, home: str, host: str, harm: str) -> None:
    told: dict[str, list[str]] = json.loads(harm)

    def command(run: Run) -> list[str]:
        where = [url, str(run.id), str(run.attempt), home, host]
        harmed = told.get(f"{run.id}-{run.attempt}", [])
        return [sys.executable, "-m", "tests.flows.trainer_child", *where, *harmed]

    logging.basicConfig(level=logging.INFO)
    supervisor.main(connect(url), command, Path(home) / "logs", pace=PACE)


if __name__ == "__main__":
    main(*sys.argv[1:])
