"""A telephone that speaks AudioSocket as Asterisk does: for tests, the demo, the bench and ``porteiro call``.

It connects, says which call it is, and sends one 20 ms frame every 20 ms by absolute deadlines, silence where
it has nothing to say. It keeps what it hears with the time of each frame, and knows by the level alone when
the other side speaks and when it has finished.
"""

from __future__ import annotations

import asyncio
import math
import time
import wave
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

import numpy as np
import soxr

from bridge.endpoints.audiosocket_frames import (
    Audio,
    Frame,
    FrameError,
    FrameParser,
    Hangup,
    Side,
    encode_audio,
    encode_key,
    encode_uuid,
)
from bridge.endpoints.base import FRAME_BYTES, FRAME_MS, FRAME_RATE

FRAME_S = FRAME_MS / 1000
SILENCE = bytes(FRAME_BYTES)

SPEECH_DBOV = -45.0
"""From this level on a frame counts as speech. Telephone speech is at -30 to -15, line noise below -55."""

SPEECH_MS = 60
"""Speech begins with this much at a stretch: a click is none."""

PAUSE_MS = 200
"""A pause shorter than this is within one stretch of speech."""

CATCH_UP_S = 1.0
"""Behind its deadlines by less, the phone catches up; by more (the machine slept), it starts anew."""

ALIGN_MS = 60
"""In a recording, a frame that came this late stands where it was heard; a smaller lag is jitter."""

CLOSE_S = 2.0
"""How long the connection may take to close."""


ClosedKind = Literal["hangup", "local", "closed", "network_error", "protocol_error"]


@dataclass(frozen=True, slots=True)
class PhoneClosed:
    """How the call ended.

    Attributes:
        kind: ``hangup``: the other side's hang-up frame. ``local``: we hung up. ``closed``: the other side
            closed without a hang-up frame. ``network_error`` and ``protocol_error``: as they say.
        detail: in words.
    """

    kind: ClosedKind
    detail: str

    @property
    def orderly(self) -> bool:
        """It ended by a hang-up, of either side."""
        return self.kind in ("hangup", "local")


class CallEnded(ConnectionError):
    """What was waited for can't come: the call is over. ``how`` says how it ended."""

    def __init__(self, how: PhoneClosed) -> None:
        super().__init__(f"the call ended ({how.kind}): {how.detail}")
        self.how = how


@dataclass(slots=True)
class Span:
    """A stretch of speech that was heard: monotonic seconds of its first and (so far) last frame."""

    start: float
    end: float


@dataclass(slots=True)
class _Say:
    """Something to be said: what is left of it, and who waits for its end."""

    pcm: bytes
    done: asyncio.Future[None]
    at: int = 0


def dbov(pcm: bytes) -> float:
    """The level of signed 16-bit PCM against the overload point (RFC 6464), -127 for digital silence."""
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
    power = float(samples @ samples) / max(1, len(samples)) / 32768.0**2
    return max(-127.0, 10 * math.log10(power)) if power > 0 else -127.0


def load_wav(path: Path) -> bytes:
    """A WAV file as 8 kHz signed 16-bit mono; channels are averaged, other rates resampled (soxr, VHQ).

    Raises:
        ValueError: not a PCM WAV file; the text names the file and what was found.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: not a PCM WAV file ({error or 'it ends too soon'})") from error
    samples = _samples(raw, width).reshape(-1, channels).mean(axis=1)
    if rate != FRAME_RATE:
        samples = soxr.resample(samples, rate, FRAME_RATE, quality="VHQ")
    whole: bytes = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    return whole


def _samples(raw: bytes, width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """PCM of 1 to 4 bytes a sample, as -1 to 1."""
    if width == 1:  # the one width that WAV stores unsigned
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = wide.tobytes(), 4
    return np.frombuffer(raw, f"<i{width}").astype(np.float64) / float(1 << (8 * width - 1))


class Softphone:
    """One call. Use it as an asynchronous context: it connects on entry, and hangs up on exit.

    Args:
        host, port: of the AudioSocket server.
        call_id: the UUID that the call is known by.
        speech_dbov: the level from which on what is heard counts as speech.
        keep_audio: keep what is said and heard (32 kB a second); without it :meth:`save` has nothing.
        microphone: asked every 20 ms when nothing else is being said: 320 bytes, or None for silence.
        loudspeaker: given each frame as it is heard.
        local_host: the address to connect from.
        connect_s: the deadline of the connection (Asterisk's is 2 s too).

    Attributes:
        closed: done once the call is over, with how it ended.
        heard: all that was received, 8 kHz signed 16-bit mono.
        arrivals: the monotonic time of each frame in ``heard``.
        said: all that was sent, silence included.
        started: the monotonic time of the first frame sent.
        speech: the stretches of speech in what was heard.
    """

    def __init__(
        self,
        host: str,
        port: int,
        call_id: UUID,
        *,
        speech_dbov: float = SPEECH_DBOV,
        keep_audio: bool = True,
        microphone: Callable[[], bytes | None] | None = None,
        loudspeaker: Callable[[bytes], None] | None = None,
        local_host: str | None = None,
        connect_s: float = 2.0,
    ) -> None:
        self.host, self.port, self.call_id = host, port, call_id
        self.heard = bytearray()
        self.arrivals: list[float] = []
        self.said = bytearray()
        self.speech: list[Span] = []
        self.started = 0.0
        self.frames_sent = 0
        self.level = -127.0
        self.closed: asyncio.Future[PhoneClosed]
        self._speech_dbov = speech_dbov
        self._keep_audio = keep_audio
        self._microphone = microphone
        self._loudspeaker = loudspeaker
        self._local_host = local_host
        self._connect_s = connect_s
        self._transport: asyncio.Transport | None = None
        self._says: deque[_Say] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._origin = 0.0
        self._ticks = 0
        self._loud_frames = 0
        self._moved = asyncio.Event()
        self._gone = asyncio.Event()
        self._frame_bytes: list[int] = []

    # ---- The call --------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect and send the UUID.

        Raises:
            ConnectionError: nobody listens there, or not in time.
        """
        loop = asyncio.get_running_loop()
        self.closed = loop.create_future()
        local = (self._local_host, 0) if self._local_host else None
        try:
            async with asyncio.timeout(self._connect_s):
                transport, _ = await loop.create_connection(
                    lambda: _Wire(self), self.host, self.port, local_addr=local
                )
        except TimeoutError as error:
            raise ConnectionError(
                f"{self.host}:{self.port} did not answer in {self._connect_s:g} s"
            ) from error
        except OSError as error:
            raise ConnectionError(f"cannot call {self.host}:{self.port}: {error}") from error
        self._transport = transport
        self._transport.write(encode_uuid(self.call_id))
        self._origin = loop.time()
        self.started = time.monotonic()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up, if the call still goes on, and wait until the connection is gone."""
        self.hang_up()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._gone.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def hang_up(self) -> None:
        """End the call as Asterisk does: close the connection, without a frame."""
        self.end("local", "hung up here")

    # ---- Saying ----------------------------------------------------------------------------------------

    @property
    def is_speaking(self) -> bool:
        """Something is being said, or waits to be."""
        return bool(self._says)

    async def say(self, what: bytes | Path) -> None:
        """Say it after all that is being said; returns once its last frame was sent.

        Args:
            what: 8 kHz signed 16-bit mono PCM, or a WAV file of any rate.

        Raises:
            CallEnded: before it was said.
        """
        pcm = await asyncio.to_thread(load_wav, what) if isinstance(what, Path) else what
        if not pcm:
            return
        done = self.say_nowait(pcm)
        seconds = sum(len(say.pcm) for say in self._says) / (2 * FRAME_RATE)
        async with asyncio.timeout(seconds + 10):
            await done

    def say_nowait(self, what: bytes | Path) -> asyncio.Future[None]:
        """Say it after all that is being said; the future is done once its last frame was sent.

        Raises:
            CallEnded: the call is over (the future raises it, where it ends meanwhile).
        """
        if self.closed.done():
            raise CallEnded(self.closed.result())
        pcm = load_wav(what) if isinstance(what, Path) else what
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody need wait for it: a call that ends in mid-word is no error of whoever did not ask.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        if pcm:
            self._says.append(_Say(pcm, done))
        else:
            done.set_result(None)
        return done

    def be_silent(self) -> None:
        """Drop what is being said and what waits; those who wait for it go on."""
        while self._says:
            done = self._says.popleft().done
            if not done.done():
                done.set_result(None)

    def send_key(self, digit: str) -> None:
        """Press a key (``0-9A-D*#``).

        Raises:
            CallEnded: the call is over.
            ValueError: no such key.
        """
        frame = encode_key(digit)
        if self.closed.done():
            raise CallEnded(self.closed.result())
        if self._transport is not None:
            self._transport.write(frame)

    def _tick(self) -> None:
        """Send this 20 ms, and set the alarm for the next: each deadline counts from the first, so that no
        lateness adds up."""
        transport = self._transport
        if transport is None or self.closed.done():
            return
        if self._ticks and transport.get_write_buffer_size():
            # Asterisk's socket does not block: what did not fit at once ends its call.
            self.end("network_error", "the server does not read: a frame did not fit into the connection")
            return
        frame = self._next_frame()
        transport.write(encode_audio(frame))
        self.frames_sent += 1
        if self._keep_audio:
            self.said += frame
        self._ticks += 1
        self._moved.set()
        loop = asyncio.get_running_loop()
        due = self._origin + self._ticks * FRAME_S
        if loop.time() - due > CATCH_UP_S:
            self._origin, self._ticks, due = loop.time(), 1, loop.time() + FRAME_S
        self._timer = loop.call_at(due, self._tick)

    def _next_frame(self) -> bytes:
        """The next 20 ms of what is to be said; the end of a say is filled up with silence."""
        if self._says:
            say = self._says[0]
            frame = say.pcm[say.at : say.at + FRAME_BYTES]
            say.at += FRAME_BYTES
            if say.at >= len(say.pcm):
                self._says.popleft()
                if not say.done.done():
                    say.done.set_result(None)
            return frame.ljust(FRAME_BYTES, b"\0")
        return (self._microphone() if self._microphone else None) or SILENCE

    # ---- Hearing ---------------------------------------------------------------------------------------

    async def wait_for_speech(self, *, since: float | None = None, timeout_s: float = 30.0) -> float:
        """Wait until the other side speaks (60 ms at a stretch).

        Args:
            since: speech from this monotonic time on counts; None: from now on. Speech that goes on counts.

        Returns:
            The monotonic time at which it began to be heard, not before ``since``.

        Raises:
            TimeoutError: nothing was said in time.
            CallEnded: the call ended first.
        """
        after = time.monotonic() if since is None else since

        def spoken() -> float | None:
            for span in self.speech:
                if span.end >= after:
                    return max(span.start, after)
            return None

        return await self._until(spoken, timeout_s, "speech")

    async def wait_for_quiet(self, ms: int = 900, *, timeout_s: float = 60.0) -> float:
        """Wait until nothing but silence has been heard for ``ms``.

        Returns:
            The monotonic time at which the last speech ended (that of the start of the call: there was none).

        Raises:
            TimeoutError: the other side went on and on.
            CallEnded: the call ended first.
        """

        def quiet() -> float | None:
            last = self.speech[-1].end if self.speech else self.started
            return last if time.monotonic() - last >= ms / 1000 and not self._loud_frames else None

        return await self._until(quiet, timeout_s, f"{ms} ms of quiet")

    @property
    def is_hearing_speech(self) -> bool:
        """The other side speaks right now, or paused less than 200 ms ago."""
        return bool(self.speech) and time.monotonic() - self.speech[-1].end < PAUSE_MS / 1000

    async def _until(self, condition: Callable[[], float | None], timeout_s: float, what: str) -> float:
        """Look at ``condition`` whenever a frame goes or comes."""
        try:
            async with asyncio.timeout(timeout_s):
                while (found := condition()) is None:
                    if self.closed.done():
                        raise CallEnded(self.closed.result())
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError as error:
            raise TimeoutError(f"no {what} within {timeout_s:g} s") from error
        return found

    def take(self, pcm: bytes, now: float) -> None:
        """A frame was heard, at the monotonic time ``now``."""
        if self._keep_audio:
            self.heard += pcm
            self._frame_bytes.append(len(pcm))
        self.arrivals.append(now)
        self.level = dbov(pcm)
        self._note_speech(now, len(pcm) / (2 * FRAME_RATE))
        if self._loudspeaker is not None:
            self._loudspeaker(pcm)
        self._moved.set()

    def _note_speech(self, now: float, seconds: float) -> None:
        """Keep the stretches of speech up to date."""
        if self.level < self._speech_dbov:
            self._loud_frames = 0
            return
        self._loud_frames += 1
        if self.speech and now - self.speech[-1].end <= PAUSE_MS / 1000:
            self.speech[-1].end = now
        elif self._loud_frames * seconds * 1000 >= SPEECH_MS:
            self.speech.append(Span(now - (self._loud_frames - 1) * seconds, now))

    # ---- Keeping ---------------------------------------------------------------------------------------

    def save(self, path: Path, *, stereo: bool = True) -> None:
        """Write the call as an 8 kHz 16-bit WAV: what was said left and what was heard right, as they fell in
        time; or only what was heard. Writes a file: not for the event loop of a running call."""
        heard = self._heard_in_time()
        said = np.frombuffer(bytes(self.said), "<i2")
        tracks = [said, heard] if stereo else [heard]
        out = np.zeros((max(map(len, tracks)), len(tracks)), "<i2")
        for channel, track in enumerate(tracks):
            out[: len(track), channel] = track
        with wave.open(str(path), "wb") as file:
            file.setnchannels(len(tracks))
            file.setsampwidth(2)
            file.setframerate(FRAME_RATE)
            file.writeframes(out.tobytes())

    def _heard_in_time(self) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        """What was heard, each frame behind the one before it, or where it came if that was much later."""
        pieces: list[bytes] = []
        at = written = 0
        for size, arrival in zip(self._frame_bytes, self.arrivals, strict=True):
            due = int((arrival - self.started) * FRAME_RATE) * 2
            if due - written > ALIGN_MS * FRAME_RATE // 1000 * 2:
                pieces.append(bytes(due - written))
                written = due
            pieces.append(bytes(self.heard[at : at + size]))
            at += size
            written += size
        return np.frombuffer(b"".join(pieces), "<i2")

    # ---- The end ---------------------------------------------------------------------------------------

    def end(self, kind: ClosedKind, detail: str) -> None:
        """The call is over; the first to say so is right."""
        if self.closed.done():
            return
        self.closed.set_result(PhoneClosed(kind, detail))
        if self._timer is not None:
            self._timer.cancel()
        while self._says:
            done = self._says.popleft().done
            if not done.done():
                done.set_exception(CallEnded(self.closed.result()))
        self._moved.set()
        if self._transport is not None:
            if kind == "network_error":
                self._transport.abort()  # a close would wait for what the other side does not read
            else:
                self._transport.close()

    def gone(self) -> None:
        """The connection is closed."""
        self._gone.set()


class _Wire(asyncio.Protocol):
    """The phone's connection. It always reads, as a telephone always listens."""

    def __init__(self, phone: Softphone) -> None:
        self._phone = phone
        self._parser = FrameParser(Side.PBX)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        now = time.monotonic()
        try:
            frames: Sequence[Frame] = self._parser.feed(data)
        except FrameError as error:
            self._take(error.frames, now)
            self._phone.end("protocol_error", str(error))
        else:
            self._take(frames, now)

    def _take(self, frames: Sequence[Frame], now: float) -> None:
        for frame in frames:
            match frame:
                case Audio(rate, pcm) if rate == FRAME_RATE:
                    self._phone.take(pcm, now)
                case Hangup():
                    self._phone.end("hangup", "the other side hung up")
                case _:
                    # Asterisk's AudioSocket() forces 8 kHz, and its parser knows no other kinds.
                    self._phone.end("protocol_error", f"found {type(frame).__name__}; allowed is 8 kHz audio")

    def eof_received(self) -> bool:
        """The server closed."""
        self._phone.end("closed", "the other side closed the connection without hanging up")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._phone.end("network_error", f"the connection broke: {exc or 'closed'}")
        self._phone.gone()
