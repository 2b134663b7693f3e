"""One audio stream of FreeSWITCH's: an endpoint around the control, the media and the framing.

The module connects for a channel, to a path that names the domain and the channel's UUID, which is the call's
id. It sends its metadata, where it was given any, and the caller's audio; see ``audio_stream_server.py`` for
who may. The framing, and what a peer may do: ``websocket_connection.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol
from uuid import UUID

from websockets.server import ServerProtocol

from bridge.endpoints.audio_stream_control import (
    DTMF_DIGITS,
    ControlError,
    Key,
    Metadata,
    Playback,
    StreamForm,
    metadata_of,
    text_of,
)
from bridge.endpoints.audio_stream_files import FilePlayer
from bridge.endpoints.audio_stream_media import (
    FRAME_S,
    MAX_MEDIA_BYTES,
    Downstream,
    RateGuard,
    caller_of,
)
from bridge.endpoints.base import LegSink, Refusal
from bridge.endpoints.flow import KEY_S, LEAST_FRAME_S
from bridge.endpoints.websocket_connection import IncomingConnection, WebsocketLimits, WebsocketServer

MAX_MESSAGE_BYTES = MAX_MEDIA_BYTES
"""Of a message, in however many fragments it comes. Protects memory."""

METADATA_S = 0.5
"""Audio may come so long before the metadata. A stream that was started without any has none."""


GONE_S = 1.0
"""So long after its channel a stream may yet be there."""


FILES_GOODBYE_S = 2.0
"""How long the last of what was played in files may take to be heard before we hang up."""


def stream_limits(handshake_s: float = 5.0) -> WebsocketLimits:
    """What a module may do. A frame of 16 kHz stereo in base64 has 1,800 bytes."""
    return WebsocketLimits(handshake_s=handshake_s, write_buffer_bytes=10 * 1_900)


class CallControl(Protocol):
    """Who acts on the channel whose stream this is, and hears of it."""

    def player(self) -> FilePlayer | None:
        """Has the channel play files; None where there is no directory for them."""

    def stream_over(self, in_order: bool) -> None:
        """The connection is gone. Once.

        Args:
            in_order: we ended the call.
        """


class AudioStreamEndpoint(IncomingConnection):
    """One stream; an :class:`~bridge.endpoints.base.Endpoint` once it is known whose call it is.

    Args:
        server: whose port it came to.
        wire: the framing.
    """

    kind = "audio_stream"

    def __init__(self, server: WebsocketServer, wire: ServerProtocol) -> None:
        super().__init__(wire, server.limits, server.intake)
        self._at(server)
        self._serving = wire
        self._accept: Accept | None = None
        self._down: Downstream | FilePlayer | None = None
        self._rates: RateGuard | None = None
        self.form = StreamForm()
        """As the site has set it; with the metadata's say from then on."""
        self.metadata: Metadata | None = None
        """What the dialplan said of the call."""
        self.channel: CallControl | None = None
        """Its channel, where the tenant's FreeSWITCH is reached over an event socket."""
        self._hung_up = False
        """By us, in order."""
        self._keys: Literal["", "stream", "channel"] = ""
        """By which way the first key came: where a dialplan sends them too, none counts twice."""

    @property
    def call_id(self) -> UUID:
        """The channel's UUID; only a stream that was let in has one."""
        if self._call_id is None:
            raise RuntimeError("no call has been named yet")
        return self._call_id

    @property
    def playback(self) -> Playback:
        """How our audio goes back. Where nothing says it, as the open forks of mod_audio_stream take it."""
        return "base64" if self.form.playback == "auto" else self.form.playback

    # ---- Down ------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """End the call behind everything played; see :meth:`bridge.endpoints.base.Endpoint.hang_up`."""
        if self._ended is not None:
            return
        self._hung_up = True
        self._mark("local", "hung up by us")
        if self._sink is None or self._down is None:
            self._say_goodbye()
            return
        for message in self._down.rest():
            self._say(message)
        left_s = (self._down.held(self._loop.time()) + 1) * FRAME_S
        most_s = FILES_GOODBYE_S if isinstance(self._down, FilePlayer) else self._limits.goodbye_s
        self._arm(min(left_s, most_s), self._say_goodbye)

    # ---- Messages --------------------------------------------------------------------------------------

    def _text(self, message: bytes) -> None:
        if self.ended:
            return
        if self._sink is None:
            if self._counted(LEAST_FRAME_S):
                self._begin(metadata_of(message, self.form))
            return
        said = text_of(message)
        if self._counted(KEY_S if isinstance(said, Key) else LEAST_FRAME_S) and isinstance(said, Key):
            self._key("stream", said.digit)

    def _key(self, way: Literal["stream", "channel"], digit: str) -> None:
        self._keys = self._keys or way
        if self._keys == way and self._sink is not None and not self.ended:
            self._guarded(self._sink.key_pressed, digit)

    def channel_key(self, digit: str) -> None:
        """The caller pressed a key, by the channel's say. What is no key is passed over."""
        if len(digit) == 1 and digit.upper() in DTMF_DIGITS:
            self._key("channel", digit.upper())

    def channel_gone(self) -> None:
        """The channel was hung up: the module closes its stream, or we do."""
        self._loop.call_later(GONE_S, self._end, "hangup", "the channel was hung up")

    def sound_lost(self, reason: str) -> None:
        """What the caller is to hear is not played: the call ends, for nothing that is said now was heard.

        The code is none of an orderly end: a visitor's dialplan has the attendant ring.
        """
        self._end("network_error", f"our sound is not played: {reason}")

    def _binary(self, message: bytes) -> None:
        if self._sink is None:
            self._wait(message)
            return
        pcm = caller_of(self.form, message)
        seconds = self.form.seconds(len(message))
        if not self._counted(max(LEAST_FRAME_S, seconds)):
            return
        if self._rates is not None:
            self._rates.takes(seconds, self._last_byte)
        if pcm:
            self._guarded(self._sink.audio_in, pcm, self.form.rate)

    def _wait(self, message: bytes) -> None:
        """Audio before the metadata; there may be none to come."""
        first = not self._early
        if self._keep(message, "the metadata") and first:
            self._arm(METADATA_S, self._begin_without)

    def _begin_without(self) -> None:
        if not self.ended:
            self._begin(Metadata("", "", self.form))

    def _begin(self, metadata: Metadata) -> None:
        """The call is there: ask whether it is taken, and by whom."""
        self.metadata = metadata
        self.form = metadata.form
        if self._offer(self._accept):
            early, self._early = self._early, []
            for message in early:
                if not self.ended:
                    self._heard_early(message)
            self._read_with_the_tick()

    def _seated(self) -> None:
        self._down = self._player()
        self._rates = RateGuard(self.form)
        super()._seated()

    def _player(self) -> Downstream | FilePlayer | None:
        if self.playback != "file":
            return Downstream(self.form, self.playback)
        player = self.channel.player() if self.channel is not None else None
        if player is None:
            self._end(
                "local", "found nobody to play files; allowed: esl.sounds, where freeswitch.playback is file"
            )
        return player

    @property
    def plays_later(self) -> bool:
        """See :class:`bridge.endpoints.base.PlaysLater`."""
        return self.playback == "file"

    @property
    def behind_s(self) -> float:
        """See :class:`bridge.endpoints.base.PlaysLater`."""
        return self._down.held(self._loop.time()) * FRAME_S if self._down is not None else 0.0

    def _heard_early(self, message: bytes) -> None:
        assert self._sink is not None
        try:
            pcm = caller_of(self.form, message)
        except ControlError as error:
            self._end("protocol_error", str(error))
        else:
            self._guarded(self._sink.audio_in, pcm, self.form.rate)

    # ---- The end ---------------------------------------------------------------------------------------

    def _handshake_late(self) -> None:
        self._end(
            "timeout",
            f"found {self.bytes_received} bytes and neither metadata nor audio; "
            f"allowed are {self._limits.handshake_s:g} s",
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        super().connection_lost(exc)
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.stream_over(self._hung_up)

    def _particulars(self) -> Mapping[str, object]:
        return {"playback": self.playback, "rate": self.form.rate, "channels": self.form.channels}


Accept = Callable[[AudioStreamEndpoint], LegSink | Refusal | None]
"""Called synchronously when a stream has begun: the leg that takes the call, or why none does.
None: somebody else has taken the connection over, and this endpoint is over."""


__all__ = ["METADATA_S", "Accept", "AudioStreamEndpoint", "CallControl", "stream_limits"]
