"""What every request is held to, whatever it asks for: its size and time, and the headers of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.http.access import Access
from bridge.http.description import Methods
from bridge.http.problems import Problem

MAX_BODY_BYTES: Final = 256 * 1024
"""Of a body. A MiB of JSON, all of it brackets, would hold up every call while it is read."""
MAX_UPLOAD_BYTES: Final = 10 * 1024 * 1024
"""Of a file to be imported."""
MAX_QUERY_BYTES: Final = 4096
BODY_S = 10.0
"""For a body to come."""
UPLOAD_S = 60.0
"""Likewise, of a file."""
ANSWER_S = 30.0
"""Until an answer begins, from the end of the body on."""
UPLOAD_PATHS: Final = ("/import", "/directory")
"""How the paths end that take whole directories."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=()",
    # With "no-referrer" browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer, where a resource has not set its own."""
STRICT_TRANSPORT: Final = "max-age=31536000"

log = structlog.get_logger(__name__)


class Bounds:
    """ASGI around the whole application.

    Args:
        access: who may ask; whatever is mounted finds it in the scope.
        methods: which there are of each path.
    """

    def __init__(self, app: ASGIApp, access: Access, methods: Methods) -> None:
        self._app = app
        self._access = access
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        scope["porteiro.access"] = self._access
        scope["porteiro.methods"] = self._methods
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ends: list[Callable[[], None]] = []
        scope["porteiro.ends"] = ends
        exchange = _Exchange(scope, receive, send)
        try:
            exchange.check_head()
            await exchange.run(self._app)
        except Problem as problem:
            await problem.answer()(scope, receive, exchange.send)
        finally:
            for end in ends:
                end()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = scope["path"].endswith(UPLOAD_PATHS)
        self._scope, self._receive, self._send = scope, receive, send
        self._most_bytes = MAX_UPLOAD_BYTES if upload else MAX_BODY_BYTES
        self._body_s = UPLOAD_S if upload else BODY_S
        self._bytes = 0
        self._whole = False
        self._begun = False
        loop = asyncio.get_running_loop()
        self._body_until = loop.time() + self._body_s
        self._answer: asyncio.Timeout | None = None

    def check_head(self) -> None:
        """Raises :class:`Problem` for what the head alone shows."""
        length = len(self._scope["query_string"])
        if length > MAX_QUERY_BYTES:
            raise Problem(414, f"found a query of {length} bytes; allowed are {MAX_QUERY_BYTES}")
        for name, value in self._scope["headers"]:
            # h11 has made sure that these are digits; twenty of them are too large in any case.
            if name == b"content-length" and int(value[:20]) > self._most_bytes:
                raise self._too_large()

    async def run(self, app: ASGIApp) -> None:
        """Have it answered. Raises :class:`Problem` where no answer began in time."""
        try:
            async with asyncio.timeout(self._body_s + ANSWER_S) as self._answer:
                await app(self._scope, self.receive, self.send)
        except TimeoutError:
            if self._begun or self._answer is None or not self._answer.expired():
                raise
            log.error("http.no_answer", path=self._scope["path"], method=self._scope["method"])
            raise Problem(503, f"found no answer within {ANSWER_S:g} s; allowed: again, later") from None

    async def receive(self) -> Message:
        """ASGI's; bounded while the body comes."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._body_until):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                408, f"found {self._bytes} bytes of a body; allowed are {self._body_s:g} s for it"
            ) from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > self._most_bytes:
                raise self._too_large()
            self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """ASGI's; with our headers."""
        if message["type"] == "http.response.start":
            self._begun = True
            if self._answer is not None:
                self._answer.reschedule(None)
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._scope["scheme"] == "https":
                headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT)
        await self._send(message)

    def _too_large(self) -> Problem:
        return Problem(
            413, f"found a body of more than {self._most_bytes} bytes; allowed are {self._most_bytes}"
        )
