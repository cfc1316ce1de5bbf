"""A throw-away PostgreSQL from the machine's own binaries. Not a fake: where there are none, there is no server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

# It refuses to run as root.
AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return (
        Path(found).resolve().parent if found else next((each for each in folders if (each / "pg_ctl").exists()), None)
    )


@dataclass(frozen=True)
class Server:
    """One on a Unix socket in `home`, without durability."""

    binaries: Path
    home: Path

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.home}"

    def start(self) -> None:
        quick = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{self.home}' -c max_connections=50"
        self._run("pg_ctl", "-D", self.home / "data", "-w", "-o", quick, "-l", self.home / "log", "start")

    def stop(self, how: str = "immediate") -> None:
        """`immediate` is a crash; `fast` throws everybody out and ends in good order."""
        self._run("pg_ctl", "-D", self.home / "data", "-w", "-m", how, "stop")

    def initialise(self) -> None:
        self._run("initdb", "-D", self.home / "data", "-A", "trust", "-E", "UTF8", "-U", "postgres")

    def _run(self, name: str, *arguments: str | Path) -> None:
        command = [*AS_POSTGRES, str(self.binaries / name), *map(str, arguments)]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd="/")


@contextlib.contextmanager
def server() -> Iterator[Server | None]:
    """One that runs; None where no binaries are found."""
    binaries = _binaries()
    if binaries is None:
        yield None
        return
    # A Unix socket's path may have 107 bytes.
    make = [*AS_POSTGRES, "mktemp", "-d", "/tmp/huigan-pg-XXXXXX"]
    home = Path(subprocess.run(make, check=True, capture_output=True, text=True).stdout.strip())
    made = Server(binaries, home)
    try:
        made.initialise()
        made.start()
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may be stopped already
            made.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def database(server_url: str, template: str | None = None) -> Iterator[str]:
    """A fresh database of that server, empty or a copy of another one of its own, dropped afterwards."""
    name = f"huigan_{uuid.uuid4().hex[:12]}"
    base, _, query = server_url.partition("?")
    with psycopg.connect(server_url, autocommit=True) as connection:
        source = sql.Identifier(urlsplit(template).path[1:] if template else "template1")
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
    try:
        yield f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
