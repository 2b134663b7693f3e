"""What a browser's microphone hears: recordings with pauses between them, as one file."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

from tests.http.web_phone import RATE, recording

AUDIO = Path(__file__).resolve().parents[2] / "data" / "audio"


def microphone(file: Path, *parts: float | str) -> Path:
    """Write a file for :class:`tests.chromium.Chromium`; the same file.

    Args:
        parts: seconds of silence, and names of recordings in `data/audio`.
    """
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        for part in parts:
            if isinstance(part, str):
                out.writeframes(recording(AUDIO / f"{part}.wav"))
            else:
                out.writeframes(bytes(int(part * RATE) * 2))
    return file


__all__: Sequence[str] = ("AUDIO", "microphone")
