"""What stands before every route: who may ask, how much, how slowly; and what every answer carries and is logged as."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msmae.serve.limits import Limits, Refused
from msmae.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("msmae.serve")
OPEN = ("/", "/health", "/page.css", "/page.js", "/views.js", "/answer.js", "/strings.js", "/icon.svg")
"""Paths without a token: the page itself, in which there is nothing, and the health."""
KNOWN = (*OPEN, "/model", "/predict", "/embed", "/metrics", "/openapi.json")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class Guard:
    """ASGI middleware. ``token`` None: none is asked for, and only names of this machine are answered to."""

    def __init__(self, app: App, *, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.token = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        path = scope["path"] if scope["path"] in KNOWN else "other"
        upload = Upload(receive, self.limits)

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        async def until_refused(message: Message) -> None:
            if upload.refused is None:  # else the app makes something of a body that was cut
                await marked(message)

        self.metrics.in_flight += 1
        try:
            self.check(scope)
            await self.app(scope, upload, until_refused)
            if upload.refused is not None and status == 0:
                raise upload.refused
        except Refused as refused:
            if status == 0:
                await answer(marked, refused)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a fault of the server")
            if status == 0:
                await answer(marked, Refused(500, "fault", "the server made a mistake; its log says which"))
        finally:
            self.metrics.in_flight -= 1
            seconds = time.perf_counter() - started
            self.metrics.request(path, status, seconds)
            log.info("%s %s %d %.0f ms", scope["method"], path, status, 1000 * seconds)

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Raise Refused for who may not ask, and for what is too much by its own account."""
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        host = headers.get("host", b"").decode("latin-1")
        origin = headers.get("origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            raise Refused(403, "elsewhere", "another site's page may not ask")
        if self.token is None and host.rsplit(":", 1)[0] not in LOOPBACK and host not in LOOPBACK:
            raise Refused(403, "elsewhere", "ask this server by the name 127.0.0.1 or localhost")
        if self.token is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", b"")
            if not hmac.compare_digest(given, self.token):
                raise Refused(401, "token", "this server asks for its token")
        if self.metrics.in_flight > self.limits.waiting and scope["path"] not in OPEN:
            raise Refused(503, "busy", "the server is busy: ask again in a moment")
        length = headers.get("content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.upload:
            raise too_large(self.limits)


class Upload:
    """``receive`` of a request that raises Refused for too many bytes, and for a body that comes too slowly."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.receive, self.limits = receive, limits
        self.taken, self.deadline, self.ended = 0, time.monotonic() + limits.sending, False
        self.refused: Refused | None = None

    async def __call__(self) -> Message:
        """The next message."""
        if self.ended:  # only whether the client is still there
            return await self.receive()
        try:
            wait = min(self.limits.silence, self.deadline - time.monotonic())
            message = await asyncio.wait_for(self.receive(), max(0.0, wait))
        except asyncio.TimeoutError:
            raise self.refuse(Refused(408, "slow", "the upload came too slowly")) from None
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)
            if self.taken > self.limits.upload:
                raise self.refuse(too_large(self.limits))
        return message

    def refuse(self, refused: Refused) -> Refused:
        """Keep the reason: a framework between may turn the exception into one of its own."""
        self.refused = refused
        return refused


def too_large(limits: Limits) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(413, "too_large", f"the files are larger than {limits.upload / 2**20:.0f} MB together")


async def answer(send: Send, refused: Refused) -> None:
    """One sentence as JSON; the connection is closed where a body may still be coming."""
    body = json.dumps(problem(refused), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if refused.status in (408, 413) else []
    headers += [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
    headers += [(b"retry-after", b"1")] if refused.status == 503 else []
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problem(refused: Refused) -> dict[str, Any]:
    """A refusal as the API gives it."""
    files = [{"index": index, "name": name, "reason": reason} for index, name, reason in refused.files]
    return {"code": refused.code, "error": refused.sentence, "files": files}
