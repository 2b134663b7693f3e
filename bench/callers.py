"""The callers: calls that speak recordings at real time, take turns, and barge in now and then.

They speak AudioSocket, as Asterisk does, or what a peer speaks (`bench.peers`).

All of them share one thread and one tick, so that they cost little beside the service. The tick falls each
20 ms for every caller, but not for all at once: callers are spread over four phases, as calls of a PBX are,
and packets that all come at one instant would spare the service its wake-ups.

What comes is read at the ticks, every 5 ms, from the sockets that have something. When it came is not when it
was read: the kernel stamps each packet as it arrives (SO_TIMESTAMPNS), so that neither the tick nor this
process's own lateness is in the figures. Of frames that came within the same 5 ms all have the last one's
stamp: the earlier ones seem later than they were, never sooner.

What a caller does:

1. It calls once the caller before it has been greeted: so the n-th session of the model server is its own.
2. Each time that a reply has been over for 300 ms it sends a mark (`bench.media`).
3. It says its next recording 700 ms after a reply's end, or later, while it has spoken more than its
   share of the time.
4. At every third say it does not wait, but speaks 1.2 s after the reply began to be heard.
5. Where no reply comes within 2 s it goes on.

Where heard positions are measured (:class:`Manner`) a caller barges in at every say, at a random instant.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol
from uuid import UUID

from audio.comfort import is_comfort
from audio.frames import FRAME_SAMPLES, SILENCE
from bench import media
from bridge.endpoints.audiosocket_frames import (
    SLIN8_HEADER,
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
READ_BYTES = 4096
"""Twelve frames. What there is more of is read at the next tick, 5 ms later."""

SO_TIMESTAMPNS: Final = 35
_STAMP: Final = struct.Struct("@ll")
_STAMP_ROOM: Final = socket.CMSG_SPACE(_STAMP.size)
_SILENT_FRAME: Final = encode_audio(SILENCE)
_ONE_SILENT: Final = (False,)
_ONE_AUDIBLE: Final = (True,)


class CallLost(RuntimeError):
    """The service ended a call, took none, or did not read what it was sent: nothing can be measured."""


class Wire(Protocol):
    """What a call speaks. One for each call."""

    def open(self, connection: socket.socket, call_id: UUID) -> None:
        """Begin the call on a connection that blocks."""

    def encoded(self, pcm: bytes) -> bytes:
        """20 ms of sound as they go to the socket."""

    def sounds(self, data: bytes) -> Sequence[bool]:
        """Of each frame that ends in what came from it, whether it has a sample that is not zero.

        Raises:
            CallLost: the other side hung up, or speaks something else.
        """


class AudioSocketWire:
    """AudioSocket, as Asterisk speaks it."""

    def __init__(self) -> None:
        self._parser = FrameParser(Side.PBX)

    def open(self, connection: socket.socket, call_id: UUID) -> None:
        """Say which call it is."""
        connection.sendall(encode_uuid(call_id))

    def encoded(self, pcm: bytes) -> bytes:
        """A frame of type 0x10."""
        return _SILENT_FRAME if pcm is SILENCE else SLIN8_HEADER + pcm

    def sounds(self, data: bytes) -> Sequence[bool]:
        """Of each whole frame; one that comes alone is not even taken apart."""
        if not self._parser.pending and len(data) == len(_SILENT_FRAME) and data.startswith(SLIN8_HEADER):
            return _ONE_SILENT if data == _SILENT_FRAME or is_comfort(data) else _ONE_AUDIBLE
        try:
            frames = self._parser.feed(data)
        except FrameError as error:
            raise CallLost(str(error)) from error
        if any(isinstance(frame, Hangup) for frame in frames):
            raise CallLost("the service hung up")
        came = [frame.pcm for frame in frames if isinstance(frame, Audio)]
        return [pcm != SILENCE and not is_comfort(pcm) for pcm in came]


def _times() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Log:
    """What one caller sent and heard, by the monotonic clock.

    Attributes:
        sent: when each frame was handed to the socket.
        arrived: when each frame came to it.
        audible: for each of those, whether there was a sample in it that is not zero.
        marks: the samples, counted from the first one sent, at which a mark began.
        says: (first frame, frames, onset's sample counted from the first one sent, barged in).
    """

    sent: array[float] = field(default_factory=_times)
    arrived: array[float] = field(default_factory=_times)
    audible: bytearray = field(default_factory=bytearray)
    marks: list[int] = field(default_factory=list)
    says: list[tuple[int, int, int, bool]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Manner:
    """How callers behave.

    Attributes:
        share: of the time, that each aims to speak; no say waits for it that barges in.
        barge_every: so many says, of which one barges in.
        barge_after_s: how long after a reply began to be heard; between these two, evenly.
    """

    share: float = 0.4
    barge_every: int = BARGE_EVERY
    barge_after_s: tuple[float, float] = (BARGE_AFTER_S, BARGE_AFTER_S)


class Caller:
    """One call."""

    def __init__(
        self, number: int, call_id: UUID, port: int, says: Sequence[media.Say], manner: Manner, wire: Wire
    ) -> None:
        self.number = number
        self.call_id = call_id
        self.log = Log()
        self._says = says
        self._manner = manner
        self._chance = Random(number)
        self._barge_after_s = manner.barge_after_s[0]
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
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
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
        at = self._at
        if at >= len(self._saying):
            self._choose(now)
            at = self._at
        if at < len(self._saying):
            data = self._wire.encoded(self._saying[at])
            self._at = at + 1
        else:
            data = self._wire.encoded(SILENCE)
        self.log.sent.append(time.monotonic())
        try:
            sent = self.socket.send(data)
        except OSError as error:
            raise CallLost(f"call {self.number}: {error}") from error
        if sent != len(data):
            raise CallLost(f"call {self.number}: the service does not read what it is sent")

    def hear(self, to_monotonic: float) -> None:
        """Take what there is to read.

        Args:
            to_monotonic: what to add to the kernel's time of day.

        Raises:
            CallLost: the call is over.
        """
        try:
            data, stamps, _, _ = self.socket.recvmsg(READ_BYTES, _STAMP_ROOM)
        except BlockingIOError:
            return
        except OSError as error:
            raise CallLost(f"call {self.number}: {error}") from error
        if not data:
            raise CallLost(f"call {self.number}: the service closed the connection")
        if not stamps:
            raise CallLost(f"call {self.number}: the kernel does not say when packets came")
        seconds, nanoseconds = _STAMP.unpack(stamps[0][2])
        came = seconds + nanoseconds * 1e-9 + to_monotonic
        try:
            sounds = self._wire.sounds(data)
        except CallLost as lost:
            raise CallLost(f"call {self.number}: {lost}") from lost
        log = self.log
        for audible in sounds:
            log.arrived.append(came)
            log.audible.append(audible)
            if audible:
                self._heard(came)

    def _heard(self, came: float) -> None:
        if self._hearing_since is None:
            self._hearing_since = came
            self._marked = False
            self._barge_after_s = self._chance.uniform(*self._manner.barge_after_s)
        self._last_audible = came
        if self._at >= len(self._saying):  # otherwise it is what we talk over, and no answer to us
            self._quiet_since = came

    def _choose(self, now: float) -> None:
        """Nothing is being said: whether that should change."""
        hearing = self._hearing_since
        if hearing is not None:
            said = len(self.log.says)
            every = self._manner.barge_every
            barges = said % every == (1 + self.number) % every and said > 0
            if barges and now - hearing >= self._barge_after_s:
                self._begin(True)
            return
        quiet = now - self._quiet_since
        if quiet < MARK_AFTER_S or not self.greeted:
            return
        if not self._marked:
            self._marked = True
            self.log.marks.append(len(self.log.sent) * FRAME_SAMPLES)
            self._saying, self._at = (MARK,), 0
        elif (
            quiet >= SAY_AFTER_S and self._marked and self._spoken <= self._manner.share * len(self.log.sent)
        ):
            self._begin(False)

    def _begin(self, barging: bool) -> None:
        say = self._says[(self.number * 5 + len(self.log.says)) % len(self._says)]
        first = len(self.log.sent)
        self.log.says.append((first, len(say.frames), first * FRAME_SAMPLES + say.onset, barging))
        self._saying, self._at = say.frames, 0
        self._spoken += len(say.frames)
        self._quiet_since = time.monotonic() + len(say.frames) * FRAME_S + REPLY_WITHIN_S


class Callers:
    """All calls, and the one loop that they share. A context: it ends them on the way out."""

    def __init__(
        self, port: int, manner: Manner | None = None, wire: Callable[[], Wire] = AudioSocketWire
    ) -> None:
        """
        Args:
            port: where to call.
            manner: how callers behave.
            wire: makes what a call speaks.
        """
        self._port = port
        self._wire = wire
        self._manner = manner or Manner()
        self._says = media.says()
        self._poll = select.epoll()
        self._by_descriptor: dict[int, Caller] = {}
        self._phases: list[list[Caller]] = [[] for _ in range(PHASES)]
        self._due = time.monotonic()
        self._phase = 0
        self._called = 0
        self.callers: list[Caller] = []
        self.lateness_s = _times()
        """How late our own ticks were: where this is long callers spoke late, and in bursts."""

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in tuple(self.callers):
            self.hang_up(caller)
        self._poll.close()

    def place(self, call_id: UUID) -> Caller:
        """Place a call.

        Raises:
            CallLost: nobody takes it.
        """
        number = self._called
        try:
            caller = Caller(number, call_id, self._port, self._says, self._manner, self._wire())
        except OSError as error:
            raise CallLost(f"call {number}: {error}") from error
        self._called += 1
        self.callers.append(caller)
        self._phases[number % PHASES].append(caller)
        self._by_descriptor[caller.socket.fileno()] = caller
        self._poll.register(caller.socket, select.EPOLLIN)
        return caller

    def call(self, call_id: UUID) -> Caller:
        """Place a call, and go on until it is greeted.

        Raises:
            CallLost: it is not.
        """
        caller = self.place(call_id)
        if not self.go_on(time.monotonic() + GREETED_S, until=lambda: caller.greeted):
            raise CallLost(f"call {caller.number}: no sound of the greeting within {GREETED_S:g} s")
        return caller

    def hang_up(self, caller: Caller) -> None:
        """End a call, as Asterisk does: close the connection."""
        self._poll.unregister(caller.socket)
        del self._by_descriptor[caller.socket.fileno()]
        caller.socket.close()
        self.callers.remove(caller)
        self._phases[caller.number % PHASES].remove(caller)

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
            else:
                time.sleep(min(self._due, end) - now)
        return False

    def _tick(self, now: float) -> None:
        self.lateness_s.append(now - self._due)
        to_monotonic = time.monotonic() - time.time()
        for descriptor, _ in self._poll.poll(0, len(self._by_descriptor) or 1):
            self._by_descriptor[descriptor].hear(to_monotonic)
        for caller in self._phases[self._phase]:
            caller.speak()
        self._phase = (self._phase + 1) % PHASES
        self._due += FRAME_S / PHASES


__all__ = [
    "FRAME_S",
    "SO_TIMESTAMPNS",
    "AudioSocketWire",
    "CallLost",
    "Caller",
    "Callers",
    "Log",
    "Manner",
    "Wire",
]
