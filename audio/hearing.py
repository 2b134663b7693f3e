"""One leg's ear: whether the caller speaks, told apart from our echo, and what the model is given to hear.

While we talk and nobody else does, the model hears silence: it would take our echo for the caller, reply to
it and stop itself. What was kept from it is remembered for 400 ms; when the caller is heard to speak, the
model gets that first, so that no word loses its beginning. When we have stopped it gets the last of it in any
case: people answer just then.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from audio.echo import EchoGuard, work_off
from audio.frames import FRAME_MS
from audio.vad import SpeechOffset, SpeechOnset, VadBatch, VadModel, VadProfile, VoiceActivity

PRE_ROLL_MS: Final = 400
"""How much of what was kept from the model it gets when the caller speaks after all."""
OPENING_MS: Final = 200
"""How much of it it gets when the way is opened again although nobody was heard yet: a word's beginning is
heard for one only a while after it came, and later still where the ticks are late."""
_ECHO_FRAMES: Final = 400 // FRAME_MS
"""For so many frames after we last said something it may still come back."""
_CONFIRMING_FRAMES: Final = 160 // FRAME_MS
"""For so many more it is waited whether what may be a word's beginning is one."""


class Uplink:
    """What the model is given in place of what the leg hears."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0

    def closed(self, pcm8k: bytes) -> bytes:
        """Silence of the same length."""
        self._kept.append(pcm8k)
        self._kept_bytes += len(pcm8k)
        while self._kept_bytes - len(self._kept[0]) >= PRE_ROLL_MS * 16:
            self._kept_bytes -= len(self._kept.popleft())
        return bytes(len(pcm8k))

    def open(self, most_ms: int = PRE_ROLL_MS) -> bytes:
        """What was kept back, the last of it; nothing, where the way was open already."""
        if not self._kept:
            return b""
        kept = b"".join(self._kept)[-most_ms * 16 :]
        self._kept.clear()
        self._kept_bytes = 0
        return kept


class Ear:
    """What a leg hears with."""

    def __init__(
        self,
        voice: VoiceActivity,
        *,
        guard: EchoGuard | None = None,
        gated: bool = False,
        together: list[Ear] | None = None,
    ) -> None:
        """
        Args:
            voice: judged by whoever owns its batch, before :meth:`take`.
            guard: None: whatever is heard is the caller.
            gated: whether the model hears silence while we talk and the caller doesn't.
            together: where this ear puts itself while what its guard heard waits for :class:`Ears`. None: it
                waits for nobody.
        """
        self.voice = voice
        self._guard = guard
        self._together = together
        self.fault: Exception | None = None
        """Its guard broke down: a fault of ours, which ends this leg and no other."""
        self._uplink = Uplink() if gated else None
        self._since_ours = _ECHO_FRAMES
        self._shut = False
        """The model hears silence. Once open the way stays so until we talk again: no word has a hole."""

    @property
    def speaking(self) -> bool:
        """The caller is being heard."""
        return self.voice.speaking

    @property
    def speech_ms(self) -> int:
        """See :attr:`audio.vad.VoiceActivity.speech_ms`."""
        return self.voice.speech_ms

    @property
    def quiet_ms(self) -> int:
        """See :attr:`audio.vad.VoiceActivity.quiet_ms`."""
        return self.voice.quiet_ms

    def end_now(self) -> None:
        """See :meth:`audio.vad.VoiceActivity.end_now`; the model hears silence again if we talk on."""
        self.voice.end_now()

    def played(self, frame: bytes, skipped: int, *, ours: bool) -> None:
        """A frame went out, ``skipped`` before it never did.

        Args:
            ours: it is talk, or may hold voices; no tone or silence.
        """
        self._since_ours = 0 if ours else self._since_ours + 1 + skipped
        if self._guard is not None:
            self._guard.played(frame, skipped)

    def heard(self, pcm8k: bytes) -> bytes:
        """What came in. Returns what the model is to hear now.

        Raises:
            ValueError: ``pcm8k`` holds half a sample. Nothing of it is taken.
        """
        if self._guard is None:
            self.voice.hear(pcm8k)
        else:
            waited = bool(self._guard.waiting)
            self._guard.hear(pcm8k, speaking=self.voice.speaking)
            if not self._guard.waiting:
                self.worked_off(self._guard)
            elif self._together is None:
                work_off((self._guard,))
                self.worked_off(self._guard)
            elif not waited:
                self._together.append(self)
        if self._uplink is None:
            return pcm8k
        waits = self._shut and self.voice.beginning
        closed = _ECHO_FRAMES + (_CONFIRMING_FRAMES if waits else 0)
        self._shut = self._since_ours < closed and not self.voice.speaking
        if self._shut:
            return self._uplink.closed(pcm8k)
        return self._uplink.open(PRE_ROLL_MS if self.voice.speaking else OPENING_MS) + pcm8k

    @property
    def guard(self) -> EchoGuard | None:
        """What takes our echo out."""
        return self._guard

    def worked_off(self, guard: EchoGuard) -> None:
        """Its guard has worked on what waited: the voice is to judge what is left."""
        for block, floor_dbov in guard.take():
            self.voice.hear(block, floor_dbov=floor_dbov)

    def close(self) -> None:
        """The leg is over."""
        self.voice.close()

    def take(self) -> list[SpeechOnset | SpeechOffset]:
        """What began or ended since this was last asked.

        Raises what its guard broke down with, if it did: the leg hears nothing any more.
        """
        if self.fault is not None:
            raise self.fault
        return self.voice.take()


class Ears:
    """The ears of all legs. What they heard is worked on together, once a tick; each takes its own events.

    It makes no difference to a leg who else is there.
    """

    def __init__(self, model: VadModel) -> None:
        self._voices = VadBatch(model)
        self._waiting: list[Ear] = []
        """Those whose guards have something to work on."""

    def ear(
        self, profile: VadProfile | None = None, *, guard: EchoGuard | None = None, gated: bool = False
    ) -> Ear:
        """A new leg's; see :class:`Ear`. Until it is closed :meth:`run` works on what it hears."""
        return Ear(self._voices.voice(profile), guard=guard, gated=gated, together=self._waiting)

    def run(self) -> None:
        """Take our echo out of all that was heard, and judge what is left."""
        if self._waiting:
            self._work_off()
        self._voices.run()

    def _work_off(self) -> None:
        waiting = [
            (ear, ear.guard)
            for ear in self._waiting
            if ear.guard is not None and ear.fault is None and not ear.voice.closed
        ]
        self._waiting.clear()
        try:
            work_off([guard for _, guard in waiting])
        except Exception:  # noqa: BLE001 - whoever it is, told below: the others go on hearing
            for ear, guard in waiting:
                _alone(ear, guard)
        for ear, guard in waiting:
            ear.worked_off(guard)


def _alone(ear: Ear, guard: EchoGuard) -> None:
    try:
        work_off((guard,))
    except Exception as fault:  # noqa: BLE001 - it ends this leg (`Ear.take`)
        ear.fault = fault
