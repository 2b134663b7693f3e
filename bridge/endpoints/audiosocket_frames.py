"""AudioSocket's framing, without I/O: encoders, and an incremental parser for either side.

A frame is one byte of kind, a big-endian u16 length and the payload; the samples inside are little-endian
signed 16-bit mono. The kinds, and who may send which, are those of ``res_audiosocket.c`` and
``chan_audiosocket.c`` in Asterisk 22.10.1.

Whatever a peer sends, the parser keeps at most one unfinished frame, whose length is checked against its
kind's limit as soon as the three bytes of the header are there: nothing is stored on a peer's promise alone.
The limits are security limits; each says what it protects.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from uuid import UUID


class Kind(IntEnum):
    """The first byte of a frame."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    SLIN8 = 0x10
    SLIN12 = 0x11
    SLIN16 = 0x12
    SLIN24 = 0x13
    SLIN32 = 0x14
    SLIN44 = 0x15
    SLIN48 = 0x16
    SLIN96 = 0x17
    SLIN192 = 0x18
    ERROR = 0xFF


RATES: dict[int, int] = {
    Kind.SLIN8: 8_000,
    Kind.SLIN12: 12_000,
    Kind.SLIN16: 16_000,
    Kind.SLIN24: 24_000,
    Kind.SLIN32: 32_000,
    Kind.SLIN44: 44_100,
    Kind.SLIN48: 48_000,
    Kind.SLIN96: 96_000,
    Kind.SLIN192: 192_000,
}
"""Samples per second of each kind of audio."""

KINDS: dict[int, int] = {rate: kind for kind, rate in RATES.items()}
"""The kind of audio of each rate."""

HEADER_BYTES = 3
UUID_BYTES = 16
DTMF_DIGITS = "0123456789ABCD*#"

MAX_AUDIO_MS = 300
"""The longest audio frame. Asterisk's frames follow the channel's own packet time, of which 300 ms is the
longest that any of its codecs allows (``codec_builtin.c``: G.723.1 among them). Protects memory."""

MAX_ERROR_BYTES = 1
"""An error frame carries at most its code. Protects the log."""

MAX_PAYLOAD: dict[int, int] = {
    Kind.HANGUP: 0,
    Kind.UUID: UUID_BYTES,
    Kind.DTMF: 1,
    Kind.ERROR: MAX_ERROR_BYTES,
    **{kind: min(rate * MAX_AUDIO_MS // 1000 * 2, 0xFFFE) for kind, rate in RATES.items()},
}
"""The longest payload of each kind, in bytes; a longer one is refused from its header on."""

MIN_PAYLOAD: dict[int, int] = {Kind.UUID: UUID_BYTES, Kind.DTMF: 1}
"""The shortest payload of each kind, in bytes, where it is not 0."""

MAX_PENDING_BYTES = HEADER_BYTES + max(MAX_PAYLOAD.values())
"""No parser ever holds as many bytes as this between two calls of :meth:`FrameParser.feed`."""

_HEADER = struct.Struct(">BH")
_ERROR_BITS = {0x01: "hang-up", 0x02: "frame forwarding", 0x04: "memory"}


# --------------------------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hangup:
    """The call is over (Asterisk never sends it: it closes the connection)."""


@dataclass(frozen=True, slots=True)
class CallId:
    """Which call this connection carries."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed and let go."""

    digit: str


@dataclass(frozen=True, slots=True)
class Audio:
    """Speech, or silence: little-endian signed 16-bit mono at ``rate``; towards us it may be empty."""

    rate: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class PeerError:
    """The peer reports an error. In Asterisk's header, sent by none of its versions so far."""

    code: int

    @property
    def meaning(self) -> str:
        """The names of the bits that are set."""
        names = [name for bit, name in _ERROR_BITS.items() if self.code & bit]
        return " and ".join(names) or "not named"


Frame = Hangup | CallId | Key | Audio | PeerError


class FrameError(ValueError):
    """A peer broke the protocol. The stream has no meaning from here on: the parser that raised it is dead.

    Attributes:
        found: what came.
        allowed: what may come there.
        frames: the frames that were complete and in order before it, in the same piece of data.
    """

    def __init__(self, found: str, allowed: str, frames: tuple[Frame, ...] = ()) -> None:
        super().__init__(f"found {found}; allowed is {allowed}")
        self.found = found
        self.allowed = allowed
        self.frames = frames


# --------------------------------------------------------------------------------------------------------
# Encoders: each returns a whole frame, for one write
# --------------------------------------------------------------------------------------------------------

HANGUP = _HEADER.pack(Kind.HANGUP, 0)
"""The hang-up frame."""

SLIN8_HEADER = _HEADER.pack(Kind.SLIN8, 320)
"""The header of the one audio frame that is sent fifty times a second: 20 ms at 8 kHz."""

USUAL_BYTES = HEADER_BYTES + 320
"""The length of that frame."""


def encode_hangup() -> bytes:
    """The hang-up frame: server to PBX."""
    return HANGUP


def encode_uuid(call_id: UUID) -> bytes:
    """The first frame of a connection: PBX to server."""
    return _HEADER.pack(Kind.UUID, UUID_BYTES) + call_id.bytes


def encode_key(digit: str) -> bytes:
    """A key: PBX to server only; the other way it ends the call.

    Raises:
        ValueError: not one of ``0-9A-D*#``.
    """
    if len(digit) != 1 or digit not in DTMF_DIGITS:
        raise ValueError(f"a key is one of {DTMF_DIGITS}, not {digit!r}")
    return _HEADER.pack(Kind.DTMF, 1) + digit.encode("ascii")


def encode_audio(pcm: bytes, rate: int = 8000) -> bytes:
    """One frame of audio: little-endian signed 16-bit mono, 1 sample to 300 ms.

    Raises:
        ValueError: a rate without a kind, or a length that no frame may have.
    """
    kind = KINDS.get(rate)
    if kind is None:
        raise ValueError(f"AudioSocket carries {sorted(KINDS)} samples per second, not {rate}")
    if not pcm or len(pcm) % 2 or len(pcm) > MAX_PAYLOAD[kind]:
        raise ValueError(f"a frame at {rate} Hz takes 2 to {MAX_PAYLOAD[kind]} bytes, even, not {len(pcm)}")
    return _HEADER.pack(kind, len(pcm)) + pcm


def encode_error(code: int) -> bytes:
    """An error report (bits: 1 hang-up, 2 frame forwarding, 4 memory)."""
    return _HEADER.pack(Kind.ERROR, 1) + code.to_bytes(1, "big")


# --------------------------------------------------------------------------------------------------------
# The parser
# --------------------------------------------------------------------------------------------------------


class Side(Enum):
    """Which side of the connection a parser reads for."""

    SERVER = "server"
    """What a PBX sends: its UUID first and once, then audio and keys."""
    PBX = "pbx"
    """What a server sends: audio and the hang-up; in Asterisk all else ends the call, empty audio too."""


class FrameParser:
    """Turns a stream of bytes, cut anywhere, into frames."""

    def __init__(self, side: Side = Side.SERVER) -> None:
        self._server = side is Side.SERVER
        self._buffer = bytearray()
        self._identified = False
        self._ended = False
        self._error: FrameError | None = None

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame that are held; always below :data:`MAX_PENDING_BYTES`."""
        return len(self._buffer)

    def usual(self, data: memoryview) -> bytes | None:
        """The sound in ``data``, where it is one whole frame of 20 ms at 8 kHz and nothing is pending.

        That is what nearly all of a call is; None: something else, for :meth:`feed`.
        """
        if len(data) == USUAL_BYTES and data[:HEADER_BYTES] == SLIN8_HEADER and self._plain:
            return data[HEADER_BYTES:].tobytes()
        return None

    @property
    def _plain(self) -> bool:
        """Between two frames of a call that goes on."""
        return self._identified and not self._buffer and not self._ended and self._error is None

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that ``data`` completes, in order.

        What follows a hang-up is discarded unread.

        Raises:
            FrameError: the peer broke the protocol; its ``frames`` are those that came before. Raised again,
                without frames, whenever more is fed.
        """
        if self._error is not None:
            raise FrameError(self._error.found, self._error.allowed)
        frames: list[Frame] = []
        if self._ended:
            return frames
        buffer = self._buffer
        buffer += data
        try:
            with memoryview(buffer) as view:
                used = self._parse(view, frames)
        except FrameError as error:
            buffer.clear()
            self._error = error
            error.frames = tuple(frames)
            raise
        del buffer[:used]
        return frames

    def _parse(self, view: memoryview, frames: list[Frame]) -> int:
        """Append the complete frames of ``view`` to ``frames``; the bytes that they took."""
        start, size = 0, len(view)
        while size - start >= HEADER_BYTES and not self._ended:
            kind, length = _HEADER.unpack_from(view, start)
            self._check_header(kind, length)
            end = start + HEADER_BYTES + length
            if end > size:
                break
            frames.append(self._frame(kind, view[start + HEADER_BYTES : end].tobytes()))
            start = end
        return size if self._ended else start

    def _check_header(self, kind: int, length: int) -> None:
        """All that can be refused before the payload is there."""
        if self._server and (kind == Kind.UUID) is self._identified:
            raise FrameError(
                "a second UUID frame" if self._identified else f"kind 0x{kind:02x} as the first frame",
                "one UUID frame (0x01), the first",
            )
        limit = MAX_PAYLOAD.get(kind)
        if limit is None or not (self._server or kind == Kind.HANGUP or kind in RATES):
            raise FrameError(f"a frame of kind 0x{kind:02x}", self._allowed_kinds())
        if length > limit or length < MIN_PAYLOAD.get(kind, 0):
            least = MIN_PAYLOAD.get(kind, 0)
            allowed = f"{limit}" if least == limit else f"{least} to {limit}"
            raise FrameError(f"a frame of kind 0x{kind:02x} with {length} bytes", f"{allowed} bytes")
        if kind in RATES:
            if length & 1:
                raise FrameError(f"audio of {length} bytes", "an even number: samples have 2 bytes")
            # Towards us an empty one is harmless, and a real PBX may send it: Asterisk copies a frame's
            # length as it is, and func_jitterbuffer's interpolation frames have none. The other way it ends
            # the call.
            if not length and not self._server:
                raise FrameError("empty audio", "at least one sample")

    def _frame(self, kind: int, payload: bytes) -> Frame:
        """The frame of a checked header and its payload."""
        rate = RATES.get(kind)
        if rate is not None:
            return Audio(rate, payload)
        if kind == Kind.DTMF:
            digit = chr(payload[0])
            if digit not in DTMF_DIGITS:
                raise FrameError(f"the key 0x{payload[0]:02x}", f"one of {DTMF_DIGITS}")
            return Key(digit)
        if kind == Kind.UUID:
            self._identified = True
            return CallId(UUID(bytes=payload))
        if kind == Kind.ERROR:
            return PeerError(payload[0] if payload else 0)
        self._ended = True
        return Hangup()

    def _allowed_kinds(self) -> str:
        if self._server:
            return "0x00, 0x03, 0x10 to 0x18 and 0xff after the UUID"
        return "0x00 and 0x10 to 0x18 from a server"
