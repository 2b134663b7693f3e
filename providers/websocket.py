"""A WebSocket to a realtime model without tasks: a message is sent by a plain call, and one comes by another.

websockets opens it (address, proxy, TLS, handshake) and speaks the protocol; left out is its
asyncio side, where each message that comes or goes wakes a task. What that costs, `python -m bench.sockets`
says. Nothing of any provider is in here.

A proxy of the environment is used as websockets does (``http``, ``https``), but never towards our own
machine. SOCKS needs python-socks, which is not installed: such a proxy is an error that says so.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHeader, InvalidStatus, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State

try:
    from websockets.speedups import apply_mask
except ImportError:  # where nobody has compiled it
    from websockets.utils import apply_mask

log = structlog.stdlib.get_logger(__name__)

_KEY_HEADERS = frozenset({"authorization", "api-key", "x-goog-api-key", "xi-api-key"})
"""In which we say who we are, in small letters."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited, in seconds, and how much is taken, in bytes.

    Attributes:
        open_s: from the first packet to the end of the handshake.
        close_s: for the server's part of the closing handshake; then the connection is cut.
        stall_s: how long the server may take nothing of what waits to be sent.
        ping_s: how often the server is pinged; one that then sends nothing for as long again is gone. None:
            never, for servers that answer too late to be judged by it.
        message: the longest message.
    """

    open_s: float = 5.0
    close_s: float = 2.0
    stall_s: float = 5.0
    ping_s: float | None = 20.0
    message: int = 16 * 1024 * 1024


class Listener(Protocol):
    """Who uses a socket. The calls come from the event loop, one after the other, and must not raise."""

    def opened(self, socket: WebSocket) -> None:
        """The handshake is done: the first call. Where it fails, there is none."""

    def received(self, message: bytes) -> None:
        """A whole message; one of text is valid UTF-8."""

    def writable(self) -> None:
        """:attr:`WebSocket.writable` is True again."""

    def lost(self, closed: ConnectionClosed) -> None:
        """The connection is over, by whomever: the last call. See :func:`why`."""


_SHORT, _LONG, _LONGEST = struct.Struct("!BB4s"), struct.Struct("!BBH4s"), struct.Struct("!BBQ4s")
"""A client's frame up to its payload: opcode, length in one of three widths, key (RFC 6455, 5.2)."""
_FINAL, _MASKED = 0x80, 0x80
_KEYS = 64
"""So many keys are asked of the system at once: a system call a message costs as much as masking it."""


class Keys:
    """What a client masks its frames with: nobody can foretell the next one (RFC 6455, 5.3)."""

    def __init__(self) -> None:
        self._drawn = b""
        self._used = 0

    def next(self) -> bytes:
        """Four bytes of the system's randomness that were never given before."""
        used = self._used
        if used == len(self._drawn):
            self._drawn, used = os.urandom(4 * _KEYS), 0
        self._used = used + 4
        return self._drawn[used : used + 4]


def client_frame(opcode: Opcode, payload: bytes, key: bytes) -> bytes:
    """A whole message in one frame, masked as a client's must be, without extensions."""
    size = len(payload)
    if size < 126:
        head = _SHORT.pack(_FINAL | opcode, _MASKED | size, key)
    elif size < 1 << 16:
        head = _LONG.pack(_FINAL | opcode, _MASKED | 126, size, key)
    else:
        head = _LONGEST.pack(_FINAL | opcode, _MASKED | 127, size, key)
    return head + apply_mask(payload, key)


class Stalled(Exception):
    """The server took nothing for too long."""


class WebSocket(ClientConnection):
    """One connection. Of what it inherits only :meth:`send_text` and the like below are for its users."""

    def __init__(
        self, protocol: ClientProtocol, *, listener: Listener, stall_s: float, **options: Any
    ) -> None:
        super().__init__(protocol, **options)
        self._listener = listener
        self._stall_s = stall_s
        self._keys = Keys()
        self._parts: list[bytes] = []
        self._text = True
        self._held = False
        self._failed = False
        """What else came with a message that broke the rules counts no more."""
        self._quiet = False
        """Nothing came since the last ping."""
        self._opened = False
        self._stalling: asyncio.TimerHandle | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._cutting: asyncio.TimerHandle | None = None

    # -- for its users ---------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """False while more than enough waits to be sent: the server is slower than we are."""
        return not self.paused

    def send_text(self, message: bytes) -> None:
        """Send a message of UTF-8 text, now and without waiting. Does nothing once the connection closes."""
        self._send(Opcode.TEXT, message)

    def send_binary(self, message: bytes) -> None:
        """The same for a message of bytes."""
        self._send(Opcode.BINARY, message)

    def _send(self, opcode: Opcode, message: bytes) -> None:
        # Not by way of the protocol, which takes three times as long for it: nothing of its waits to be sent
        # here, no message is sent in parts, and there is no extension (`connect_options`).
        if self.protocol.state is State.OPEN:
            self.transport.write(client_frame(opcode, message, self._keys.next()))

    def hold(self, on: bool) -> None:
        """Read nothing for now, so that TCP slows the server down; or read on."""
        if on == self._held or self.transport.is_closing():
            return
        self._held = on
        if on:
            self.transport.pause_reading()
        else:
            self._quiet = False
            self.transport.resume_reading()

    async def hang_up(self) -> None:
        """Close; whatever the server does about it, the connection is gone when this returns."""
        assert self.close_timeout is not None
        try:
            if self._stalling is None:  # a server that takes nothing doesn't take a goodbye either
                async with asyncio.timeout(2 * self.close_timeout):
                    await self.close()
        except TimeoutError:
            log.info("websocket.close_incomplete")
        finally:
            self.transport.abort()

    # -- what websockets calls -------------------------------------------------------------------------------

    def process_event(self, event: Event) -> None:
        """A response to the handshake, or a frame."""
        self._quiet = False
        if isinstance(event, Response):
            event.headers.pop("Location", None)  # a redirect is a refusal: its target would get the key
            super().process_event(event)
            # Not the state: it tells what came after the response as well, a goodbye for example.
            if self.protocol.handshake_exc is None:
                self._opened = True
                self._listener.opened(self)
            return
        assert isinstance(event, Frame)
        if event.opcode is Opcode.TEXT or event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
            self._take(event)

    def _take(self, frame: Frame) -> None:
        """Put messages together. That frames come in an order that makes sense, the protocol has seen to."""
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        message = bytes(frame.data)
        if self._parts or not frame.fin:
            if message:  # the length of a message is limited, and not in how many parts it comes
                self._parts.append(message)
            if not frame.fin:
                return
            message = b"".join(self._parts)
            self._parts.clear()
        if self._text and not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at byte {error.start}")
                return
        if not self._failed:
            self._listener.received(message)

    def _fail(self, code: CloseCode, reason: str) -> None:
        """End the connection because of what the server did."""
        self._failed = True
        self.protocol.fail(code, reason)
        self.send_data()
        self._cut_soon()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        if self.protocol.close_expected():
            self._cut_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, or never came to be."""
        super().connection_lost(exc)
        for timer in (self._stalling, self._pinging, self._cutting):
            if timer is not None:
                timer.cancel()
        if self._opened:
            self._listener.lost(self.close_exc)

    def pause_writing(self) -> None:
        """The transport has enough to send."""
        super().pause_writing()
        self._stalling = self.loop.call_later(
            self._stall_s, self._cut, Stalled(f"the server took nothing for {self._stall_s:g} s")
        )

    def resume_writing(self) -> None:
        """The transport can take more."""
        super().resume_writing()
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None
        if self._opened:
            self._listener.writable()

    def start_keepalive(self) -> None:
        """Look now and then whether the server is still there; by a timer, where the library has a task."""
        if self.ping_interval is not None:
            self._pinging = self.loop.call_later(self.ping_interval, self._ping)

    def _ping(self) -> None:
        if self._quiet and not self._held:
            self._cut(TimeoutError("the server did not answer a ping"))
            return
        if self.protocol.state is State.OPEN:
            self._quiet = True
            self.protocol.send_ping(b"")
            self.send_data()
        self.start_keepalive()

    def _cut_soon(self) -> None:
        """Give the server its time to close, as it should; then do it ourselves."""
        if self._cutting is None:
            assert self.close_timeout is not None
            self._cutting = self.loop.call_later(self.close_timeout, self.transport.abort)

    def _cut(self, why: Exception) -> None:
        self.set_connection_exc(why)
        self.transport.abort()


def connect_options(
    url: str, listener: Listener, limits: Limits, context: ssl.SSLContext | None
) -> dict[str, Any]:
    """What ``websockets.asyncio.client.connect`` is to be given beside address and headers.

    Args:
        url: of the server: ``http(s)`` or ``ws(s)``.
        context: what certificates are checked with; None without TLS. To be made once, not for
            each call: loading the authorities blocks for tens of milliseconds.
    """
    options: dict[str, Any] = {
        "create_connection": partial(WebSocket, listener=listener, stall_s=limits.stall_s),
        "compression": None,  # audio doesn't compress, and deflate costs memory for each connection
        "max_size": limits.message,
        "open_timeout": limits.open_s,
        "close_timeout": limits.close_s / 2,
        "ping_interval": limits.ping_s,
    }
    if context is not None:
        options["ssl"] = context
    if is_loopback(url):
        options["proxy"] = None  # a proxy of the environment can't reach our own machine
    return options


async def connect_websocket(
    url: str,
    headers: Mapping[str, str],
    listener: Listener,
    limits: Limits,
    context: ssl.SSLContext | None,
) -> None:
    """Open a connection without any vendor's SDK; the listener is told of it. See :func:`connect_options`.

    Raises:
        OSError, websockets.exceptions.WebSocketException: it could not be opened.
    """
    options = connect_options(url, listener, limits, context)
    with reaching(url):
        await connect(url, additional_headers=headers, **options)


class Unreachable(OSError):
    """No connection came about; the text says with whom, and why: a whole clause."""


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """What keeps a connection to this address from coming about says which address it was."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise Unreachable(unreachable_in_words(url, error)) from error


def unreachable_in_words(url: str, error: Exception) -> str:
    """That nobody is reached at an address, and why. Of the address only host and port are told."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the provider could not be reached at {urlsplit(url).netloc.rpartition('@')[2]}: {reason}"


def is_secure(url: str) -> bool:
    """Whether an address asks for TLS."""
    return urlsplit(url).scheme in ("https", "wss")


def why(closed: ConnectionClosed) -> str | None:
    """Why a connection ended, in the words of a close frame: theirs, or ours about what they did; or None."""
    theirs, ours = closed.rcvd, closed.sent
    if theirs is not None:
        reason = f" ({theirs.reason})" if theirs.reason else ""
        return f"closed the connection with code {theirs.code}{reason}"
    if ours is not None and ours.code != CloseCode.NORMAL_CLOSURE:
        return f"broke the WebSocket protocol ({ours.reason or ours.code})"
    return None


def lost_in_words(closed: ConnectionClosed | None) -> str:
    """That a connection ended, and why where that is known: a whole clause."""
    reason = why(closed) if closed is not None else None
    return "the connection to the provider broke" if reason is None else f"the provider {reason}"


def stalled_in_words(seconds: float) -> str:
    """That a server took nothing for so long: a whole clause. See :class:`Stalled`."""
    return f"the provider took nothing for {seconds:g} s"


def not_opened(error: Exception, http_refusal: Callable[[int, bytes], tuple[str, str]]) -> tuple[str, str]:
    """Code and plain words for a connection that could not be opened.

    Args:
        http_refusal: the same for a handshake that was answered with that status and body.
    """
    if isinstance(error, InvalidStatus):
        return http_refusal(error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, Unreachable):
        return "unreachable", str(error)
    if isinstance(error, OSError):
        return "unreachable", f"the provider could not be reached: {error}"
    if isinstance(error, InvalidHeader):  # its text has the header's value: the key
        if error.name.lower() in _KEY_HEADERS:
            return "key_refused", "the key holds characters that no key has"
        return (
            "handshake_failed",
            f"no realtime connection could be opened: {error.name} is not as it must be",
        )
    if isinstance(error, InvalidURI):  # its text has the address, which may be a signed one
        return "handshake_failed", f"no realtime connection could be opened: an invalid address ({error.msg})"
    return "handshake_failed", f"no realtime connection could be opened: {error}"


def is_loopback(url: str) -> bool:
    """Whether an address is on our own machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = [
    "Limits",
    "Listener",
    "Stalled",
    "Unreachable",
    "WebSocket",
    "connect_options",
    "connect_websocket",
    "is_loopback",
    "is_secure",
    "lost_in_words",
    "not_opened",
    "reaching",
    "stalled_in_words",
    "unreachable_in_words",
    "why",
]
