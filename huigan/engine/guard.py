"""What stands between the network and the app: who may ask, and the end of work nobody waits for. Plain ASGI."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def local_only(app: App) -> App:
    """Refuse requests that a web page elsewhere made a local browser send, by DNS rebinding or by plain forgery."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        hosts = [f"//{headers.get(b'host', b'').decode('latin-1')}"]
        if b"origin" in headers:
            hosts.append(headers[b"origin"].decode("latin-1"))
        if scope["type"] == "http" and not all(_is_local(host) for host in hosts):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    return guarded


def _is_local(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").lower()
        if host in ("", "localhost") or host.endswith((".localhost", ".local", ".internal")):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


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
