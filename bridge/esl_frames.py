"""The framing of FreeSWITCH's event socket, without I/O: bytes in, messages out.

A message is a block of ``Name: value`` lines, an empty line, and as many bytes of body as ``Content-Length``
says (mod_event_socket.c). An event's body is such a block again, whose values are URL-encoded, and may have a
body of its own (``switch_event_serialize``). Whatever a peer sends, nothing but :class:`EslProtocolError` is
raised. The limits are security limits: they protect memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

MAX_HEADER_BYTES = 65_536
"""Of a message's own headers; the longest that mod_event_socket writes has some 600."""

MAX_BODY_BYTES = 1_048_576
"""An event with all variables of a channel has some 10 KB."""


class EslProtocolError(Exception):
    """What came is no event socket's; the text says what was found and what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"found {found}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        headers: names as they were written; of a name that comes twice the first counts.
        body: empty where there is none.
    """

    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def kind(self) -> str:
        """Its ``Content-Type``, such as ``command/reply``."""
        return self.headers.get("Content-Type", "")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Its values are text: what is no UTF-8 in them is replaced."""

    headers: Mapping[str, str]
    body: str = ""

    @property
    def name(self) -> str:
        """``CHANNEL_ANSWER``; of a custom event its subclass, ``mod_audio_stream::connect``."""
        name = self.headers.get("Event-Name", "")
        return self.headers.get("Event-Subclass", name) if name == "CUSTOM" else name

    @property
    def channel(self) -> str:
        """The UUID of the channel that it is about; empty where it is about none."""
        return self.headers.get("Unique-ID", "")


class MessageReader:
    """Finds the messages in a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers: Mapping[str, str] | None = None
        self._missing = 0
        self._searched = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now.

        Raises:
            EslProtocolError: this is no event socket. Nothing can be read any more.
        """
        self._buffer += data
        found: list[Message] = []
        while (message := self._next()) is not None:
            found.append(message)
        return found

    def _next(self) -> Message | None:
        if self._headers is None and not self._read_headers():
            return None
        if len(self._buffer) < self._missing:
            return None
        assert self._headers is not None
        message = Message(self._headers, bytes(self._buffer[: self._missing]))
        del self._buffer[: self._missing]
        self._headers, self._missing = None, 0
        return message

    def _read_headers(self) -> bool:
        while self._buffer[:1] == b"\n":  # `userauth` is answered with one line end more
            del self._buffer[:1]
            self._searched = 0
        end = self._buffer.find(b"\n\n", max(0, self._searched - 1))
        self._searched = len(self._buffer)
        if end > MAX_HEADER_BYTES or (end < 0 and len(self._buffer) > MAX_HEADER_BYTES):
            raise EslProtocolError(
                f"over {MAX_HEADER_BYTES} bytes of headers", f"up to {MAX_HEADER_BYTES}, then an empty line"
            )
        if end < 0:
            return False
        self._headers, _ = _header_block(bytes(self._buffer[:end]))
        del self._buffer[: end + 2]
        self._searched = 0
        self._missing = _content_length(self._headers)
        return True


def read_event(message: Message) -> Event:
    """The event that a message of the kind ``text/event-plain`` carries.

    Raises:
        EslProtocolError: it carries none.
    """
    head, _, rest = message.body.partition(b"\n\n")
    lines, named = _header_block(head)
    if not named or "Event-Name" not in lines:
        raise EslProtocolError("an event without a name", "lines of headers with Event-Name")
    headers = {name: unquote(value) if "%" in value else value for name, value in lines.items()}
    length = _content_length(headers)
    if length > len(rest):
        raise EslProtocolError(f"an event's body of {len(rest)} bytes", f"the {length} that it says")
    return Event(headers, rest[:length].decode("utf-8", "replace"))


def _header_block(block: bytes) -> tuple[dict[str, str], bool]:
    """The headers, and whether there were any."""
    found: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\n"):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise EslProtocolError("a line that is no header", "Name: value")
        found.setdefault(name.strip(), value.strip())
    return found, bool(found)


def _content_length(headers: Mapping[str, str]) -> int:
    said = headers.get("Content-Length", "0")
    if not (said.isascii() and said.isdigit()) or len(said) > 9 or int(said) > MAX_BODY_BYTES:
        raise EslProtocolError("another Content-Length", f"a number of bytes, up to {MAX_BODY_BYTES}")
    return int(said)


__all__ = [
    "MAX_BODY_BYTES",
    "MAX_HEADER_BYTES",
    "EslProtocolError",
    "Event",
    "Message",
    "MessageReader",
    "read_event",
]
