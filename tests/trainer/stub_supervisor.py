"""A supervisor as a process, to be signalled and killed: its children are stubs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.db import connect
from storage.records import Run
from trainer import supervisor

STUB = Path(__file__).with_name("stub_child.py")


def main(act: str, url: str, folder: str) -> None:
    def command(run: Run) -> list[str]:
        return [sys.executable, str(STUB), act, url, str(run.id), str(run.attempt), folder]

    pace = supervisor.Pace(tick_seconds=0.05, lost_after_seconds=2.0, grace_seconds=5.0)
    supervisor.main(connect(url), command, Path(folder) / "logs", pace=pace)


if __name__ == "__main__":
    main(*sys.argv[1:])
