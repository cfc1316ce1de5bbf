"""Runs a command that cannot outlive the process that started it, however that one ends. Run as a script.

    python -I leash.py PARENT_PID COMMAND …

The kernel sends the command SIGKILL when the *thread* that started it is gone, so start it from one that stays. What
the command starts itself is not on this leash. (Linux; a setuid command would slip it.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; kept across exec


def main(parent: str, *command: str) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the supervisor ended before its child began")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
