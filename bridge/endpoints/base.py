"""The seam between an endpoint, which carries a leg's audio, and the leg.

Both sides are synchronous: the path of a sample awaits nothing. Everything here happens on one event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

FRAME_MS = 20
"""What one :meth:`Endpoint.play` carries, and the period at which it must be called."""

FRAME_RATE = 8000
"""Samples per second of what :meth:`Endpoint.play` takes."""

FRAME_BYTES = FRAME_RATE * FRAME_MS // 1000 * 2
"""Bytes of one frame down: little-endian signed 16-bit mono."""

ClosedKind = Literal[
    "hangup",
    "protocol_error",
    "timeout",
    "flood",
    "slow_reader",
    "network_error",
    "refused",
    "local",
]


@dataclass(frozen=True, slots=True)
class EndpointClosed:
    """How an endpoint ended.

    Attributes:
        kind: ``hangup``: the PBX hung up. ``protocol_error``: it sent what the protocol does not allow.
            ``timeout``: nothing came within a deadline. ``flood``: it sent faster than real time.
            ``slow_reader``: it did not read what we sent. ``network_error``: the connection broke.
            ``refused``: we did not take the call. ``local``: our side ended it.
        detail: what was found and what is allowed, for the log; no names, no transcripts.
    """

    kind: ClosedKind
    detail: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call is not taken. ``reason`` goes to the log, and to the peer where its protocol can carry it."""

    reason: str


class Endpoint(Protocol):
    """One call, as the PBX carries it."""

    @property
    def call_id(self) -> UUID:
        """What the PBX sent to identify the call."""

    @property
    def peer(self) -> str:
        """``127.0.0.1:5060`` or ``[::1]:5060``, for logs."""

    @property
    def kind(self) -> str:
        """``audiosocket`` and the like."""

    @property
    def frames_sent(self) -> int:
        """Frames that :meth:`play` wrote."""

    @property
    def frames_dropped(self) -> int:
        """Frames that :meth:`play` let go, because the peer did not read."""

    @property
    def bytes_received(self) -> int:
        """Bytes that came, framing included."""

    def play(self, frame: bytes) -> None:
        """Send one frame: 20 ms, 8 kHz, little-endian signed 16-bit mono (320 bytes), in one write.

        Never blocks: where the peer does not read, the frame is dropped and counted. After the end it does
        nothing.

        Raises:
            ValueError: ``frame`` is not 320 bytes long (an error of the caller's, not of the peer's).
        """

    def hang_up(self) -> None:
        """End the call in order: the hang-up frame, behind everything played, then the close. Idempotent."""


@runtime_checkable
class TakesBack(Protocol):
    """An endpoint whose PBX holds a little of what was played, and gives it back."""

    def flush(self) -> int:
        """Have nothing more heard of what was played; for a barge-in.

        Returns:
            How many samples (8 kHz) of the last that :meth:`Endpoint.play` took nobody has heard, as well as
            can be known; 0 after the end.
        """


@runtime_checkable
class PlaysLater(Protocol):
    """An endpoint that may have frames heard noticeably later than it took them."""

    @property
    def plays_later(self) -> bool:
        """Whether it does, of this call."""

    @property
    def behind_s(self) -> float:
        """How long that takes now."""


class LegSink(Protocol):
    """What an endpoint reports to: the leg.

    None of these is ever called from within :meth:`Endpoint.play` or :meth:`Endpoint.hang_up`, and none after
    :meth:`endpoint_closed`. An exception raised by one ends this call, and this call only.
    """

    def audio_in(self, pcm: bytes, rate: int) -> None:
        """Little-endian signed 16-bit mono audio, of any length, at ``rate`` samples per second."""

    def key_pressed(self, digit: str) -> None:
        """One of ``0-9A-D*#``, once, when the key was let go."""

    def endpoint_closed(self, reason: EndpointClosed) -> None:
        """The call is over. Called exactly once, whoever ended it."""


@runtime_checkable
class KnowsIds(Protocol):
    """A leg that says under which ids (`tenant`, `visit`, `leg`) the log knows it."""

    ids: Mapping[str, str]
