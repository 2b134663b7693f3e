"""What is said in the benchmark: the callers' recordings, the model's replies, and the mark.

Three things make sound measurable at the edges without listening to it:

- The *mark*, one frame of a 1 kHz tone, louder than any of the recordings used here. It says which sample of
  the caller's stream arrived as which sample of the model's, and at every further mark whether any were lost.
- The *pilot*, a quiet tone under every reply: each of its frames has a sample that is not zero, while the
  service plays zeros where nobody speaks. So what is heard of a reply is known frame by frame.
- The *onset*: where the first sound of a recording lies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from audio.frames import FRAME_BYTES, FRAME_SAMPLES, TELEPHONE_RATE
from bridge.softphone import SPEECH_DBOV, dbov, load_wav

MODEL_RATE: Final = 24000
RATIO: Final = MODEL_RATE // TELEPHONE_RATE
AUDIO = Path(__file__).resolve().parent.parent / "data" / "audio"

MARK_HZ: Final = 1000
MARK_PEAK: Final = 30000
MARK_LEVEL: Final = 24000
"""From this level on a sample is the mark's."""
LOUDEST: Final = 20000
"""Recordings with a louder sample are not used: resampled, they could come near the mark."""
PILOT_HZ: Final = 440
PILOT_PEAK: Final = 60
ONSET_MS: Final = 10
"""How finely the onset is looked for."""

SAYS_S: Final = (1.8, 4.2)
REPLIES_S: Final = (2.4, 3.6)
GREETING_S: Final = (1.4, 1.6)
"""How long the recordings are that serve as a caller's say, a reply, and the greeting: a reply must be going
on when it is barged into, and a greeting need not hold up the next call for long."""

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Say:
    """Something that a caller says.

    Attributes:
        frames: 20 ms of 8 kHz signed 16-bit mono each.
        onset: the sample where its first sound lies.
    """

    frames: tuple[bytes, ...]
    onset: int


def mark() -> bytes:
    """The mark: one frame at 8 kHz."""
    at = np.arange(FRAME_SAMPLES) / TELEPHONE_RATE
    tone: bytes = np.rint(MARK_PEAK * np.sin(2 * np.pi * MARK_HZ * at)).astype("<i2").tobytes()
    return tone


def mark_lead(rate: int = MODEL_RATE) -> int:
    """Where, in samples at the model's rate, the mark first reaches :data:`MARK_LEVEL` after its start."""
    return int(np.ceil(np.arcsin(MARK_LEVEL / MARK_PEAK) / (2 * np.pi * MARK_HZ) * rate))


def says() -> list[Say]:
    """The visitors' recordings, as callers say them."""
    return [_say(_recording(file)) for file in _files("visitor", SAYS_S)]


def replies(rate: int = MODEL_RATE) -> list[bytes]:
    """The residents' recordings as a model's replies: signed 16-bit mono at 24 or 8 kHz, over the pilot."""
    return [_reply(_recording(file), rate) for file in _files("resident", REPLIES_S)]


def greeting(rate: int = MODEL_RATE) -> bytes:
    """The first reply of each call."""
    return _reply(_recording(_files("resident", GREETING_S)[0]), rate)


def speech(seconds: float, rate: int = MODEL_RATE) -> bytes:
    """One reply of the residents' recordings, one behind the other, for at least so long."""
    whole = bytearray()
    for piece in cycle(replies(rate)):
        if len(whole) >= 2 * rate * seconds:
            break
        whole += piece
    return bytes(whole)


def onset(pcm: bytes) -> int:
    """The first sample of the first 10 ms that are as loud as speech.

    Raises:
        ValueError: there are none.
    """
    step = 2 * TELEPHONE_RATE * ONSET_MS // 1000
    for start in range(0, len(pcm), step):
        if dbov(pcm[start : start + step]) >= SPEECH_DBOV:
            return start // 2
    raise ValueError("a recording of silence")


def _files(role: str, seconds: tuple[float, float]) -> list[str]:
    least, most = seconds
    entries = json.loads((AUDIO / "manifest.json").read_text(encoding="utf-8"))
    return [
        entry["file"]
        for entry in entries
        if entry["role"] == role and least <= entry["seconds"] <= most and _peak(entry["file"]) <= LOUDEST
    ]


def _recording(file: str) -> bytes:
    return load_wav(AUDIO / file)


def _peak(file: str) -> int:
    return int(np.abs(np.frombuffer(_recording(file), "<i2").astype(np.int32)).max())


def _say(pcm: bytes) -> Say:
    frames = [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES)]
    return Say(tuple(frame.ljust(FRAME_BYTES, b"\0") for frame in frames), onset(pcm))


def _reply(pcm: bytes, rate: int) -> bytes:
    spoken = np.frombuffer(pcm, "<i2").astype(np.float64)
    if rate != TELEPHONE_RATE:
        spoken = soxr.resample(spoken, TELEPHONE_RATE, rate, "VHQ")
    pilot = PILOT_PEAK * np.sin(2 * np.pi * PILOT_HZ * np.arange(1, len(spoken) + 1) / rate)
    whole: bytes = np.clip(np.rint(spoken + pilot), -32768, 32767).astype("<i2").tobytes()
    return whole


__all__ = [
    "MODEL_RATE",
    "RATIO",
    "Say",
    "greeting",
    "mark",
    "mark_lead",
    "onset",
    "replies",
    "says",
    "speech",
]
