"""A throw-away PostgreSQL from the machine's own binaries. Not a fake: where there are none, there is no server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return (
        Path(found).resolve().parent if found else next((each for each in folders if (each / "pg_ctl").exists()), None)
    )


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str | None]:
    """Start one on a Unix socket in `folder`, without durability; None where no binaries are found."""
    binaries = _binaries()
    if binaries is None:
        yield None
        return
    # PostgreSQL refuses to run as root, and a Unix socket's path may have 107 bytes.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    home = Path(
        subprocess.run(
            [*as_user, "mktemp", "-d", "/tmp/huigan-pg-XXXXXX"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    data = home / "data"
    quick = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{home}' -c max_connections=50"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    start = [binaries / "pg_ctl", "-D", data, "-w", "-o", quick, "-l", home / "log", "start"]
    try:
        for command in ([binaries / "initdb", "-D", data, "-A", "trust", "-E", "UTF8", "-U", "postgres"], start):
            subprocess.run([*as_user, *map(str, command)], check=True, capture_output=True, env=environment, cwd="/")
        yield f"postgresql://postgres@/postgres?host={home}"
    finally:
        stop = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd="/")
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
