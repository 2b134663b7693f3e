"""The real parts of the model server, loaded once for all of its tests."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from audio.vad import VadModel
from providers.local.models import default_sources, fetch, models_root, verified_dir
from providers.local.recognition import Recogniser
from providers.local.speech import Speaker, make_voice
from providers.local.vad import load_vad
from tests.providers.local.local_wire import ROOT

Recording = npt.NDArray[np.int16]


@pytest.fixture(scope="session")
def vad() -> VadModel:
    return load_vad()


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the real weights; fetched where the set-up has not done so."""
    root = models_root(None, cwd=ROOT, environ=os.environ)
    fetch(root, default_sources(None))
    return verified_dir(root)


@pytest.fixture(scope="session")
def recogniser(weights: Path, vad: VadModel) -> Iterator[Recogniser]:
    real = Recogniser(weights, vad, threads=2)
    yield real
    real.close()


@pytest.fixture(scope="session")
def speaker() -> Iterator[Speaker]:
    real = Speaker(make_voice(None))
    yield real
    real.close()


@pytest.fixture(scope="session")
def recording() -> Callable[[str], Recording]:
    """A recording by its file's stem, at 8 kHz."""

    def load(stem: str) -> Recording:
        with wave.open(str(ROOT / "data" / "audio" / f"{stem}.wav")) as source:
            assert source.getframerate() == 8000
            return np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.int16)

    return load
