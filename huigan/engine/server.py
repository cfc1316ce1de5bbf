"""Puts library, runners and app together and serves them until told to stop. The one place with defaults."""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import socket
from pathlib import Path

import uvicorn

from huigan.engine import app, guard
from huigan.engine.library import Library
from huigan.engine.runners import Runners

log = logging.getLogger(__name__)

_GRACE_SECONDS = 3
_MOST_BODY_BYTES = 32 << 20  # far more than any context holds; only blobs are larger, and go to the disk
_UNLIMITED_CORES = 1 << 16


def serve(
    host: str,
    port: int,
    models: Path,
    *,
    max_loaded: int = 3,
    parallel: int = 2,
    max_queue: int = 512,
    keep_alive_seconds: float = 300.0,
    threads: int | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `port` 0 takes a free one, and the log says which. Raises OSError."""
    library = Library(models)
    library.prune()
    runners = Runners(
        max_loaded=max_loaded, parallel=parallel, max_queue=max_queue, keep_alive_seconds=keep_alive_seconds
    )
    api: guard.App = guard.cancel_on_disconnect(
        guard.bounded(app.build(library, runners, threads or physical_cores()), _MOST_BODY_BYTES, "/api/blobs/")
    )
    if is_loopback(host):
        api = guard.local_only(api)
    # httpx writes a line a token at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        api,
        log_config=None,
        access_log=False,
        lifespan="on",
        http="h11",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    with socket.create_server((host, port), family=_family(host), backlog=512) as listener:
        # asyncio sets it on sockets of its own making only; without it each answer's first lines wait 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        log.info("listening on http://%s:%d, models in %s", host, listener.getsockname()[1], models)
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once: llama.cpp gets slower with more threads than these."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = [Path(topology.format(cpu)) for cpu in allowed]
    siblings = {file.read_text() if file.exists() else file.as_posix() for file in files}
    return max(1, min(len(siblings), _cpu_quota()))


def _cpu_quota() -> int:
    """How many cores' worth of time a container may use; without a limit, more than there are."""
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
    return _UNLIMITED_CORES if quota == "max" else math.ceil(int(quota) / int(period))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
