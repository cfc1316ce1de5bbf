"""What stands between the network and the app: who may ask, and the end of work nobody waits for. Plain ASGI."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from huigan.engine.errors import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def local_only(app: App) -> App:
    """Refuse requests that a web page elsewhere made a local browser send, by DNS rebinding or by plain forgery."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        host = f"//{headers.get(b'host', b'').decode('latin-1')}"
        origin = headers.get(b"origin", b"http://localhost").decode("latin-1")
        if scope["type"] == "http" and not (_is_local(host) and _is_of_this_machine(origin)):
            await _refuse(send, 403)
        else:
            await app(scope, receive, send)

    return guarded


def bounded(app: App, most_bytes: int, unbounded: str) -> App:
    """Refuse bodies that are larger, but for paths that begin with `unbounded`: those are written as they come."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(unbounded):
            await app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most_bytes:
                raise ApiError(413, f"http: request body too large, more than {most_bytes >> 20} MiB")
            return message

        await app(scope, counted, send)

    return guarded


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _is_local(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").lower()
        if host in ("", "localhost") or host.endswith((".localhost", ".local", ".internal")):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def _is_of_this_machine(origin: str) -> bool:
    """Whether a page from there may ask: not one of the network's other machines, nor one without an origin ("null"),
    such as a frame that any page can make."""
    try:
        parts = urlsplit(origin)
        host = (parts.hostname or "").lower()
        if parts.scheme in ("http", "https") and (host == "localhost" or host.endswith(".localhost")):
            return True
        return parts.scheme in ("http", "https") and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cancel_on_disconnect(app: App) -> App:
    """Cancel a request's work as soon as its client is gone, even before there is anything to send."""

    async def watched(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        whole = asyncio.Event()
        ended = asyncio.Event()

        async def body() -> Message:
            if whole.is_set():
                await ended.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                whole.set()
            return message

        async def disconnected() -> None:
            await whole.wait()
            while (await receive())["type"] != "http.disconnect":
                pass
            ended.set()

        work, watch = asyncio.ensure_future(app(scope, body, send)), asyncio.create_task(disconnected())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                work.cancel()
            watch.cancel()
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
        if isinstance(outcome, Exception) and not isinstance(outcome, ClientDisconnect):
            raise outcome

    return watched
