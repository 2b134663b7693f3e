"""WebSockets of the HTTP port: uvicorn's protocol on websockets' core, with limits as calls need them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from bridge.endpoints.listening import SEND_BUFFER_BYTES

MOST: Final = 128
"""WebSockets at the same time. Without the right to call they last for a moment; calls have other limits."""
CLOSE_S: Final = 2.0
"""From our close frame to the client's; then the connection is cut."""
PING_S: Final = 20.0
"""Between two pings, and for the answer to one: a client that is gone without a word is noticed."""

log = structlog.get_logger(__name__)


class Socket(WebSocketsSansIOProtocol):
    """One WebSocket. Little of what is said waits in it: sound that is late is not worth having."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_S
        # "connection: close" is for requests; here the header says "upgrade".
        self.default_headers = [each for each in self.default_headers if each[0].lower() != b"connection"]

    def connection_made(self, transport: Any) -> None:
        """The connection has become a WebSocket."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        if sum(isinstance(each, Socket) for each in self.connections) > MOST:
            log.warning("http.connection_closed", reason="too_many_websockets", peer=str(self.client))
            transport.abort()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is through; who reads nothing would hold the connection open for ever."""
        super().on_task_complete(task)
        self.loop.call_later(CLOSE_S, self.transport.abort)
