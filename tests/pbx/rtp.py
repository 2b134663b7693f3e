"""A telephone's sound: sends a frame every 20 ms, and plays what comes through a buffer of a fixed delay.

What is *heard* is what that buffer had when each sample was due: a packet that came too late is a hole, as it
is in a telephone. Packets are timed by the kernel (SO_TIMESTAMPNS), not by this process, which may be busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from bridge.softphone import SPEECH_DBOV, dbov
from tests.pbx.sip import PAYLOADS

Samples = npt.NDArray[np.int16]

RATE = 8000
FRAME = 160
FRAME_S = FRAME / RATE

BUFFER_S = 0.1
"""How long a packet waits to be played: what the telephone allows a late one (real ones: 60 to 200 ms)."""

NEW_STRETCH_S = 0.2
"""A packet whose timestamp is off by more begins a new stretch, as a telephone's buffer starts anew."""

SO_TIMESTAMPNS = 35
HEADER = struct.Struct("!BBHII")
KEYS = "0123456789*#ABCD"
KEY_FRAMES = 6
"""A key lasts 120 ms: Brazilian exchanges ask for 65."""
CATCH_UP_S = 1.0

CODECS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "PCMA": (alaw_encode, alaw_decode),
    "PCMU": (ulaw_encode, ulaw_decode),
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One that came: `at` is the kernel's monotonic second of its arrival."""

    at: float
    sequence: int
    timestamp: int
    source: int
    pcm: bytes


@dataclass(slots=True)
class _Say:
    pcm: bytes
    done: asyncio.Future[None]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came out of the telephone's earpiece.

    Attributes:
        samples: 8 kHz, from `started` on; silence where nothing came.
        started: monotonic second of the first.
        present: for each sample, whether it came in time.
        late: packets that came after they were due.
    """

    samples: Samples
    started: float
    present: npt.NDArray[np.bool_]
    late: int

    def between(self, start: float, end: float) -> Samples:
        """The part between two monotonic seconds."""
        first, last = (max(0, round((t - self.started) * RATE)) for t in (start, end))
        return self.samples[first:last]


class Sound:
    """One call's RTP, both ways."""

    def __init__(self, host: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((host, 0))
        self.port: int = self._socket.getsockname()[1]
        self.packets: list[Packet] = []
        self.keys: list[str] = []
        self.said: list[tuple[float, bytes]] = []
        """What was said, each frame with the monotonic second at which it went."""
        self._target: tuple[str, int] | None = None
        self._codec = "PCMA"
        self._keys_payload = 101
        self._sequence = secrets.randbelow(1 << 15)
        self._timestamp = secrets.randbelow(1 << 30)
        self._source = secrets.randbelow(1 << 32)
        self._says: deque[_Say] = deque()
        self._pressing: deque[bytes] = deque()
        self._key_seen = -1
        self._timer: asyncio.TimerHandle | None = None
        self._origin = 0.0
        self._ticks = 0
        self._loop = asyncio.get_running_loop()
        self._to_monotonic = time.monotonic() - time.time()
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self.last_loud = -1.0
        self.loud_frames = 0
        self.closed = False

    # ---- Saying ----------------------------------------------------------------------------------------

    def talk_to(self, address: tuple[str, int], codec: str, keys_payload: int) -> None:
        """Send there from now on."""
        self._target, self._codec, self._keys_payload = address, codec, keys_payload
        if self._timer is None and not self.closed:
            self._origin, self._ticks = self._loop.time(), 0
            self._tick()

    def say(self, pcm: bytes) -> asyncio.Future[None]:
        """Say 8 kHz PCM behind all that is being said; done once its last frame went, or the call ended."""
        done: asyncio.Future[None] = self._loop.create_future()
        if pcm and not self.closed:
            self._says.append(_Say(pcm, done))
        else:
            done.set_result(None)
        return done

    def press(self, key: str) -> None:
        """Press a key, as a telephone event (RFC 4733)."""
        event = KEYS.index(key)
        for number in range(1, KEY_FRAMES + 1):
            self._pressing.append(struct.pack("!BBH", event, 10, number * FRAME))
        for _ in range(3):  # the end is said thrice
            self._pressing.append(struct.pack("!BBH", event, 0x80 | 10, KEY_FRAMES * FRAME))
        self._pressing.append(b"")

    def _tick(self) -> None:
        if self.closed or self._target is None:
            return
        if self._pressing:
            self._send_key(self._pressing.popleft())
        else:
            self._send_frame()
        self._ticks += 1
        due = self._origin + self._ticks * FRAME_S
        if self._loop.time() - due > CATCH_UP_S:
            self._origin, self._ticks, due = self._loop.time(), 0, self._loop.time()
        self._timer = self._loop.call_at(due, self._tick)

    def _send_frame(self) -> None:
        frame = self._next().ljust(2 * FRAME, b"\0")
        self.said.append((time.monotonic(), frame))
        self._send(PAYLOADS[self._codec], CODECS[self._codec][0](frame), self._timestamp)
        self._timestamp = (self._timestamp + FRAME) & 0xFFFFFFFF

    def _send_key(self, event: bytes) -> None:
        """An event's packets all carry the timestamp of its beginning."""
        if event:
            first = event[2:] == struct.pack("!H", FRAME)
            self._send(self._keys_payload, event, self._timestamp, marker=first)
        else:
            self._timestamp = (self._timestamp + (KEY_FRAMES + 3) * FRAME) & 0xFFFFFFFF

    def _send(self, payload: int, body: bytes, timestamp: int, *, marker: bool = False) -> None:
        assert self._target is not None
        header = HEADER.pack(0x80, payload | (0x80 if marker else 0), self._sequence, timestamp, self._source)
        self._sequence = (self._sequence + 1) & 0xFFFF
        # A loopback that is full for a moment loses a packet, as any network does; the other side closing
        # its port first is no error of ours.
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._socket.sendto(header + body, self._target)

    def _next(self) -> bytes:
        if not self._says:
            return b""
        say = self._says[0]
        frame = say.pcm[say.at : say.at + 2 * FRAME]
        say.at += 2 * FRAME
        if say.at >= len(say.pcm):
            self._says.popleft()
            if not say.done.done():
                say.done.set_result(None)
        return frame

    # ---- Hearing ---------------------------------------------------------------------------------------

    def _readable(self) -> None:
        while True:
            try:
                data, extra, _, _ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            at = time.monotonic()
            for level, kind, content in extra:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("@ll", content[:16])
                    at = seconds + nanoseconds / 1e9 + self._to_monotonic
            self._take(data, at)

    def _take(self, data: bytes, at: float) -> None:
        if len(data) <= HEADER.size:
            return
        first, second, sequence, timestamp, source = HEADER.unpack_from(data)
        body = data[HEADER.size + 4 * (first & 0x0F) :]
        payload = second & 0x7F
        if payload == self._keys_payload and payload not in PAYLOADS.values():
            if body[1] & 0x80 and timestamp != self._key_seen:
                self._key_seen = timestamp
                self.keys.append(KEYS[body[0]])
            return
        codec = next((name for name, number in PAYLOADS.items() if number == payload), None)
        if codec is None:
            return
        pcm = CODECS[codec][1](body)
        self.packets.append(Packet(at, sequence, timestamp, source, pcm))
        if dbov(pcm) >= SPEECH_DBOV:
            self.loud_frames += 1
            if self.loud_frames >= 3:
                self.last_loud = at
        else:
            self.loud_frames = 0

    def heard(self) -> Heard:
        """Everything so far, as the telephone played it."""
        return play_out(self.packets)

    def close(self) -> None:
        """Nothing goes or comes any more."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._says:
            done = self._says.popleft().done
            if not done.done():
                done.set_result(None)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


def play_out(packets: list[Packet]) -> Heard:
    """Play packets through a buffer of `BUFFER_S`, each where its timestamp says, if it came in time."""
    if not packets:
        return Heard(np.zeros(0, np.int16), 0.0, np.zeros(0, np.bool_), 0)
    started = packets[0].at + BUFFER_S
    seconds = packets[-1].at - packets[0].at + 2 * NEW_STRETCH_S + 1.0
    samples = np.zeros(round(seconds * RATE), np.int16)
    present = np.zeros(len(samples), np.bool_)
    late = 0
    anchor: tuple[float, int, int] | None = None  # due, timestamp, source of the stretch's first
    end = 0
    for packet in packets:
        due = packet.at + BUFFER_S
        if anchor is not None and anchor[2] == packet.source:
            ahead = (packet.timestamp - anchor[1] + (1 << 31)) % (1 << 32) - (1 << 31)
            by_stamp = anchor[0] + ahead / RATE
            if abs(by_stamp - due) <= NEW_STRETCH_S:
                if packet.at > by_stamp:
                    late += 1
                    continue
                due = by_stamp
            else:
                anchor = None
        if anchor is None or anchor[2] != packet.source:
            anchor = (due, packet.timestamp, packet.source)
        place = round((due - started) * RATE)
        pcm = np.frombuffer(packet.pcm, "<i2")
        if place < 0 or place + len(pcm) > len(samples):
            continue
        samples[place : place + len(pcm)] = pcm
        present[place : place + len(pcm)] = True
        end = max(end, place + len(pcm))
    return Heard(samples[:end], started, present[:end], late)
