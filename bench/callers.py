"""The callers: calls that speak recordings at real time, take turns, and barge in now and then.

They speak AudioSocket, as Asterisk does, or what a peer speaks (`bench.peers`).

All of them share one thread, one selector and one tick, so that they cost little beside the service. The
tick falls every 20 ms for each caller, but not for all at once: callers are spread over four phases, as
calls of a PBX are, and packets that all come at one instant would spare the service its wake-ups.

What a caller does:

1. It calls once the caller before it has been greeted: so the n-th session of the model server is its own.
2. Each time that a reply has been over for 300 ms it sends a mark (`bench.media`).
3. It says its next recording 700 ms after a reply's end, or later, while it has spoken more than its
   share of the time.
4. At every third say it does not wait, but speaks 1.2 s after the reply began to be heard.
5. Where no reply comes within 2 s it goes on.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from audio.frames import FRAME_SAMPLES, SILENCE
from bench import media
from bridge.endpoints.audiosocket_frames import (
    Audio,
    FrameError,
    FrameParser,
    Hangup,
    Side,
    encode_audio,
    encode_uuid,
)

FRAME_S = 0.020
PHASES = 4
REPLY_OVER_S = 0.15
REPLY_WITHIN_S = 2.0
MARK_AFTER_S = 0.3
SAY_AFTER_S = 0.7
BARGE_AFTER_S = 1.2
BARGE_EVERY = 3
CONNECT_S = 5.0
GREETED_S = 10.0
"""How long a caller may wait for the first sound of the greeting."""
MARK = media.mark()


class CallLost(RuntimeError):
    """The service ended a call, took none, or did not read what it was sent: nothing can be measured."""


class Wire(Protocol):
    """What a call speaks. One for each call."""

    def open(self, connection: socket.socket, call_id: UUID) -> None:
        """Begin the call on a connection that blocks."""

    def encoded(self, pcm: bytes) -> bytes:
        """20 ms of sound as they go to the socket."""

    def decoded(self, data: bytes) -> list[bytes]:
        """The frames of sound in what came from it.

        Raises:
            CallLost: the other side hung up, or speaks something else.
        """


class AudioSocketWire:
    """AudioSocket, as Asterisk speaks it."""

    def __init__(self) -> None:
        self._parser = FrameParser(Side.PBX)
        self._silent = encode_audio(SILENCE)

    def open(self, connection: socket.socket, call_id: UUID) -> None:
        """Say which call it is."""
        connection.sendall(encode_uuid(call_id))

    def encoded(self, pcm: bytes) -> bytes:
        """A frame of type 0x10."""
        return self._silent if pcm is SILENCE else encode_audio(pcm)

    def decoded(self, data: bytes) -> list[bytes]:
        """The sound of whole frames."""
        try:
            frames = self._parser.feed(data)
        except FrameError as error:
            raise CallLost(str(error)) from error
        if any(isinstance(frame, Hangup) for frame in frames):
            raise CallLost("the service hung up")
        return [frame.pcm for frame in frames if isinstance(frame, Audio)]


@dataclass(slots=True)
class Log:
    """What one caller sent and heard, by the monotonic clock.

    Attributes:
        sent: when each frame was handed to the socket.
        arrived: when each frame was read from it.
        audible: for each of those, whether there was a sample in it that is not zero.
        marks: the samples, counted from the first one sent, at which a mark began.
        says: (first frame, frames, onset's sample counted from the first one sent, barged in).
    """

    sent: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    audible: bytearray = field(default_factory=bytearray)
    marks: list[int] = field(default_factory=list)
    says: list[tuple[int, int, int, bool]] = field(default_factory=list)


class Caller:
    """One call."""

    def __init__(
        self, number: int, call_id: UUID, port: int, says: Sequence[media.Say], share: float, wire: Wire
    ) -> None:
        self.number = number
        self.call_id = call_id
        self.log = Log()
        self._says = says
        self._share = share
        self._saying: Sequence[bytes] = ()
        self._at = 0
        self._spoken = 0
        self._hearing_since: float | None = None
        self._last_audible = 0.0
        self._quiet_since = 0.0
        """What our turn is counted from: the end of a reply, or long enough after a say that got none."""
        self._marked = True
        """Whether the last reply was followed by a mark."""
        self._wire = wire
        self.socket = socket.create_connection(("127.0.0.1", port), CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.open(self.socket, call_id)
        self.socket.setblocking(False)

    @property
    def greeted(self) -> bool:
        """Something of ours was heard."""
        return self._last_audible > 0

    def speak(self) -> None:
        """Send the next 20 ms.

        Raises:
            CallLost: the service is gone, or does not read.
        """
        now = time.monotonic()
        if self._hearing_since is not None and now - self._last_audible > REPLY_OVER_S:
            self._hearing_since = None  # here, as peers send nothing where they are silent
        if self._at >= len(self._saying):
            self._choose(now)
        frame = SILENCE
        if self._at < len(self._saying):
            frame = self._saying[self._at]
            self._at += 1
        encoded = self._wire.encoded(frame)
        self.log.sent.append(time.monotonic())
        self._send(encoded)

    def hear(self) -> None:
        """Take what there is to read.

        Raises:
            CallLost: the call is over.
        """
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            raise CallLost(f"call {self.number}: {error}") from error
        now = time.monotonic()
        if not data:
            raise CallLost(f"call {self.number}: the service closed the connection")
        try:
            frames = self._wire.decoded(data)
        except CallLost as lost:
            raise CallLost(f"call {self.number}: {lost}") from lost
        for pcm in frames:
            self._heard(pcm, now)

    def _heard(self, pcm: bytes, now: float) -> None:
        audible = pcm != SILENCE
        self.log.arrived.append(now)
        self.log.audible.append(audible)
        if audible:
            if self._hearing_since is None:
                self._hearing_since = now
                self._marked = False
            self._last_audible = now
            if self._at >= len(self._saying):  # otherwise it is what we talk over, and no answer to us
                self._quiet_since = now

    def _choose(self, now: float) -> None:
        """Nothing is being said: whether that should change."""
        if not self.greeted:
            return
        said, hearing = len(self.log.says), self._hearing_since
        if hearing is not None:
            barges = said % BARGE_EVERY == (1 + self.number) % BARGE_EVERY and said > 0
            if barges and now - hearing >= BARGE_AFTER_S:
                self._begin(True)
            return
        quiet = now - self._quiet_since
        if not self._marked and quiet >= MARK_AFTER_S:
            self._marked = True
            self.log.marks.append(len(self.log.sent) * FRAME_SAMPLES)
            self._saying, self._at = (MARK,), 0
        elif quiet >= SAY_AFTER_S and self._marked and self._spoken <= self._share * len(self.log.sent):
            self._begin(False)

    def _begin(self, barging: bool) -> None:
        say = self._says[(self.number * 5 + len(self.log.says)) % len(self._says)]
        first = len(self.log.sent)
        self.log.says.append((first, len(say.frames), first * FRAME_SAMPLES + say.onset, barging))
        self._saying, self._at = say.frames, 0
        self._spoken += len(say.frames)
        self._quiet_since = time.monotonic() + len(say.frames) * FRAME_S + REPLY_WITHIN_S

    def _send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except OSError as error:
            raise CallLost(f"call {self.number}: {error}") from error
        if sent != len(data):
            raise CallLost(f"call {self.number}: the service does not read what it is sent")


class Callers:
    """All calls, and the one loop that they share. A context: it ends them on the way out."""

    def __init__(self, port: int, share: float, wire: Callable[[], Wire] = AudioSocketWire) -> None:
        """
        Args:
            port: where to call.
            share: of the time, that each caller aims to speak; no say waits for it that barges in.
            wire: makes what a call speaks.
        """
        self._port = port
        self._wire = wire
        self._share = share
        self._says = media.says()
        self._selector = selectors.DefaultSelector()
        self._phases: list[list[Caller]] = [[] for _ in range(PHASES)]
        self._due = time.monotonic()
        self._phase = 0
        self.callers: list[Caller] = []
        self.lateness_s: list[float] = []
        """How late our own ticks were: where this is long, so is what was measured."""

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._selector.close()

    def call(self, call_id: UUID) -> Caller:
        """Place a call, and go on until it is greeted.

        Raises:
            CallLost: it is not.
        """
        number = len(self.callers)
        try:
            caller = Caller(number, call_id, self._port, self._says, self._share, self._wire())
        except OSError as error:
            raise CallLost(f"call {number}: {error}") from error
        self.callers.append(caller)
        self._phases[number % PHASES].append(caller)
        self._selector.register(caller.socket, selectors.EVENT_READ, caller)
        if not self.go_on(time.monotonic() + GREETED_S, until=lambda: caller.greeted):
            raise CallLost(f"call {number}: no sound of the greeting within {GREETED_S:g} s")
        return caller

    def hang_up(self) -> None:
        """End all calls, as Asterisk does: close the connection."""
        for caller in self.callers:
            self._selector.unregister(caller.socket)
            caller.socket.close()
        self.callers.clear()
        self._phases = [[] for _ in range(PHASES)]

    def go_on(self, end: float, until: Callable[[], bool] | None = None) -> bool:
        """Speak and hear until the monotonic time `end`, or until something is the case; whether it was.

        Raises:
            CallLost: a call is over.
        """
        while (now := time.monotonic()) < end:
            if until is not None and until():
                return True
            if now >= self._due:
                self._tick(now)
                continue
            for key, _ in self._selector.select(min(self._due, end) - now):
                key.data.hear()
        return False

    def _tick(self, now: float) -> None:
        self.lateness_s.append(now - self._due)
        for caller in self._phases[self._phase]:
            caller.speak()
        self._phase = (self._phase + 1) % PHASES
        self._due += FRAME_S / PHASES


__all__ = ["FRAME_S", "AudioSocketWire", "CallLost", "Caller", "Callers", "Log", "Wire"]
