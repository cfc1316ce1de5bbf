"""Processes to be killed, forked from one that has imported what all of them need: so that a hundred of them take
minutes and no hour. Each is a session of its own and writes to a log; what kills it is SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.trainer.world import ENVIRONMENT
from trainer import CHILD_ENVIRONMENT

PATIENCE_SECONDS = 300.0
WARM = ["tests.faults.warm"]


class Fork:
    """As `subprocess.Popen`, as far as it goes."""

    def __init__(self, log: Path, main: Callable[..., int | None], *told: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(WARM)
        self._process = context.Process(target=go, args=(str(log), main, told))
        before = {name: os.environ.get(name) for name in {**CHILD_ENVIRONMENT, **ENVIRONMENT}}
        os.environ.update({**CHILD_ENVIRONMENT, **ENVIRONMENT})  # the server that forks is started with the first one
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        self.pid = int(self._process.pid or 0)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        """As the kernel does: itself first, and what it started only where nobody else would end that."""
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self._process.exitcode

    def killed(self) -> bool:
        """With what it started. False where it had ended."""
        self.kill()
        code = self.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return code == -signal.SIGKILL


def go(log: str, main: Callable[..., int | None], told: tuple[Any, ...]) -> None:
    os.setsid()
    sink = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    raise SystemExit(main(*told) or 0)


def soon(holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether it came to hold."""
    ends_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.02)
    return True
