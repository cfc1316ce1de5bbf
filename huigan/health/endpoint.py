"""/metrics, /health and /ready over HTTP. Reads only, and tells no text of anybody's.

/health is this process's: 200 while it shows signs of life, so that a container that is stuck can be seen. /ready is
200 where it can do its work too: the database answers and has the right tables.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError

from huigan.health.signs import Signs
from storage.db import Database
from storage.migrations import is_current

logger = logging.getLogger(__name__)

SLOW_SECONDS = 10.0  # for a request to be written, by whoever asks

Answer = tuple[HTTPStatus, str, bytes]


@contextlib.contextmanager
def served(host: str, port: int, answers: Callable[[str, str], Answer]) -> Iterator[int | None]:
    """`answers` a path and an Accept header. The port; None where it is taken: the process works all the same."""

    class Handler(BaseHTTPRequestHandler):
        timeout = SLOW_SECONDS

        def do_GET(self) -> None:
            status, kind, body = answers(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Every few seconds somebody asks: no log is made of it."""

    try:
        server = ThreadingHTTPServer((host.strip("[]"), port), Handler)
    except OSError as error:
        logger.warning(
            "nothing is told at %s:%d (%s): set HUIGAN_HEALTH_LISTEN to a free port", host, port, error.strerror
        )
        yield None
        return
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def answering(db: Database, signs: Signs, metrics: CollectorRegistry, process: str) -> Callable[[str, str], Answer]:
    def answer(path: str, accept: str) -> Answer:
        if path == "/metrics":
            encode, kind = choose_encoder(accept)
            return HTTPStatus.OK, kind, encode(metrics)
        if path not in {"/health", "/ready"}:
            return _told(HTTPStatus.NOT_FOUND, "unknown_path", process)
        if not signs.is_alive:
            return _told(HTTPStatus.SERVICE_UNAVAILABLE, "stuck", process)
        lacks = _lacks(db) if path == "/ready" else None
        return _told(HTTPStatus.SERVICE_UNAVAILABLE if lacks else HTTPStatus.OK, lacks or "ok", process)

    return answer


def _lacks(db: Database) -> str | None:
    try:
        return None if is_current(db) else "not_migrated"
    except SQLAlchemyError:
        return "no_database"


def _told(status: HTTPStatus, code: str, process: str) -> Answer:
    return status, "application/json", json.dumps({"status": code, "process": process}).encode() + b"\n"
