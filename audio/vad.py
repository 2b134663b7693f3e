"""Who speaks when: silero's voice-activity model at 8 kHz, and speech onsets and offsets of one leg from it.

The model judges windows of 256 samples (32 ms), each preceded by the last 32 samples of the one before, and
carries a recurrent state. Many legs' windows judged together cost a fraction of what each alone would, with
the same results; :mod:`audio.silero` says what.

What it does not tell from speech: a telephone key's tone, of which about one in ten is taken for speech while
it lasts (ring-back, busy and hold sounds are not). Whoever gets a DTMF event knows better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from audio.frames import FLOOR_DBOV, FULL_SCALE, SAMPLE_BYTES, TELEPHONE_RATE, samples_of
from audio.silero import Silero, UnknownFile

WINDOW_SAMPLES: Final = 256
CONTEXT_SAMPLES: Final = 32
WINDOW_MS: Final = WINDOW_SAMPLES * 1000 // TELEPHONE_RATE
_STATE_WIDTH: Final = 128
_PER_MS: Final = TELEPHONE_RATE // 1000
_CONTEXT_BYTES: Final = SAMPLE_BYTES * CONTEXT_SAMPLES
_FRAMED_BYTES: Final = SAMPLE_BYTES * (CONTEXT_SAMPLES + WINDOW_SAMPLES)
_NEAR_DB: Final = 12.0
"""So far below its floor a window is nothing that speech could begin with."""
_CALM_WINDOWS: Final = 10
"""So many of those the model is asked about: by then its state is that of silence, and stays so."""
_SILENT_WINDOW: Final = bytes(SAMPLE_BYTES * WINDOW_SAMPLES)
_SCALE: Final = np.float32(1 / FULL_SCALE)

Floats = npt.NDArray[np.float32]


class VadModel:
    """The network, loaded once. Holds no state of any leg: one serves them all, on any thread."""

    def __init__(self, onnx: bytes) -> None:
        """``onnx``: the bytes of silero's ``silero_vad.onnx`` (the others in its package differ at 8 kHz).

        The file that :mod:`audio.silero` knows is computed by it, any other one by onnxruntime.
        """
        self._network: Silero | OnnxNetwork
        try:
            self._network = Silero(onnx)
        except UnknownFile:
            self._network = OnnxNetwork(onnx)

    def infer(self, windows: Floats, states: Floats) -> tuple[Floats, Floats]:
        """Judge one window of each of N legs.

        Args:
            windows: [N, 32 + 256], the context first, at the scale ±1.
            states: [2, N, 128], as returned for the legs' previous windows; zeros at first.

        Returns:
            The probability of speech, [N], and the new states, [2, N, 128].
        """
        return self._network.infer(windows, states)


class OnnxNetwork:
    """The network as its file describes it, computed by onnxruntime."""

    def __init__(self, onnx: bytes) -> None:
        """``onnx``: the bytes of a file of silero's that takes 8 kHz."""
        import onnxruntime  # 40 MB, which a service whose file is known does without

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A spinning worker would burn a core between windows.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._rate = np.array(TELEPHONE_RATE, dtype=np.int64)

    def infer(self, windows: Floats, states: Floats) -> tuple[Floats, Floats]:
        """As :meth:`VadModel.infer`."""
        probabilities, after = self._session.run(None, {"input": windows, "state": states, "sr": self._rate})
        return probabilities[:, 0], after


@dataclass(frozen=True, slots=True)
class VadProfile:
    """When a leg counts as speaking."""

    onset_threshold: float = 0.5
    """A window at or above this may begin speech, and another one must confirm it."""
    offset_threshold: float = 0.35
    """A window below this may end it."""
    min_speech_ms: int = 64
    """How long it must be speech before that is said: two windows. It keeps clicks from being barge-ins.

    Measured over the recorded sentences, µ-law, from the first sound to the event: 32 ms gives 50 ms at the
    median and 104 at the 90th percentile, 64 gives 80 and 137, 96 gives 110 and 170."""
    hangover_ms: int = 450
    """How long it must be no speech before that is said."""
    reset_after_ms: int = 2000
    """After so much clear non-speech the model's state is forgotten: it drifts in long noise."""
    reset_below: float = 0.1
    """A window below this is clearly no speech. With more, it is reset within distant babble too, and hears
    speech there (0.1: none in a minute of twenty voices at −40 dBov; 0.15: one)."""
    floor_dbov: float = -66.0
    """A window quieter than this is no speech, whatever the model says: after a key's tone it sometimes takes
    digital silence for speech. A whisper on a bad line is 15 dB louder."""

    def __post_init__(self) -> None:
        if not 0 < self.reset_below <= self.offset_threshold <= self.onset_threshold < 1:
            raise ValueError("thresholds must rise: 0 < reset_below <= offset <= onset < 1")
        if min(self.min_speech_ms, self.hangover_ms, self.reset_after_ms) <= 0:
            raise ValueError("min_speech_ms, hangover_ms and reset_after_ms must be positive")


@dataclass(frozen=True, slots=True)
class SpeechOnset:
    """Speech began. ``at``: the sample of this leg's input where its first window began."""

    at: int
    probability: float
    """Of the window that settled it."""
    level_dbov: float
    """Of the speech so far."""


@dataclass(frozen=True, slots=True)
class SpeechOffset:
    """Speech ended. ``at``: the sample of this leg's input where the first window without speech began."""

    at: int
    probability: float
    """Of the window that settled it."""
    level_dbov: float
    """Of the windows in which there was speech."""


class _Window(NamedTuple):
    """One window that waits to be judged."""

    pcm: bytes
    """The context, then the window: 16-bit samples."""
    at: int
    """The sample of the leg's input where it begins."""
    floor_dbov: float
    """Quieter than this it is no speech."""


class VoiceActivity:
    """One leg's onsets and offsets. Feed it everything that the leg hears, in order.

    Either judged alone, at once (:meth:`feed`), or with other legs' windows (:meth:`hear`, then
    :meth:`VadBatch.run`, then :meth:`take`). Between two windows nothing changes.
    """

    def __init__(
        self, model: VadModel, profile: VadProfile | None = None, *, batch: VadBatch | None = None
    ) -> None:
        """``batch``: judged with the others in it; None: in one of its own."""
        self._profile = profile or VadProfile()
        self._batch = batch or VadBatch(model)
        self._slot = self._batch.join(self)
        """Where the batch keeps the model's state of this leg."""
        self._waiting = bytes(_CONTEXT_BYTES)
        """The context of the next window, then what there is of that window."""
        self._began: int | None = None
        """Where the speech began that goes on, or that may be beginning."""
        self._ended: int | None = None
        """Where the silence began that may be ending it."""
        self._judged_to = 0
        """The sample behind the window that was judged last."""
        self._quiet = 0
        """For how many samples it has clearly been no speech."""
        self._calm = 0
        """How many windows in a row, up to the last one, were far below the floor."""
        self._power_sum = 0.0
        self._power_count = 0
        """Of the windows of the speech that goes on."""
        self._windows: deque[_Window] = deque()
        self._events: list[SpeechOnset | SpeechOffset] = []
        self.closed = False
        self.speaking = False
        self.probability = 0.0
        """Of speech in the window that was judged last; 0 where it was below the floor."""
        self.level_dbov = FLOOR_DBOV
        """Of the window that was judged last."""
        self.samples_fed = 0
        """How much was fed in, whole windows or not."""
        self.resets = 0
        """How often the model's state was forgotten."""

    def feed(self, pcm8k: bytes, *, floor_dbov: float = FLOOR_DBOV) -> list[SpeechOnset | SpeechOffset]:
        """Hear some more and judge it at once; says what began or ended. As :meth:`hear` otherwise."""
        self.hear(pcm8k, floor_dbov=floor_dbov)
        self._batch.judge((self,))
        return self.take()

    def hear(self, pcm8k: bytes, *, floor_dbov: float = FLOOR_DBOV) -> None:
        """Hear some more, of any length; its windows wait to be judged.

        Args:
            pcm8k: what the leg heard.
            floor_dbov: windows completed now that are quieter than this are no speech: the level up to which
                it may be the echo of our own voice. The profile's floor holds in any case.

        Raises:
            ValueError: ``pcm8k`` holds half a sample. Nothing of it is taken.
        """
        if len(pcm8k) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm8k)} bytes are not a whole number of 16-bit samples")
        self.samples_fed += len(pcm8k) // SAMPLE_BYTES
        self._waiting += pcm8k
        if len(self._waiting) < _FRAMED_BYTES:
            return
        if not self._windows and not self.closed:
            self._batch.has_heard(self, self._slot)
        while len(self._waiting) >= _FRAMED_BYTES:
            at = self.samples_fed - (len(self._waiting) - _CONTEXT_BYTES) // SAMPLE_BYTES
            floor = max(floor_dbov, self._profile.floor_dbov)
            self._windows.append(_Window(self._waiting[:_FRAMED_BYTES], at, floor))
            self._waiting = self._waiting[_FRAMED_BYTES - _CONTEXT_BYTES :]

    @property
    def beginning(self) -> bool:
        """Speech may have begun, and is not confirmed yet."""
        return self._began is not None and not self.speaking

    @property
    def speech_ms(self) -> int:
        """How long the speech that goes on has lasted, without a quiet at its end; 0 where there is none."""
        if not self.speaking or self._began is None:
            return 0
        return ((self._ended if self._ended is not None else self._judged_to) - self._began) // _PER_MS

    @property
    def quiet_ms(self) -> int:
        """For how long it has been quiet within the speech that goes on; it may be over, or a pause in it."""
        return (self._judged_to - self._ended) // _PER_MS if self.speaking and self._ended is not None else 0

    def end_now(self) -> None:
        """Take a quiet that goes on for the end of the speech, without waiting for the hang-over.

        For who can't wait. What is said after it is a new onset. Does nothing where there is no such quiet.
        """
        if self.speaking and self._ended is not None:
            self._events.append(self._offset(self._ended))

    def close(self) -> None:
        """The leg is over: what was not judged yet never will be. Twice does nothing more."""
        if not self.closed:
            self.closed = True
            self._windows.clear()
            self._batch.leave(self, self._slot)

    def take(self) -> list[SpeechOnset | SpeechOffset]:
        """What began or ended since this was last asked, in order."""
        events = self._events
        if events:
            self._events = []
        return events

    def _asks(self, level_dbov: float) -> bool:
        """Whether the model's word on the window that waited longest can matter.

        Far below the floor nothing is speech, and the model's state no longer changes once it has heard some
        of that.
        """
        if level_dbov >= self._windows[0].floor_dbov - _NEAR_DB or self._began is not None:
            self._calm = 0
            return True
        self._calm += 1
        return self._calm <= _CALM_WINDOWS

    def passes_silence(self) -> bool:
        """Judge the window that waited longest, where it is digital silence and :meth:`_asks` for nothing.

        Returns whether it did.
        """
        window = self._windows[0]
        if self._began is not None or self._calm < _CALM_WINDOWS:
            return False
        if window.floor_dbov - _NEAR_DB <= FLOOR_DBOV or not window.pcm.endswith(_SILENT_WINDOW):
            return False
        self._judged(0.0, 0.0, FLOOR_DBOV, asked=False)
        return True

    def _judged(self, probability: float, power: float, level_dbov: float, *, asked: bool) -> bool:
        """The word on the window that waited longest; ``asked``: it is the model's.

        Returns whether the model's state is worth nothing any more.
        """
        window = self._windows.popleft()
        self._judged_to = window.at + WINDOW_SAMPLES
        self.level_dbov = level_dbov
        self.probability = probability if level_dbov >= window.floor_dbov else 0.0
        event = self._judge(self.probability, power, window.at)
        if event is not None:
            self._events.append(event)
        if not asked or not self._long_quiet(probability):
            return False
        self._calm = 0
        return True

    def _judge(self, probability: float, power: float, at: int) -> SpeechOnset | SpeechOffset | None:
        """Take in one window, which began at sample ``at``."""
        if self.speaking:
            return self._judge_speaking(probability, power, at)
        return self._judge_silent(probability, power, at)

    def _judge_silent(self, probability: float, power: float, at: int) -> SpeechOnset | None:
        profile = self._profile
        if self._began is None and probability >= profile.onset_threshold:
            self._began = at
            self._power_sum, self._power_count = 0.0, 0
        if self._began is None:
            return None
        if probability < profile.offset_threshold:
            self._began = None
            return None
        self._add(power)
        long_enough = at + WINDOW_SAMPLES - self._began >= _samples(profile.min_speech_ms)
        if probability < profile.onset_threshold or not long_enough:
            return None
        self.speaking = True
        return SpeechOnset(self._began, probability, self._speech_dbov())

    def _judge_speaking(self, probability: float, power: float, at: int) -> SpeechOffset | None:
        profile = self._profile
        if probability >= profile.offset_threshold:
            self._ended = None
            self._add(power)
            return None
        if self._ended is None:
            self._ended = at
        if at + WINDOW_SAMPLES - self._ended < _samples(profile.hangover_ms):
            return None
        return self._offset(self._ended)

    def _offset(self, at: int) -> SpeechOffset:
        self.speaking = False
        self._began = self._ended = None
        return SpeechOffset(at, self.probability, self._speech_dbov())

    def _add(self, power: float) -> None:
        self._power_sum += power
        self._power_count += 1

    def _speech_dbov(self) -> float:
        return _dbov(self._power_sum / self._power_count)

    def _long_quiet(self, probability: float) -> bool:
        """The state drifts in long noise until speech is missed; after a clear pause it is worth nothing."""
        self._quiet = self._quiet + WINDOW_SAMPLES if probability < self._profile.reset_below else 0
        if self._quiet < _samples(self._profile.reset_after_ms):
            return False
        self._quiet = 0
        self.resets += 1
        return True


class VadBatch:
    """Judges the windows of many legs together: at 20 legs a sixth of what each alone would cost.

    A leg's windows are judged in their order and with that leg's own state: it makes no difference to a leg
    who else joins or leaves, or how much they have heard.
    """

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._voices: dict[int, VoiceActivity] = {}
        """By slot: which column of the states is the leg's."""
        self._ready: dict[int, VoiceActivity] = {}
        """Those of them who may have windows that wait."""
        self._free: list[int] = []
        self._states = _fresh_states(0)

    def voice(self, profile: VadProfile | None = None) -> VoiceActivity:
        """A new leg's; until it is closed :meth:`run` judges what it hears."""
        return VoiceActivity(self._model, profile, batch=self)

    def join(self, voice: VoiceActivity) -> int:
        """Keep a state for a leg; :meth:`leave` gives it back. Returns its slot."""
        if not self._free:
            there = self._states.shape[1]
            more = max(1, there)
            self._states = np.concatenate((self._states, _fresh_states(more)), axis=1)
            self._free = list(range(there, there + more))
        slot = self._free.pop()
        self._states[:, slot] = 0
        self._voices[slot] = voice
        return slot

    def leave(self, voice: VoiceActivity, slot: int) -> None:
        """The leg is over."""
        if self._voices.get(slot) is voice:
            del self._voices[slot]
            self._ready.pop(slot, None)
            self._free.append(slot)

    def has_heard(self, voice: VoiceActivity, slot: int) -> None:
        """A leg has a window to be judged, where it had none."""
        self._ready[slot] = voice

    def run(self) -> int:
        """Judge all that was heard. Returns how many windows that were; each leg takes its own events."""
        ready = tuple(self._ready.values())
        self._ready.clear()
        return self.judge(ready)

    def judge(self, voices: Iterable[VoiceActivity]) -> int:
        """Judge what these legs heard; returns how many windows that were.

        The model runs once for all legs' first windows, once for their second ones, and so on: after a normal
        tick once, after a standstill as often as the leg that is furthest behind has windows. Windows that
        can't be speech whatever the model says are left out.
        """
        judged = 0
        while ready := [voice for voice in voices if voice._windows]:
            voices = ready
            if sounding := [voice for voice in ready if not voice.passes_silence()]:
                self._judge(sounding)
            judged += len(ready)
        return judged

    def _judge(self, ready: Sequence[VoiceActivity]) -> None:
        """Judge the first window of each."""
        pcm = b"".join([voice._windows[0].pcm for voice in ready])
        samples: Floats = samples_of(pcm).reshape(len(ready), -1).astype(np.float32)
        samples *= _SCALE
        heard = samples[:, CONTEXT_SAMPLES:]
        powers = (np.vecdot(heard, heard) / WINDOW_SAMPLES).tolist()
        levels = [_dbov(power) for power in powers]
        asked = [n for n, voice in enumerate(ready) if voice._asks(levels[n])]
        of_model: dict[int, float] = {}
        if asked:
            slots = [ready[n]._slot for n in asked]
            windows = samples if len(asked) == len(ready) else samples[asked]
            found, after = self._model.infer(windows, self._states[:, slots])
            self._states[:, slots] = after
            of_model = dict(zip(asked, found.tolist(), strict=True))
        for n, voice in enumerate(ready):
            if voice._judged(of_model.get(n, 0.0), powers[n], levels[n], asked=n in of_model):
                self._states[:, voice._slot] = 0


def _dbov(power: float) -> float:
    return max(FLOOR_DBOV, 10 * math.log10(power)) if power > 0 else FLOOR_DBOV


def _fresh_states(legs: int) -> Floats:
    return np.zeros((2, legs, _STATE_WIDTH), dtype=np.float32)


def _samples(ms: int) -> int:
    return ms * TELEPHONE_RATE // 1000
