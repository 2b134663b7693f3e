"""The media of FreeSWITCH's audio streams, without I/O: what comes up, and the pacing of what goes down.

The modules play on their own clock and say nothing of what they have played. So little is given ahead, two to
three frames, and what they hold is known by a model: a bucket that one frame leaves every 20 ms. The model
and the module drift apart where the network stalls; so now and then, when we are silent anyway, nothing is
sent until the bucket is empty, and what the module holds then is known again: nothing.

What each module does with our audio, by its sources:

- mod_audio_stream 1.0.3 (``binary``) has none that can be read. Its documentation knows no message that drops
  what it holds.
- mod_audio_fork (``fork``) gathers 160 ms before the first is played and 80 ms at a time after that. Its
  ``killAudio`` drops what is to be played, at its next frame, but not what is still being gathered. So it is
  given whole 80 ms, of which nothing is left behind.
- voxcom's fork (``base64``) holds one STREAM_BUFFER_SIZE, and reads nothing while that is full. Nothing drops
  it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from audio.resample import Resampler
from bridge.endpoints.audio_stream_control import KILL_AUDIO, Playback, StreamForm, stream_audio
from bridge.endpoints.base import FRAME_BYTES, FRAME_MS, FRAME_RATE
from bridge.endpoints.flow import ControlError

MAX_MEDIA_BYTES = 65_500
"""The longest message that is read: 1 s of 16 kHz stereo. Protects memory."""

FRAME_S = FRAME_MS / 1000

CUSHION_FRAMES = 2
"""What the module holds when the next frame is due."""

LEAST_FRAMES = 1.0
"""Below so many, silence is put before a silent frame, up to the cushion …"""

STARVED_FRAMES = 0.2
"""… and below so many, before a spoken one too: the module has nothing to play, or will in a moment."""

FULL_FRAMES = CUSHION_FRAMES + 1.0
"""Above so many, speech waits with us. Silence does not wait, it is left out."""

MOST_FRAMES = 12
"""Above so many, there and here, a spoken frame is left out too: it would be heard 240 ms late."""

CLEARING_S = 0.04
"""After ``killAudio`` nothing is sent for so long: the module drops all that comes before its next frame."""

RESYNC_S = 10.0
"""So often the model is put right by a pause …"""

RESYNC_SILENT = 10
"""… once so many frames in a row were silent."""

RESYNC_FRAMES = 20
"""How much longer than by the model the pause lasts: a network that stood still for so long is forgotten."""

RATE_S = 3.0
"""After so much of a call it is looked whether audio comes at the rate that was said …"""

CERTAIN_S = 1.0
"""… and a wrong one must be seen for so long: the first message after a network's standstill looks alike."""

SILENCE = bytes(FRAME_BYTES)


# --------------------------------------------------------------------------------------------------------
# Up
# --------------------------------------------------------------------------------------------------------


def caller_of(form: StreamForm, media: bytes) -> bytes:
    """The caller, as little-endian signed 16-bit mono PCM at the stream's rate, of one binary message.

    Raises:
        ControlError: it is too long, or holds part of a sample.
    """
    if len(media) > MAX_MEDIA_BYTES:
        raise ControlError(f"a message of {len(media)} bytes of audio", f"up to {MAX_MEDIA_BYTES}")
    if len(media) % form.frame_bytes:
        channels = "mono" if form.channels == 1 else "stereo"
        raise ControlError(
            f"{len(media)} bytes of audio",
            f"whole samples of 16-bit {channels}, {form.frame_bytes} bytes each",
        )
    if form.channels == 1:
        return media
    return np.frombuffer(media, "<i2")[::2].tobytes()


class RateGuard:
    """Finds out whether a stream has another rate, or other channels, than was said.

    Twice and four times as many bytes, and a half and a quarter, are all that a wrong setting makes. What is
    between is a network that stalled, or a module that was paused.
    """

    def __init__(self, form: StreamForm) -> None:
        self._form = form
        self._began: float | None = None
        self._seconds = 0.0
        self._doubted: float | None = None
        """Since when it looks wrong."""
        self._judged = False

    def takes(self, seconds: float, now: float) -> None:
        """Count audio.

        Raises:
            ControlError: its rate is another one.
        """
        if self._judged:
            return
        if self._began is None:
            self._began = now
            return  # it was said before we began to count
        self._seconds += seconds
        elapsed = now - self._began
        if elapsed < RATE_S:
            return
        ratio = self._seconds / elapsed
        if not any(abs(ratio / wrong - 1) < 0.05 for wrong in (0.25, 0.5, 2.0, 4.0)):
            self._judged = True
            return
        if self._doubted is None:
            self._doubted = now
        if now - self._doubted >= CERTAIN_S:
            form = self._form
            raise ControlError(
                f"{ratio:.2g} times the audio of {form.rate} Hz with {form.channels} channel(s)",
                "what sample_rate and channels say, as the stream was started",
            )


# --------------------------------------------------------------------------------------------------------
# Down
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Way:
    """How a module takes our audio.

    Attributes:
        text: as JSON, with as many channels as come up; else binary, and mono.
        chunk: frames that are given together.
        first: silent frames before the very first, for what it gathers before it begins and for the cushion.
        clears: it drops what it holds when it is told to.
    """

    text: bool = False
    chunk: int = 1
    first: int = CUSHION_FRAMES - 1
    clears: bool = False


_WAYS: Mapping[Playback, _Way] = {
    "binary": _Way(),
    "fork": _Way(chunk=4, first=7, clears=True),
    "base64": _Way(text=True),
}


class Downstream:
    """The :class:`Player` of modules that play what comes over the stream itself.

    Times are seconds on any clock that only goes forward.
    """

    def __init__(self, form: StreamForm, playback: Playback) -> None:
        self.frames_sent = 0
        self.frames_dropped = 0
        self._form = form
        self._way = _WAYS[playback]
        self._to_wire: Resampler | None = None
        if form.rate != FRAME_RATE:
            self._to_wire = Resampler(FRAME_RATE, form.rate, limit=True)
            # Begun with the filter's delay of silence, it gives a whole frame for each from the first on.
            self._to_wire.process(bytes(2 * round(self._to_wire.delay_ms * FRAME_RATE / 1000)))
        self._silence = bytes(FRAME_BYTES * form.rate // FRAME_RATE)
        self._kept: deque[bytes] = deque()
        """Frames for which the module has no room yet."""
        self._begun = False
        self._queue = 0.0
        self._queue_at = 0.0
        self._clear_at = 0.0
        """From then on the module keeps what comes."""
        self._silent = 0
        """Silent frames in a row."""
        self._rest_until = float("-inf")
        """The end of the last pause in which the module ran empty."""

    def held(self, now: float) -> float:
        """See :class:`Player`."""
        self._queue = max(0.0, self._queue - max(0.0, now - self._queue_at) / FRAME_S)
        self._queue_at = now
        return self._queue

    def play(self, pcm: bytes, now: float) -> list[bytes | str]:
        """See :class:`Player`."""
        if not self._begun:
            self._rest_until = now
        silent = pcm == SILENCE
        held = self.held(now)
        self._silent = self._silent + 1 if silent else 0
        backlog = len(self._kept)
        full = backlog >= self._way.chunk or held > FULL_FRAMES
        if (silent and (full or self._rests(now))) or held + backlog > MOST_FRAMES:
            if self._to_wire is not None:
                self._to_wire.process(pcm)  # what is left out still is the past of what follows
            if not silent:
                self.frames_dropped += 1
        else:
            self.frames_sent += 1
            self._kept.append(pcm if self._to_wire is None else self._to_wire.process(pcm))
        if not self._kept or held > FULL_FRAMES or now < self._clear_at:
            return []
        self._fill(self._missing(held, silent))
        return self._give(int(FULL_FRAMES - held) + 1)

    def _rests(self, now: float) -> bool:
        """Whether a silent frame is left out so that the module runs empty."""
        if now < self._rest_until:
            return True
        due = now - self._rest_until >= RESYNC_S
        if not due or self._silent <= RESYNC_SILENT or self._kept:
            return False
        self._rest_until = now + (self._queue + RESYNC_FRAMES) * FRAME_S
        return True

    def _missing(self, held: float, silent: bool) -> int:
        """Silent frames that go before what waits."""
        way = self._way
        if not self._begun:
            return way.first
        if held >= (LEAST_FRAMES if silent else STARVED_FRAMES):
            return 0
        # In the middle of a word one frame at a time: the gap that is there is not made much longer.
        missing = (round(CUSHION_FRAMES - held) if silent else 2) - len(self._kept)
        return max(missing, -len(self._kept) % way.chunk, 0)

    def _fill(self, frames: int) -> None:
        self._kept.extendleft([self._silence] * frames)

    def _give(self, most: int) -> list[bytes | str]:
        """The messages that carry up to so many of the frames that wait, in whole chunks."""
        chunk = self._way.chunk
        if not self._begun:
            self._begun = True
            most = max(most, len(self._kept))
        count = min(-(-most // chunk), len(self._kept) // chunk) * chunk
        if not count:
            return []
        self._queue += count
        pcm = b"".join([self._kept.popleft() for _ in range(count)])
        if not self._way.text:
            return [pcm]
        if self._form.channels == 2:  # voxcom's fork plays what has as many channels as it sends
            pcm = np.repeat(np.frombuffer(pcm, "<i2"), 2).tobytes()
        return [stream_audio(pcm, self._form.rate)]

    def rest(self) -> list[bytes | str]:
        """See :class:`Player`."""
        self._kept.extend([self._silence] * (-len(self._kept) % self._way.chunk))
        return self._give(len(self._kept)) if self._kept else []

    def flush(self, now: float) -> tuple[list[bytes | str], float]:
        """See :class:`Player`."""
        unheard = float(len(self._kept))
        self._kept.clear()
        if not self._way.clears:
            return [], unheard * FRAME_S
        unheard += self.held(now)
        self._queue = 0.0
        self._clear_at = now + CLEARING_S
        return [KILL_AUDIO], unheard * FRAME_S


__all__ = [
    "MAX_MEDIA_BYTES",
    "Downstream",
    "RateGuard",
    "caller_of",
]
