"""A run's child without training: a script that does what its first argument says."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage import runs
from storage.db import connect
from storage.records import RunState
from trainer import HANDED_BACK


def main(act: str, url: str, run_id: int, attempt: int, folder: Path) -> None:
    trace = folder / f"{run_id}-{attempt}"
    trace.write_text(str(os.getpid()))
    if act == "succeed":
        move = connect(url).write
        move(runs.move, run_id, attempt, RunState.RUNNING, RunState.BUILT, datetime.now(UTC))
    elif act == "slow":
        time.sleep(1)
        connect(url).write(runs.move, run_id, attempt, RunState.RUNNING, RunState.BUILT, datetime.now(UTC))
    elif act == "clean_up":
        connect(url).write(runs.move, run_id, attempt, RunState.RUNNING, RunState.BUILT, datetime.now(UTC))
        time.sleep(1)
        trace.with_suffix(".clean").touch()
    elif act == "crash":
        raise ValueError("what a person wrote")
    elif act == "starve":
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        bytearray(2**31)
    elif act == "hand_back":
        sys.exit(HANDED_BACK)
    elif act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trace.with_suffix(".ready").touch()
        time.sleep(600)
    elif act == "parent":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        trace.with_suffix(".grandchild").write_text(str(grandchild.pid))
        time.sleep(600)
    elif act == "sleep":
        time.sleep(600)
    # "nothing": ends without a word


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
