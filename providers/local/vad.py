"""How likely it is that a person speaks: one stream's state around silero's network, and where its file lies.

The package ``silero_vad`` is only where the file lies: importing it would import torch.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audio.frames import TELEPHONE_RATE
from audio.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Floats, VadModel

RATE = TELEPHONE_RATE
WINDOW = WINDOW_SAMPLES


class VadError(Exception):
    """The VAD's file is missing or can't be read."""


def silero_file() -> Path:
    """Where the package ``silero-vad`` keeps its ONNX file; the package is not imported.

    Raises:
        VadError: the package or the file is not there.
    """
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise VadError("the package silero-vad is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.onnx"
    if not path.is_file():
        raise VadError(f"{path} does not exist; the package silero-vad is not complete")
    return path


def load_vad() -> VadModel:
    """The network, read from the package's file. Raises :class:`VadError`."""
    path = silero_file()
    try:
        return VadModel(path.read_bytes())
    except OSError as error:
        raise VadError(f"{path} can't be read: {error}") from error


class SpeechStream:
    """One stream of audio at 8 kHz, judged window by window."""

    __slots__ = ("_framed", "_model", "_states")

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._framed: Floats = np.zeros((1, CONTEXT_SAMPLES + WINDOW_SAMPLES), np.float32)
        self._states: Floats = np.zeros((2, 1, 128), np.float32)

    def step(self, window: npt.NDArray[np.int16]) -> float:
        """The probability of speech (0…1) in the next :data:`WINDOW` samples."""
        framed = self._framed
        framed[0, :CONTEXT_SAMPLES] = framed[0, -CONTEXT_SAMPLES:]
        framed[0, CONTEXT_SAMPLES:] = window
        framed[0, CONTEXT_SAMPLES:] /= 32768
        probabilities, self._states = self._model.infer(framed, self._states)
        return float(probabilities[0])


def speech_probabilities(model: VadModel, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """One probability a whole window of a recording at 8 kHz; shape [len(samples) // WINDOW]."""
    stream = SpeechStream(model)
    starts = range(0, len(samples) - WINDOW + 1, WINDOW)
    return np.array([stream.step(samples[start : start + WINDOW]) for start in starts], np.float64)
