"""What whoever takes a call over hears before they hear the visitor: our own voice, in a file.

FreeSWITCH plays it. It is made while the visitor still hears our goodbye, so that as a rule nobody waits for
it. Whatever goes wrong with it costs the announcement alone, never the transfer.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID, uuid4

import structlog

from audio.resample import Resampler
from bridge.endpoints.base import FRAME_RATE
from bridge.pbx import Speaks
from bridge.sound_files import SoundDirectory
from providers.announcer import Says
from providers.local.speech import RATE, SpeechError

MOST_S: Final = 15.0
"""Of speech. The longest sentence has half of it."""

log = structlog.get_logger(__name__)


async def spoken(voice: Says, sentence: str) -> bytes:
    """A sentence, as the telephone has it: 16-bit mono PCM at 8 kHz.

    Raises:
        SpeechError: it could not be said, or is too long.
    """
    pcm = await voice.say(sentence)
    if len(pcm) > MOST_S * RATE * 2:
        raise SpeechError(f"found {len(pcm) / RATE / 2:.0f} s of speech; allowed are {MOST_S:g}")
    return await asyncio.to_thread(_telephone, pcm)


def _telephone(pcm: bytes) -> bytes:
    resampler = Resampler(RATE, FRAME_RATE, limit=True)
    return resampler.process(pcm) + resampler.flush()


class Announcement:
    """One announcement's file, from its making to its end."""

    def __init__(self, files: SoundDirectory, channel: UUID, speaks: Speaks) -> None:
        self._files = files
        self._channel = channel
        self._name = f"announcement-{uuid4()}.wav"
        self._unwanted = False
        loop = asyncio.get_running_loop()
        self._making = loop.create_task(self._make(speaks), name=f"announcement of {channel}")

    async def _make(self, speaks: Speaks) -> str:
        try:
            pcm = await speaks()
            return "" if self._unwanted else await asyncio.to_thread(self._files.write, self._name, pcm)
        except (SpeechError, OSError) as error:
            log.warning("announcement.not_made", channel=str(self._channel), reason=str(error))
        except Exception as error:  # the visitor is sent on whatever it is
            log.error("announcement.not_made", error=type(error).__name__, exc_info=error)
        return ""

    async def path(self, limit_s: float) -> str:
        """Where FreeSWITCH finds it; empty where there is none, or not in time."""
        await asyncio.wait({self._making}, timeout=limit_s)
        return self._making.result() if self._making.done() else ""

    async def discard(self) -> None:
        """Delete its file. Where it is being made, that is waited for: a thread can't be stopped."""
        self._unwanted = True
        await asyncio.wait({self._making})
        try:
            await asyncio.to_thread(self._files.delete, self._name)
        except OSError as error:
            log.warning("announcement.not_deleted", file=self._name, reason=str(error))


__all__ = ["Announcement", "spoken"]
