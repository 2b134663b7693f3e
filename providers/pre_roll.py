"""The caller's audio while nobody speaks: the last half second is kept, the rest is never sent or sold."""

from __future__ import annotations

from collections import deque
from typing import Final

from providers.base import AudioSent

PRE_ROLL_MS: Final = 500
"""The VAD says that somebody speaks 80 to 170 ms after they began; a soft first sound comes before that."""


class PreRoll:
    """What goes before a turn, and how much was sent and was not."""

    def __init__(self, bytes_per_ms: int) -> None:
        """`bytes_per_ms`: of the PCM that is kept."""
        self._bytes_per_ms = bytes_per_ms
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._sent = self._spared = 0

    @property
    def share(self) -> AudioSent:
        """So far; what is kept counts for neither."""
        rate = self._bytes_per_ms * 1000
        return AudioSent(self._sent / rate, self._spared / rate)

    def keep(self, pcm: bytes, keep_ms: int = PRE_ROLL_MS) -> None:
        """Nobody speaks. What is older than `keep_ms` is let go."""
        self._kept.append(pcm)
        self._bytes += len(pcm)
        while self._bytes - len(self._kept[0]) >= keep_ms * self._bytes_per_ms:
            self._spare(self._kept.popleft())

    def take(self) -> list[bytes]:
        """Somebody speaks: what was kept, without what is nothing but zeros at its beginning."""
        while self._kept and not any(self._kept[0]):
            self._spare(self._kept.popleft())
        taken = list(self._kept)
        self._kept.clear()
        self._bytes = 0
        return taken

    def sent(self, pcm: bytes) -> None:
        """So much went to the provider."""
        self._sent += len(pcm)

    def forget(self, bytes_per_ms: int) -> None:
        """What is kept is at a rate that nobody reads; from now on it comes at another."""
        self._kept.clear()
        self._bytes = self._sent = self._spared = 0
        self._bytes_per_ms = bytes_per_ms

    def _spare(self, pcm: bytes) -> None:
        self._bytes -= len(pcm)
        self._spared += len(pcm)


__all__ = ["PRE_ROLL_MS", "PreRoll"]
