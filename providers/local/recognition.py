"""Speech to text: faster-whisper in a thread of its own, one model and one bounded queue for all sessions.

What was decoded is only a proposal. :mod:`providers.local.evidence` decides whether it was said.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens

from audio.vad import VadModel
from providers.local import vad
from providers.local.evidence import (
    Decoding,
    Sound,
    Verdict,
    borne_out,
    judge,
    needs_second_look,
    sound_of,
)

RATE: Final = 16000
_WINDOW_S: Final = 29
"""Seconds that one pass of whisper sees (30, with a margin); longer audio is taken in several."""
_BEAM: Final = 5
_MAX_PROMPT: Final = 600
"""Characters of the prompt that are used, from its end: whisper has room for 223 tokens."""
_TIMEOUT_S: Final = 60.0
_MAX_TOKENS: Final = 200
_LEVEL_DBFS: Final = -24.0
"""Speech is brought to this RMS before it is decoded: whisper is not indifferent to the level. Of the levels
tried on the recordings (-12, -18, -24, -30) this one supports their words best."""
_LEAD_S: Final = 1.5
"""Before the first speech, at the second look: whisper loses a short word that begins its window. The sound
of a "Sim." alone supports the word with -1.2 to -2.4 after 0.06 to 0.3 s, and with -0.5 to -1.1 after 1.5 s.
Longer sentences are the worse for it, so it is no first look."""
_OWN_LEAD_S: Final = 0.2
"""How much of that is the caller's own sound, for soft beginnings that the VAD does not hear."""
_FLOOR: Final = 0.0003
"""RMS of the faint noise (-70 dBFS) under it: in digital silence whisper hears worse."""


class RecognitionError(Exception):
    """The audio could not be recognised: too much is waiting, or it took too long."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a turn said. ``text`` is empty where nothing was said that can be relied on."""

    text: str
    seconds: float
    """Of audio."""
    took_s: float
    """Of computing, the wait in the queue left out."""
    why: str
    """Which rule decided, for logs; it holds no words."""


class Recogniser:
    """Loads the model when made (about a second), then recognises one turn at a time."""

    def __init__(self, folder: Path, vad_model: VadModel, *, threads: int = 0, waiting: int = 16) -> None:
        """
        Args:
            folder: a verified model (:func:`providers.local.models.verified_dir`).
            vad_model: shared with the turn detection.
            threads: of the CPU; 0: as many as there are, up to four.
            waiting: turns that may wait; beyond them :class:`RecognitionError` is raised at once.
        """
        self._model: Any = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
        )
        self._suppressed = get_suppressed_tokens(self._tokenizer("pt"), [-1])
        self._vad = vad_model
        self._waiting = 0
        self._most_waiting = waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recognition")

    async def recognise(self, pcm: bytes, rate: int, language: str, prompt: str) -> Recognised:
        """The words of one turn.

        Args:
            pcm: s16 mono.
            rate: its samples per second.
            language: ISO 639-1; whisper is held to it.
            prompt: words and phrases to expect. They help to choose between readings of the sound; a phrase
                that the sound itself does not bear out is not returned.

        Raises:
            RecognitionError: too many turns are waiting, or it took longer than a minute.
        """
        if self._waiting >= self._most_waiting:
            raise RecognitionError(f"{self._waiting} turns are waiting to be recognised already")
        loop = asyncio.get_running_loop()
        self._waiting += 1
        work = loop.run_in_executor(self._thread, self.recognise_now, pcm, rate, language, prompt)
        work.add_done_callback(self._left)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await work
        except TimeoutError as error:
            raise RecognitionError(f"the words were not recognised within {_TIMEOUT_S:.0f} s") from error

    @property
    def busy(self) -> bool:
        """A turn is being recognised, or waits to be."""
        return self._waiting > 0

    def _left(self, _work: asyncio.Future[Recognised]) -> None:
        self._waiting -= 1

    def recognise_now(self, pcm: bytes, rate: int, language: str, prompt: str) -> Recognised:
        """The same, blocking; for the worker thread and for measurements."""
        began = time.perf_counter()
        samples = np.frombuffer(pcm, "<i2")
        texts, why = [], []
        for start in range(0, len(samples), _WINDOW_S * rate):
            text, rule = self._window(samples[start : start + _WINDOW_S * rate], rate, language, prompt)
            texts.append(text)
            why.append(rule)
        return Recognised(
            " ".join(text for text in texts if text),
            len(samples) / rate,
            time.perf_counter() - began,
            ",".join(why) or "empty",
        )

    def warm_up(self) -> None:
        """Run everything once: the first pass allocates, and the first caller should not wait for it."""
        silence = np.random.default_rng(1).normal(0, 0.01, RATE).astype(np.float32)
        look = _Look(self, silence, "pt")
        look.decode("Portaria.")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------------------------------------- within

    def _window(
        self, samples: npt.NDArray[np.int16], rate: int, language: str, prompt: str
    ) -> tuple[str, str]:
        sound = self._sound(samples, rate)
        if (silent := sound.why_nothing()) is not None:
            return "", silent
        wide = soxr.resample(samples.astype(np.float32) / 32768, rate, RATE, quality="HQ")
        wide *= 10 ** ((_LEVEL_DBFS - sound.level_dbfs) / 20)
        first = self._read(wide, language, prompt, sound)
        if first.text or not first.nearly:
            return first.text, first.why
        # The same sound after a silence is another chance, but only for the same words.
        own = min(sound.first_s, _OWN_LEAD_S)
        cut = wide[int((sound.first_s - own) * RATE) :]
        second = self._read(_after_silence(cut, _LEAD_S - own), language, prompt, sound)
        if borne_out(second.text, first.nearly):
            return second.text, "second look"
        return "", first.why

    def _read(self, wide: npt.NDArray[np.float32], language: str, prompt: str, sound: Sound) -> Verdict:
        look = _Look(self, wide, language)
        prompted = look.decode(prompt[-_MAX_PROMPT:]) if prompt else None
        plain = None
        if prompted is None or needs_second_look(prompted):
            plain = look.decode("")
        return judge(prompted, plain, sound)

    def _sound(self, samples: npt.NDArray[np.int16], rate: int) -> Sound:
        if rate == vad.RATE:
            narrow = samples
        else:
            narrow = soxr.resample(samples, rate, vad.RATE, quality="MQ")
        return sound_of(narrow, vad.speech_probabilities(self._vad, narrow))

    def _tokenizer(self, language: str) -> Tokenizer:
        return Tokenizer(self._model.hf_tokenizer, True, task="transcribe", language=language)


def _after_silence(wide: npt.NDArray[np.float32], seconds: float) -> npt.NDArray[np.float32]:
    led = np.concatenate([np.zeros(int(seconds * RATE), np.float32), wide])
    floor = np.random.default_rng(0).normal(0, _FLOOR, len(led))  # the same each time: so are the words
    return led + floor.astype(np.float32)


class _Look:
    """One window of audio, encoded once, decoded as often as there are questions."""

    def __init__(self, owner: Recogniser, wide: npt.NDArray[np.float32], language: str) -> None:
        self._model = owner._model
        self._suppressed = owner._suppressed
        self._tokens = owner._tokenizer(language)
        features = self._model.feature_extractor(wide)
        self._frames = min(features.shape[-1], self._model.feature_extractor.nb_max_frames)
        self._encoded = self._model.encode(pad_or_trim(features))

    def decode(self, prompt: str) -> Decoding:
        """The likeliest words, and how well the sound alone bears them out."""
        before = self._tokens.encode(" " + prompt.strip()) if prompt else []
        # No timestamps, temperature 0 (beam search), nothing of the turn before: every turn by itself.
        start = self._model.get_prompt(self._tokens, before, without_timestamps=True)
        result = self._model.model.generate(
            self._encoded,
            [start],
            beam_size=_BEAM,
            max_length=len(start) + _MAX_TOKENS,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
        )[0]
        tokens = result.sequences_ids[0]
        text = self._tokens.decode(tokens).strip()
        if not text:
            return Decoding("", 0.0, -9.0, -9.0, result.no_speech_prob, 0.0)
        # The end token has a share in the score, so it counts in the mean.
        mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
        support = self._support(tokens)
        return Decoding(
            text,
            mean,
            float(np.mean(support)),
            float(np.min(support)),
            result.no_speech_prob,
            get_compression_ratio(text),
        )

    def _support(self, tokens: list[int]) -> npt.NDArray[np.float64]:
        """The log-probability of each token given the sound and the words before it, with no prompt.

        This is what tells a reading of the sound from a phrase that the prompt put into the model's mouth:
        "Pode liberar." has about -0.5 where it was said and below -4 where babble was.
        """
        aligned = self._model.model.align(self._encoded, self._tokens.sot_sequence, [tokens], self._frames)[0]
        return np.log(np.maximum(np.array(aligned.text_token_probs, np.float64), 1e-9))
