"""Between a session's audio formats and the 24 kHz at which this server works."""

from __future__ import annotations

from audio.resample import Resampler
from providers.formats import PCM_RATE, AudioFormat
from providers.local.protocol import RequestError


class Incoming:
    """The caller's audio, in one format, as PCM at 24 kHz. One stream: it is resampled as one."""

    def __init__(self, format: AudioFormat) -> None:
        self._format = format
        self._up = Resampler(format.rate, PCM_RATE)

    def pcm(self, audio: bytes) -> bytes:
        """What can be heard by now.

        Raises:
            RequestError: it is not a whole number of samples. Nothing of it is taken.
        """
        if len(audio) % self._format.sample_bytes:
            raise RequestError("The audio is not a whole number of 16-bit samples.", param="audio")
        return self._up.process(self._format.decode(audio))


class Outgoing:
    """PCM at 24 kHz in one format; one item is one stream."""

    def __init__(self, format: AudioFormat) -> None:
        self._format = format
        self._down = Resampler(PCM_RATE, format.rate, limit=format.rate != PCM_RATE)

    def audio(self, pcm: bytes) -> bytes:
        """What can be sent by now."""
        return self._format.encode(self._down.process(pcm))

    def rest(self) -> bytes:
        """What was held back, at the end of an item. The next one begins anew."""
        return self._format.encode(self._down.flush())
