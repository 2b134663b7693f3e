"""Text to speech: sentences to 24 kHz PCM at one level, by piper or espeak-ng, with a cache of sentences."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from providers.local.espeak import EspeakError
from providers.local.espeak_process import espeak
from providers.local.spoken import spoken_form
from providers.local.stage import Bill

RATE = 24000
"""Samples per second of all that is said."""
_TARGET_RMS = 10 ** (-20 / 20)
_PEAK = 10 ** (-3 / 20)
_SILENCE = 10 ** (-55 / 20)
_PAUSE_S = 0.2
_LEAD_S = 0.02
_SYNTHESIS_TIMEOUT_S = 20.0


class SpeechError(Exception):
    """A text could not be made into speech."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of a sentence's speech: s16 mono PCM at :data:`RATE`."""

    pcm: bytes
    last: bool = False
    """No more comes."""


class Speaks(Protocol):
    """Makes sentences into speech, for all sessions."""

    def stream(self, sentence: str, speed: float, bill: Bill) -> AsyncGenerator[Sound, None]:
        """A sentence, each piece as soon as it is there; closing the iterator stops the work.

        Args:
            bill: told what is to be paid.

        Raises:
            SpeechError: this sentence can't be said.
            providers.local.stage.StageError: nor can any other.
        """


class Voice(Protocol):
    """A synthesiser. ``synthesize`` blocks; it is called from one thread at a time."""

    name: str

    def synthesize(self, text: str, speed: float) -> tuple[npt.NDArray[np.float32], int]:
        """The text as samples in −1…1 and their rate. Raises :class:`SpeechError`."""


class EspeakVoice:
    """espeak-ng's Brazilian Portuguese voice: always there, plainly a machine's."""

    name = "espeak"

    def __init__(self) -> None:
        try:
            self._espeak = espeak()
            self._rate = self._espeak.rate
        except EspeakError as error:
            raise SpeechError(str(error)) from error

    def synthesize(self, text: str, speed: float) -> tuple[npt.NDArray[np.float32], int]:
        try:
            pcm = self._espeak.synthesize(text, speed)
        except EspeakError as error:
            raise SpeechError(str(error)) from error
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        return samples, self._rate


class PiperVoice:
    """A piper voice file (``NAME.onnx`` with ``NAME.onnx.json`` beside it); needs the extra ``piper``."""

    def __init__(self, path: Path) -> None:
        for needed in (path, path.with_name(f"{path.name}.json")):
            if not needed.is_file():
                raise SpeechError(f"the piper voice needs {needed}, which does not exist")
        try:
            self._piper: Any = importlib.import_module("piper")
        except ImportError as error:
            raise SpeechError(
                "a piper voice is configured, but piper is not installed; install it with: "
                "uv sync --extra piper (or: pip install 'porteiro[piper]')"
            ) from error
        self._voice: Any = self._piper.PiperVoice.load(str(path))
        self.name = path.stem

    def synthesize(self, text: str, speed: float) -> tuple[npt.NDArray[np.float32], int]:
        config = self._piper.SynthesisConfig(length_scale=1.0 / speed)
        chunks = list(self._voice.synthesize(text, syn_config=config))
        if not chunks:
            return np.zeros(0, np.float32), RATE
        samples = np.concatenate([np.asarray(chunk.audio_float_array, np.float32) for chunk in chunks])
        return samples, int(chunks[0].sample_rate)


def make_voice(piper_voice: Path | None) -> Voice:
    """The voice that the settings ask for. Raises :class:`SpeechError` where it can't be had."""
    return EspeakVoice() if piper_voice is None else PiperVoice(piper_voice)


# ------------------------------------------------------------------------------------------- the cache


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """How the cache of sentences does."""

    hits: int
    misses: int
    bytes: int


class SentenceCache:
    """Sentences that were said before, the least recently used going first; bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._held: OrderedDict[tuple[str, str, float], bytes] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, float]) -> bytes | None:
        with self._lock:
            pcm = self._held.get(key)
            if pcm is None:
                self._misses += 1
                return None
            self._held.move_to_end(key)
            self._hits += 1
            return pcm

    def put(self, key: tuple[str, str, float], pcm: bytes) -> None:
        if len(pcm) > self._max:
            return
        with self._lock:
            self._bytes += len(pcm) - len(self._held.pop(key, b""))
            self._held[key] = pcm
            while self._bytes > self._max:
                _, gone = self._held.popitem(last=False)
                self._bytes -= len(gone)

    @property
    def counts(self) -> CacheCounts:
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._bytes)


# ----------------------------------------------------------------------------------------- the speaker


class Speaker:
    """Says sentences, in a thread of its own. One for the whole server."""

    def __init__(self, voice: Voice, cache_bytes: int = 32 << 20) -> None:
        self.voice = voice
        self.cache = SentenceCache(cache_bytes)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="speech")

    async def say(self, sentence: str, speed: float = 1.0) -> bytes:
        """One sentence as s16 mono PCM at :data:`RATE`, with a short pause after it.

        Raises:
            SpeechError: it could not be said, or not in time.
        """
        key = (self.voice.name, sentence, speed)
        if (known := self.cache.get(key)) is not None:
            return known
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_SYNTHESIS_TIMEOUT_S):
                pcm = await loop.run_in_executor(self._thread, render, self.voice, sentence, speed)
        except TimeoutError as error:
            raise SpeechError(f"speech was not ready within {_SYNTHESIS_TIMEOUT_S:.0f} s") from error
        self.cache.put(key, pcm)
        return pcm

    async def stream(self, sentence: str, speed: float, bill: Bill) -> AsyncGenerator[Sound, None]:
        """See :class:`Speaks`: the sentence in one piece. It costs nothing."""
        yield Sound(await self.say(sentence, speed), last=True)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def render(voice: Voice, sentence: str, speed: float) -> bytes:
    """One sentence through the voice, resampled, levelled and trimmed. Blocking."""
    samples, rate = voice.synthesize(spoken_form(sentence), speed)
    if rate != RATE and len(samples):
        samples = soxr.resample(samples, rate, RATE, quality="HQ")
    samples = level(_trim(samples))
    padded = np.concatenate(
        [np.zeros(int(_LEAD_S * RATE), np.float32), samples, np.zeros(int(_PAUSE_S * RATE), np.float32)]
    )
    return np.round(padded * 32767).astype("<i2").tobytes()


def _trim(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the silence at both ends: pauses are ours to set."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def level(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """At −20 dBFS RMS, or lower where a peak would pass −3 dBFS: quieter beats clipped."""
    if not len(samples):
        return samples
    rms, peak = float(np.sqrt(np.mean(np.square(samples)))), float(np.max(np.abs(samples)))
    if rms == 0.0:
        return samples
    return (samples * min(_TARGET_RMS / rms, _PEAK / peak)).astype(np.float32)
