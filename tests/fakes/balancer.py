"""What stands before several bots with one webhook: passes each call on to the next of them that answers."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Balancer:
    """In turn; `only` names the one that gets everything from now on."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.only: int | None = None
        self.passed: list[int] = []  # the port that each call was answered by
        self._turns = itertools.count()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/telegram"

    @contextlib.contextmanager
    def running(self) -> Iterator[Balancer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="balancer", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(timeout=10)

    def pass_on(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """The status of the first that answers; 502 where none does."""
        with self._lock:
            first = next(self._turns)
        for number in range(len(self.ports)):
            port = self.only or self.ports[(first + number) % len(self.ports)]
            try:
                status = httpx.post(f"http://127.0.0.1:{port}{path}", content=body, headers=headers).status_code
            except httpx.HTTPError:
                continue
            self.passed.append(port)
            return status
        return 502

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        balancer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept = ("content-type", "x-telegram-bot-api-secret-token")
                headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
                self.send_response(balancer.pass_on(self.path, body, headers))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """The calls are in `passed`."""

        return Handler
