"""The HTTP side: `/bot<token>/<method>` and `/file/bot<token>/<path>`, as one ASGI application on a free loopback port.
Knows no method's meaning; getUpdates is here because it waits."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from . import account, media
from .calls import Call, Params, read_params
from .faults import Fault
from .refusals import OTHER_POLLER, WEBHOOK_ACTIVE, WEBHOOK_SET_MEANWHILE, Refusal, unknown_method

if TYPE_CHECKING:
    from .fake import FakeTelegram

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

TOKEN_SHAPE = re.compile(r"\d{1,20}:[A-Za-z0-9_-]{20,}")
LONGEST_POLL_SECONDS = 50


class Wire:
    def __init__(self, fake: FakeTelegram) -> None:
        self._fake = fake
        self._polls = 0

    async def serve(self, listening: socket.socket, started: threading.Event, stop: asyncio.Event) -> None:
        """Until told to stop. uvicorn's own Server would look only every 100 ms whether it should."""
        config = uvicorn.Config(self, http=H11Protocol, lifespan="off", log_config=None, log_level="critical")
        config.load()
        protocol = functools.partial(H11Protocol, config=config, server_state=ServerState(), app_state={})
        server = await asyncio.get_running_loop().create_server(protocol, sock=listening)
        deliveries = asyncio.create_task(self._fake.webhook.deliver())
        started.set()
        await stop.wait()
        server.close()
        await deliveries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read_body(receive)
            if body is not None:
                await self._route(scope, body, receive, send)
        except Exception as fault:
            self._fake.crashes.append(fault)  # told when the fake stops: uvicorn only answers 500
            raise

    async def _route(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        path = re.fullmatch(r"/(file/)?bot([^/]+)/(.+)", scope["path"])
        if not path or not TOKEN_SHAPE.fullmatch(path.group(2)):
            await _answer(send, 404, Refusal(404, "Not Found").as_json())
        elif path.group(2) != self._fake.token:
            await _answer(send, 401, Refusal(401, "Unauthorized").as_json())
        elif path.group(1):
            await self._send_file(path.group(3), send)
        else:
            await self._call(path.group(3), scope, body, receive, send)

    async def _send_file(self, path: str, send: Send) -> None:
        file = next((file for file in self._fake.files.values() if file.path == path), None)
        if file is None or self._fake.local_files is not None:
            await _answer(send, 404, Refusal(404, "Not Found").as_json())
        else:
            await _respond(send, 200, file.mime_type, file.content)

    async def _call(self, method: str, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        call = Call(method, {}, self._fake.clock.now())
        fault = self._fake.fault_for(method)
        if fault and fault.delay_seconds and not fault.after_effect:
            await asyncio.sleep(fault.delay_seconds)
        answer: dict[str, Any] | None = None
        try:
            params = read_params(scope["query_string"].decode(), headers.get("content-type", ""), body)
            call.params = params.for_tests()
            if fault is None or fault.after_effect or not (fault.drops or fault.status):
                answer = await self._carry_out(call, params, receive)
        except Refusal as refusal:
            answer = refusal.as_json()
        await self._finish(call, fault, answer, receive, send)

    async def _carry_out(self, call: Call, params: Params, receive: Receive) -> dict[str, Any] | None:
        """The answer; None if whoever asked is gone."""
        if call.method.lower() == "getupdates":
            return await self._unless_gone(self._get_updates(params), receive)
        function = media.METHODS.get(call.method.lower())
        if function is None:
            raise unknown_method()
        with self._fake.changing():
            call.result = function(self._fake, params)
            call.took_effect = True
        return {"ok": True, "result": call.result}

    async def _finish(
        self, call: Call, fault: Fault | None, answer: dict[str, Any] | None, receive: Receive, send: Send
    ) -> None:
        html = None
        if fault is not None:
            call.injected = bool(fault.status or fault.drops)
            html = fault.html()
            answer = fault.refusal().as_json() if fault.status else answer
        if answer is None or (fault is not None and fault.drops):
            self._fake.record(call)
            await _hang_up(receive)
            return
        call.status = answer.get("error_code", 200)
        call.description = str(answer.get("description", ""))
        self._fake.record(call)
        if fault is not None and fault.after_effect:
            await asyncio.sleep(fault.delay_seconds)
        if html is not None:
            await _respond(send, call.status, "text/html", html.encode())
        else:
            await _answer(send, call.status, answer)

    async def _get_updates(self, params: Params) -> dict[str, Any]:
        """Long polling: a second poll ends the first with a conflict, as does a webhook."""
        if self._fake.webhook.url:
            raise Refusal(409, WEBHOOK_ACTIVE)
        account.note_allowed_updates(self._fake, params)
        self._polls += 1
        mine = self._polls
        self._fake.wake()
        ends_at = time.monotonic() + min(max(params.integer("timeout"), 0), LONGEST_POLL_SECONDS)
        while True:
            with self._fake.lock:
                found = self._fake.updates.read(params.integer("offset"), params.integer("limit", 100))
            remaining_seconds = ends_at - time.monotonic()
            if found or remaining_seconds <= 0 or self._fake.is_stopping:
                return {"ok": True, "result": found}
            await self._fake.changed(remaining_seconds)
            if self._fake.webhook.url:
                raise Refusal(409, WEBHOOK_SET_MEANWHILE)
            if mine != self._polls:
                raise Refusal(409, OTHER_POLLER)

    async def _unless_gone(self, polling: Awaitable[dict[str, Any]], receive: Receive) -> dict[str, Any] | None:
        poll, gone = asyncio.ensure_future(polling), asyncio.ensure_future(receive())
        try:
            await asyncio.wait({poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            return poll.result() if poll.done() else None
        finally:
            poll.cancel()
            gone.cancel()


async def _read_body(receive: Receive) -> bytes | None:
    """None if whoever was sending it died meanwhile."""
    chunks, more = list[bytes](), True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        chunks.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(chunks)


async def _answer(send: Send, status: int, answer: dict[str, Any]) -> None:
    await _respond(send, status, "application/json", json.dumps(answer, ensure_ascii=False).encode())


async def _respond(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _hang_up(receive: Receive) -> None:
    """Close the connection without a byte. ASGI has no word for it: `receive` is a method of uvicorn's own object."""
    receive.__self__.transport.abort()  # type: ignore[attr-defined]
    while (await receive())["type"] != "http.disconnect":
        pass
