"""The input audio buffer of a session: what was written, when a caller's turn begins and when it has ended.

It does no I/O and has no clock: time is counted in samples written. The rules are those of the protocol's
``server_vad``; without it the client commits by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from audio.resample import Resampler
from audio.vad import VadModel
from providers.local import vad
from providers.local.vad import SpeechStream

RATE: Final = 24000
"""Samples per second of what is appended and committed."""
_BYTES_MS: Final = 2 * RATE // 1000
_DOWN: Final = RATE // vad.RATE
_STEP: Final = vad.WINDOW * _DOWN
_START_WINDOWS: Final = 2
"""Windows in a row (64 ms) that must be speech before a turn begins: a click is shorter, a "sim" longer."""
_HYSTERESIS: Final = 0.15
"""Below the threshold by this much counts as silence; silero's own choice."""
PAUSE_MS: Final = 250
"""Silence after which a turn may be over. Most often more silence follows, so recognition begins here and is
done, or nearly so, when the turn has ended: a third to half a second that nobody waits for."""
MAX_TURN_MS: Final = 29_000
"""A turn that goes on is cut here: the recogniser's window is 30 s, and a line may be noisy for ever."""
MAX_MANUAL_MS: Final = 120_000
"""What a client without turn detection may write before it commits."""


@dataclass(frozen=True, slots=True)
class Vad:
    """The fields of ``server_vad`` that say when a turn begins and ends."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


@dataclass(frozen=True, slots=True)
class Started:
    """Speech was heard; ``at_ms`` is from the first sample of the session, padding included."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller has been silent for a moment: the turn may be over. ``pcm`` is what it would be by now."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    """The caller goes on: the pause was none."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The turn has ended at ``at_ms``; ``pcm`` is the turn, padding and closing silence included."""

    at_ms: int
    pcm: bytes


Change = Started | Paused | Resumed | Stopped


class BufferFull(Exception):
    """The client wrote too much without committing."""


class InputBuffer:
    """One session's input audio, s16 mono at 24 kHz."""

    def __init__(self, model: VadModel, settings: Vad | None) -> None:
        self._stream = SpeechStream(model)
        self._held = bytearray()
        self._first = 0
        """The session's sample number of the first sample held."""
        self._settings = settings
        self._taken = 0
        """The session's sample number up to which :meth:`fresh` gave the running turn."""
        self._restart_vad()

    def _restart_vad(self) -> None:
        self._stream.reset()
        self._down = Resampler(RATE, vad.RATE)
        self._narrow = bytearray()
        self._judged = self.written
        """The sample up to which the VAD has decided."""
        self._speech_windows = 0
        self._silence_samples = 0
        self._speaking = False
        self._paused = False

    # ------------------------------------------------------------------------------------- what it holds

    @property
    def written(self) -> int:
        """Samples written since the session began."""
        return self._first + len(self._held) // 2

    @property
    def written_ms(self) -> int:
        return self.written * 1000 // RATE

    @property
    def held_ms(self) -> float:
        """Milliseconds that a commit would take."""
        return len(self._held) / _BYTES_MS

    @property
    def speaking(self) -> bool:
        """A turn has begun and not yet ended."""
        return self._speaking

    def fresh(self) -> bytes:
        """What of the running turn was not given yet."""
        begin, self._taken = max(self._taken, self._first), self.written
        return bytes(self._held[2 * (begin - self._first) :])

    def configure(self, settings: Vad | None) -> None:
        """Other turn detection from now on; what is held stays, a running turn begins anew."""
        if settings != self._settings:
            self._settings = settings
            self._restart_vad()

    def clear(self) -> None:
        """Let go of what is held and of a running turn; the count of samples goes on."""
        self._first, self._held = self.written, bytearray()
        self._restart_vad()

    def take(self) -> bytes:
        """All that is held, as the client commits it."""
        pcm = bytes(self._held)
        self.clear()
        return pcm

    # ------------------------------------------------------------------------------------- what it hears

    def append(self, pcm: bytes) -> list[Change]:
        """Write audio (whole samples); what the turn detection makes of it, in order.

        Raises:
            BufferFull: without turn detection, nothing was committed for :data:`MAX_MANUAL_MS`; the audio
                was not written.
        """
        settings = self._settings
        if settings is None:
            if len(self._held) + len(pcm) > MAX_MANUAL_MS * _BYTES_MS:
                raise BufferFull(f"{MAX_MANUAL_MS // 1000} s of audio are held; commit or clear them first")
            self._held += pcm
            return []
        self._held += pcm
        self._narrow += self._down.process(pcm)
        found: list[Change] = []
        while len(self._narrow) >= 2 * vad.WINDOW:
            window = np.frombuffer(bytes(self._narrow[: 2 * vad.WINDOW]), "<i2")
            del self._narrow[: 2 * vad.WINDOW]
            self._judged += _STEP
            event = self._judge(self._stream.step(window), settings)
            if event is not None:
                found.append(event)
        if not self._speaking:
            self._forget(settings)
        return found

    def _judge(self, probability: float, settings: Vad) -> Change | None:
        if not self._speaking:
            self._speech_windows = self._speech_windows + 1 if probability >= settings.threshold else 0
            return self._start(settings) if self._speech_windows >= _START_WINDOWS else None
        went_on = self._paused and probability >= settings.threshold
        if probability >= settings.threshold:
            self._silence_samples, self._paused = 0, False
        elif self._silence_samples or probability < max(settings.threshold - _HYSTERESIS, 0.05):
            self._silence_samples += _STEP
        silent_ms = self._silence_samples * 1000 // RATE
        turn_ms = (self._judged - self._first) * 1000 // RATE
        if silent_ms >= settings.silence_duration_ms or turn_ms >= MAX_TURN_MS:
            return self._stop()
        if silent_ms >= PAUSE_MS and not self._paused:
            self._paused = True
            return Paused(self._spoken())
        return Resumed() if went_on else None

    def _start(self, settings: Vad) -> Started:
        begin = self._judged - _START_WINDOWS * _STEP - settings.prefix_padding_ms * RATE // 1000
        self._drop_before(begin)
        self._speaking, self._silence_samples, self._paused = True, 0, False
        self._taken = self._first
        return Started(self._first * 1000 // RATE)

    def _stop(self) -> Stopped:
        end, pcm = min(self._judged, self.written), self._spoken()
        self._drop_before(end)
        self._speaking, self._speech_windows = False, 0
        return Stopped(end * 1000 // RATE, pcm)

    def _spoken(self) -> bytes:
        """The running turn, up to where the VAD has decided."""
        return bytes(self._held[: 2 * (min(self._judged, self.written) - self._first)])

    def _forget(self, settings: Vad) -> None:
        """Between turns keep only what a turn that begins now would take."""
        padding = settings.prefix_padding_ms * RATE // 1000
        self._drop_before(self._judged - _START_WINDOWS * _STEP - padding)

    def _drop_before(self, sample: int) -> None:
        if sample > self._first:
            gone = min(sample - self._first, len(self._held) // 2)
            del self._held[: 2 * gone]
            self._first += gone
