"""A session without a model: it says sentences word for word, in a voice of our own, and hears nobody.

For callers whom no model may be asked for, and for the last words to those whose model is gone. It costs
nothing, and needs no network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from providers.base import (
    AudioDelta,
    AudioDone,
    Capabilities,
    Event,
    Failed,
    Heard,
    ItemStarted,
    Ready,
    ResponseDone,
    ResponseStarted,
    SessionConfig,
    Speak,
    ToolCall,
    Transcript,
    Usage,
)
from providers.delivery import Delivery
from providers.local.speech import RATE, Speaker, SpeechError, make_voice

VOICE_S: Final = 8.0
"""How long the voice may take for one sentence, its start included."""
CAPABILITIES: Final = Capabilities(
    input_rate=8000, output_rate=RATE, truncation=False, exact_speech=True, owns_turns=False
)


class Says(Protocol):
    """A voice."""

    async def say(self, sentence: str) -> bytes:
        """The sentence as PCM at :data:`providers.local.speech.RATE`.

        Raises:
            SpeechError: it could not be said, or not in time.
        """


class OwnVoice:
    """espeak-ng's voice or piper's, made when it is first needed."""

    def __init__(self, piper_voice: Path | None) -> None:
        self._piper_voice = piper_voice
        self._speaker: Speaker | None = None
        self._making = asyncio.Lock()

    async def say(self, sentence: str) -> bytes:
        """See :class:`Says`."""
        try:
            async with asyncio.timeout(VOICE_S):
                async with self._making:
                    if self._speaker is None:
                        self._speaker = Speaker(await asyncio.to_thread(make_voice, self._piper_voice))
                return await self._speaker.say(sentence)
        except TimeoutError as error:
            raise SpeechError(f"speech was not ready within {VOICE_S:.0f} s") from error

    def close(self) -> None:
        """Let the voice go."""
        if self._speaker is not None:
            self._speaker.close()
            self._speaker = None


class Announcer:
    """Opens sessions; see :class:`providers.base.Provider`."""

    name = "announcement"
    opens_ahead = False  # there is nothing to wait for

    def __init__(self, voice: Says) -> None:
        self._voice = voice

    def open(self, config: SessionConfig) -> AnnouncerSession:
        """See :class:`providers.base.Provider`; nothing of the configuration counts."""
        return AnnouncerSession(self._voice)


class AnnouncerSession:
    """See the module, and :class:`providers.base.Session`."""

    def __init__(self, voice: Says) -> None:
        self._voice = voice
        self._loop = asyncio.get_running_loop()
        self._delivery = Delivery(self._loop, lambda event: True, lambda on: None, self._finish)
        self._over = False
        self._ended = asyncio.Event()
        self._speaking: set[asyncio.Task[None]] = set()
        self._receipts = 0
        self._delivery.add(Ready(CAPABILITIES))
        self._delivery.add(Usage("local", "voice", "speech"))  # nothing, and that much is known at once

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`providers.base.Session`."""
        return CAPABILITIES

    @property
    def busy(self) -> bool:
        """See :class:`providers.base.Session`."""
        return bool(self._speaking) and not self._over

    @property
    def over(self) -> bool:
        """See :class:`providers.base.Session`."""
        return self._over

    async def run(self, take: Callable[[Event], None]) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.begin(take)
        await self._ended.wait()
        self._delivery.end()

    def say_exactly(self, text: str) -> str:
        """See :class:`providers.base.Session`."""
        receipt = self._receipt()
        if not self._over:
            task = self._loop.create_task(self._say(receipt, text), name="announcement")
            self._speaking.add(task)
            task.add_done_callback(self._speaking.discard)
        return receipt

    async def _say(self, receipt: str, text: str) -> None:
        try:
            pcm = await self._voice.say(text)
        except SpeechError as error:
            self._add(Failed("session", "no_voice", f"there is no voice of our own: {error}"))
            self._finish()
            return
        response, item = f"response_{receipt}", f"item_{receipt}"
        self._add(ResponseStarted(response, receipt))
        self._add(ItemStarted(response, item, receipt))
        self._add(AudioDelta(item, pcm))
        self._add(Transcript("agent", item, text, final=True))
        self._add(AudioDone(item))
        self._add(Usage("local", "voice", "speech", characters=len(text)))
        self._add(ResponseDone(response, receipt, "completed", {}))

    def speak_about(self, text: str) -> str:
        """See :class:`providers.base.Session`: there is nobody to find words."""
        receipt = self._receipt()
        self._add(ResponseDone("", receipt, "failed", {}, "there is no model"))
        return receipt

    def _receipt(self) -> str:
        self._receipts += 1
        return f"receipt_{self._receipts}"

    def _add(self, event: Event) -> None:
        if not self._over:
            self._delivery.add(event)

    def _finish(self) -> None:
        self._over = True
        self._ended.set()

    async def close(self) -> None:
        """See :class:`providers.base.Session`."""
        self._delivery.clear()
        self._finish()
        for task in self._speaking:
            task.cancel()
        if self._speaking:
            await asyncio.wait(self._speaking, timeout=1)

    # Nobody listens, and there is no memory in which anything could change.

    def send_audio(self, pcm: bytes) -> None:
        """See :class:`providers.base.Session`."""

    def interrupt(self, heard: Heard | None) -> None:
        """See :class:`providers.base.Session`."""

    def auto_reply(self, on: bool) -> None:
        """See :class:`providers.base.Session`."""

    def doubt_turn(self) -> None:
        """See :class:`providers.base.Session`."""

    def settle_turn(self, reply: bool) -> None:
        """See :class:`providers.base.Session`."""

    def note(self, text: str) -> None:
        """See :class:`providers.base.Session`."""

    def answer(self, call: ToolCall, result: Mapping[str, Any], speak: Speak = "now") -> None:
        """See :class:`providers.base.Session`."""


__all__ = ["Announcer", "AnnouncerSession", "OwnVoice", "Says"]
