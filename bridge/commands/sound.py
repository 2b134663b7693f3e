"""The microphone and the loudspeaker of this machine, through the optional package ``sounddevice``."""

from __future__ import annotations

import importlib
from collections import deque
from types import TracebackType
from typing import Any, Self

from bridge.endpoints.base import FRAME_BYTES, FRAME_RATE

FRAME_SAMPLES = FRAME_BYTES // 2
PREFILL = 3
"""Frames (20 ms each) that the loudspeaker waits for before it plays: what the network's jitter may take."""
MOST = 15
"""Frames that either direction holds at most; beyond them the oldest go: two clocks never run alike."""

HOW_TO_INSTALL = (
    "--microphone needs the package sounddevice and the PortAudio library: pip install 'porteiro[sound]', "
    "and on Debian or Ubuntu also apt install libportaudio2"
)


class NoSound(RuntimeError):
    """There is no microphone or loudspeaker to be had; the text says what to do."""


class SoundCard:
    """Both directions at 8 kHz mono, as a context. ``read`` and ``play`` never block.

    PortAudio calls back in a thread of its own; a deque is safe between the two.
    """

    def __init__(self) -> None:
        try:
            self._library = importlib.import_module("sounddevice")
        except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio itself is not
            raise NoSound(f"{HOW_TO_INSTALL} ({error})") from error
        self._spoken: deque[bytes] = deque(maxlen=MOST)
        self._heard: deque[bytes] = deque(maxlen=MOST)
        self._playing = False
        self._stream: Any = None

    def __enter__(self) -> Self:
        """Open both directions.

        Raises:
            NoSound: no device, or none that takes 8 kHz mono.
        """
        try:
            self._stream = self._library.RawStream(
                samplerate=FRAME_RATE,
                blocksize=FRAME_SAMPLES,
                channels=1,
                dtype="int16",
                callback=self._exchange,
            )
            self._stream.start()
        except self._library.PortAudioError as error:
            raise NoSound(f"no microphone and loudspeaker at 8 kHz mono: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self._stream.close()

    def read(self) -> bytes | None:
        """The next 20 ms from the microphone; None: not there yet."""
        return self._spoken.popleft() if self._spoken else None

    def play(self, pcm: bytes) -> None:
        """Put a frame behind what the loudspeaker plays."""
        self._heard.append(pcm)

    def _exchange(self, recorded: Any, played: Any, frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback: take 20 ms, give 20 ms."""
        self._spoken.append(bytes(recorded))
        if not self._playing:
            self._playing = len(self._heard) >= PREFILL
        if self._playing and self._heard:
            played[:] = self._heard.popleft()[: len(played)].ljust(len(played), b"\0")
        else:
            self._playing = False
            played[:] = bytes(len(played))
