"""The media of Asterisk's WebSocket channel, without I/O: formats and pacing.

Asterisk owns the clock: its timer takes one frame from its queue each packet time. Where there is none, the
other side hears nothing, or silence that earlier versions made. What lies in that queue can be taken back
(FLUSH_MEDIA), but it is also delay, and what a caller has heard of it is a guess. So the speech waits with
us, and Asterisk is given two to three frames: enough that neither our clock's jitter nor the network's is
heard. That holds after a standstill of ours too: Asterisk's timer went on meanwhile, so what the clock makes
good is more than the queue has room for. It waits here, and the next pause in what we say is shorter by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from audio.resample import Resampler
from bridge.endpoints.asterisk_websocket_control import (
    MAX_FRAME_BYTES,
    Command,
    Form,
    MediaStart,
    command,
)
from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE
from bridge.endpoints.flow import ControlError

MAX_MEDIA_BYTES = 65_500
"""The longest message either way: a longer one of ours ends the call in Asterisk."""

CUSHION_FRAMES = 2
"""What Asterisk holds when the next frame is due."""

LEAST_FRAMES = 1.0
"""Below so many, silence is put before a silent frame, up to the cushion …"""

STARVED_FRAMES = 0.2
"""… and below so many, before a spoken one too: Asterisk has nothing to play, or will in a moment."""

FULL_FRAMES = CUSHION_FRAMES + 1.0
"""Above so many, speech waits with us: Asterisk never has more than one frame beyond that, and because of it
never less than the cushion. Silence does not wait, it is left out: so a backlog is worked off unheard."""

MOST_FRAMES = 10
"""Above so many, there and here, a spoken frame is left out too: it would be heard 200 ms late."""

STOOD_STILL_S = 0.030
"""So long between two of our ticks, and our event loop stood still: what is read then is as old as that."""

MARK_EVERY = 10
"""Frames between two marks. Each mark that comes back says how much has really been played."""

SILENCE = bytes(FRAME_BYTES)


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Format:
    """One of Asterisk's formats: its sample rate, bytes a sample, and the way from and to PCM."""

    name: str
    rate: int
    sample_bytes: int
    decode: Callable[[bytes], bytes] = _same
    encode: Callable[[bytes], bytes] = _same


FORMATS = {
    each.name: each
    for each in (
        Format("ulaw", 8_000, 1, ulaw_decode, ulaw_encode),
        Format("alaw", 8_000, 1, alaw_decode, alaw_encode),
        Format("slin", 8_000, 2),
        Format("slin16", 16_000, 2),
    )
}
"""What a channel may be made with: ``c(…)`` in the dial string."""


def format_of(start: MediaStart) -> Format:
    """The format of a channel.

    Raises:
        ControlError: another format than ours, passthrough mode, or sizes that contradict each other.
    """
    form = FORMATS.get(start.format)
    if form is None:
        raise ControlError(f"the format {start.format!r}", f"c({'), c('.join(FORMATS)})")
    size = form.rate * start.ptime_ms * form.sample_bytes // 1000
    if start.optimal_frame_size != size or not 0 < size <= MAX_FRAME_BYTES:
        raise ControlError(
            f"frames of {start.optimal_frame_size} bytes for {start.ptime_ms} ms of {form.name}",
            f"{size} bytes, and no passthrough mode",
        )
    return form


def pcm_of(form: Format, media: bytes) -> bytes:
    """Little-endian signed 16-bit mono PCM, at the format's rate, of one binary message.

    Raises:
        ControlError: it holds half a sample.
    """
    if len(media) % form.sample_bytes:
        raise ControlError(f"{len(media)} bytes of {form.name}", "whole samples")
    return form.decode(media)


# --------------------------------------------------------------------------------------------------------
# Down
# --------------------------------------------------------------------------------------------------------


class Downstream:
    """What goes down, and what of it Asterisk still holds.

    Its queue is known by a model, a bucket that one frame leaves each packet time, and by the marks that come
    back, which put the model right. Times are seconds on any clock that only goes forward.

    Attributes:
        frames_sent: frames of the leg that went out, or wait for the next tick.
        frames_dropped: frames of the leg that were let go: Asterisk said XOFF, or too many were before them.
    """

    def __init__(self, start: MediaStart, form: Form) -> None:
        """
        Raises:
            ControlError: as :func:`format_of`.
        """
        self.format = format_of(start)
        self.form = form
        self.frames_sent = 0
        self.frames_dropped = 0
        self.paused = False
        """Asterisk's queue stands still: only a status can say so, we never pause it."""
        self._size = start.optimal_frame_size
        self._period = start.ptime_ms / 1000
        self._silence = self.format.encode(bytes(2 * self._size // self.format.sample_bytes))
        self._to_wire: Resampler | None = None
        if self.format.rate != FRAME_RATE:
            self._to_wire = Resampler(FRAME_RATE, self.format.rate, limit=True)
            # Begun with the filter's delay of silence, it gives a whole frame for each from the first on.
            self._to_wire.process(bytes(2 * round(self._to_wire.delay_ms * FRAME_RATE / 1000)))
        self._rest = b""
        """Less than a wire frame."""
        self._kept: deque[bytes] = deque()
        """Wire frames for which Asterisk has no room yet."""
        self._queue = 0.0
        self._queue_at = 0.0
        self._given = 0
        """Wire frames since the call began."""
        self._flushed_at = 0
        """Where the last flush stands among them: marks from before it say nothing of the queue."""
        self._marked_at = 0
        self._held_back = False
        self._ticked_at = 0.0
        self._stood_still = (0.0, 0.0)
        """Our last standstill: until when, and for how long."""

    def held(self, now: float) -> float:
        """Frames, and the part of the one that is being played, which Asterisk has not played yet."""
        if not self.paused:
            self._queue = max(0.0, self._queue - (now - self._queue_at) / self._period)
        self._queue_at = now
        return self._queue

    def play(self, pcm: bytes, now: float) -> list[bytes | str]:
        """Take one frame of the leg's; the messages that Asterisk has room for now."""
        if now - self._ticked_at > STOOD_STILL_S:
            self._stood_still = (now, now - self._ticked_at)
        self._ticked_at = now
        silent = pcm == SILENCE
        held = self.held(now)
        backlog = len(self._kept)
        full = bool(backlog) or held > FULL_FRAMES
        if self._held_back or (silent and full) or held + backlog > MOST_FRAMES:
            if self._to_wire is not None:
                self._to_wire.process(pcm)  # what is left out still is the past of what follows
            if not silent:
                self.frames_dropped += 1
        else:
            self.frames_sent += 1
            self._keep(pcm)
        if self._held_back or held > FULL_FRAMES or not self._kept:
            return []
        fill = 0
        if held < (LEAST_FRAMES if silent else STARVED_FRAMES):
            # In the middle of a word one frame at a time: the gap that is there is not made much longer.
            fill = max(0, (round(CUSHION_FRAMES - held) if silent else 1) - backlog)
        return self._give(int(FULL_FRAMES - held) + 1, fill)

    def rest(self) -> list[bytes | str]:
        """The messages that carry all that waits here, where no further frame will come."""
        return self._give(len(self._kept), 0) if self._kept and not self._held_back else []

    def _keep(self, pcm: bytes) -> None:
        """Put a frame of the leg's behind what waits."""
        if self._to_wire is not None:
            pcm = self._to_wire.process(pcm)
        self._rest += self.format.encode(pcm)
        while len(self._rest) >= self._size:
            self._kept.append(self._rest[: self._size])
            self._rest = self._rest[self._size :]

    def _give(self, most: int, fill: int) -> list[bytes | str]:
        """The messages that carry up to so many of the frames that wait, behind so many of silence."""
        media = [self._kept.popleft() for _ in range(min(most, len(self._kept)))]
        frames = fill + len(media)
        self._given += frames
        self._queue += frames
        messages: list[bytes | str] = [self._silence * fill + b"".join(media)]
        if self._given - self._marked_at >= MARK_EVERY:
            self._marked_at = self._given
            messages.append(command(self.form, Command.MARK_MEDIA, str(self._given)))
        return messages

    def played(self, mark: str, now: float) -> None:
        """A mark of ours came back: everything up to it has been played, and the frame behind it began.

        One that lay unread while we stood still says only what Asterisk held at some time in between.
        """
        if not (mark.isascii() and mark.isdigit() and len(mark) <= 12):
            return  # somebody else's
        given = int(mark)
        if self._flushed_at < given <= self._given:
            most = max(0.0, self._given - given - 0.5)
            least = max(0.0, most - self._unread_s(now) / self._period)
            self._queue = min(max(self.held(now), least), most)

    def _unread_s(self, now: float) -> float:
        """For how long what is read now may have lain there."""
        since = now - self._ticked_at
        if since > STOOD_STILL_S:
            return since
        until, lasted = self._stood_still
        return lasted if now - until < lasted else 0.0

    def flush(self, now: float) -> tuple[list[str], float]:
        """Drop what waits; the commands that take back what Asterisk holds; how many seconds nobody heard."""
        unheard = (self.held(now) + len(self._kept) + len(self._rest) / self._size) * self._period
        self._queue = 0.0
        self._kept.clear()
        self._rest = b""
        self._flushed_at = self._marked_at = self._given
        commands = [command(self.form, Command.FLUSH_MEDIA)]
        if self.paused:  # a flush does not let a paused queue go on
            commands.append(command(self.form, Command.CONTINUE_MEDIA))
            self.paused = False
        return commands, unheard

    def hold_back(self, on: bool) -> None:
        """XOFF or XON."""
        self._held_back = on


# --------------------------------------------------------------------------------------------------------
# The guard
# --------------------------------------------------------------------------------------------------------
