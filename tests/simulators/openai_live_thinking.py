"""The simulator of OpenAI Live with one brain behind its voice and the model that it delegates to."""

from __future__ import annotations

import base64
from collections import Counter, deque

from tests.simulators.brain import (
    Brain,
    Brains,
    Called,
    Heard,
    Mouth,
    ReplyEnded,
    SayBegan,
    SayEnded,
    Sentence,
    Sound,
    Thought,
    TurnBegan,
    TurnEnded,
)
from tests.simulators.openai_live import (
    CHUNK_MS,
    QUIET_MS,
    Call,
    Delegate,
    Faults,
    Message,
    Model,
    Reply,
    Say,
    Simulator,
)

PAUSE_MS = 500
"""Between two things that are said."""


class Thinking(Model):
    """See :class:`tests.simulators.openai_live.Model`. A sentence is spoken once all of it is thought of."""

    def __init__(self, replies: deque[Reply], faults: Faults, brain: Brain) -> None:
        super().__init__(replies, faults)
        self._brain = brain
        brain.tell = self._think
        self._mouth = Mouth(self.format.rate)
        self._sentence = ""
        self._sound = b""
        """Of that sentence, as far as it is thought of."""
        self._voice: deque[tuple[str, bytes]] = deque()
        """What waits to be spoken, in pieces of :data:`CHUNK_MS`, with the brain's names of it."""
        self._spoken_ms: Counter[str] = Counter()
        self._called: list[Call] = []
        """By the running reply."""

    # -- what a client sends

    def _on_start(self, message: Message) -> None:
        super()._on_start(message)
        if self.session:
            backend = self.session["delegation"]["responses"]
            self._brain.configure(backend["instructions"], backend["tools"], silence_ms=QUIET_MS)

    def hear(self, pcm: bytes) -> None:
        """The caller's audio, as PCM."""
        self._brain.hear(pcm, self.format.rate)

    def _on_append(self, message: Message, channel: str) -> None:
        known = len(self.thinking)
        super()._on_append(message, channel)
        for text in self.thinking[known:]:
            self._brain.take_notice(text)

    def _on_item(self, message: Message) -> None:
        known = set(self.answers)
        super()._on_item(message)
        for call in set(self.answers) - known:
            self._brain.answer(call, message["item"]["output"])

    # -- what the model does

    def begin(self, asked: str = "") -> None:
        """The next reply."""
        self._brain.reply(self._brain.take_notice(asked) if asked else "")

    def fall_silent(self) -> None:
        """Let the caller speak; what they did not hear is forgotten."""
        super().fall_silent()
        unspoken = dict.fromkeys(item for item, _ in self._voice)
        self._voice.clear()
        self._called.clear()
        self._brain.cancel()
        for item in unspoken:
            self._brain.heard(item, self._spoken_ms[item])

    def _chunk(self, speaking: bool) -> None:
        if not speaking:
            super()._chunk(False)
            return
        item, pcm = self._voice.popleft()
        self._spoken_ms[item] += CHUNK_MS
        audio = base64.b64encode(self.format.encode(pcm)).decode()
        self.emit("session.output_audio.delta", delta=audio)

    # -- what the brain tells

    def _think(self, thought: Thought) -> None:
        match thought:
            case TurnBegan():
                self.fall_silent()
            case TurnEnded():
                self.begin()
            case Heard(text):
                self.transcribe(text)
            case SayBegan():
                self._mouth = Mouth(self.format.rate)
                self._sentence, self._sound = "", b""
            case Sentence(item, text):
                self._say_it(item)
                self._sentence = text
            case Sound(_, pcm):
                self._sound += self._mouth.say(pcm)
            case SayEnded(item):
                self._sound += self._mouth.rest()
                self._say_it(item, PAUSE_MS)
            case Called(id, name, arguments):
                self._called.append(Call(name, arguments, id))
            case ReplyEnded():
                if self._called:
                    self._items.append(Delegate(tuple(self._called)))
                    self._called.clear()

    def _say_it(self, item: str, pause_ms: int = 0) -> None:
        """The sentence is whole."""
        piece = self.format.pcm_bytes_per_ms * CHUNK_MS
        sound, self._sound = self._sound, b""
        pieces = [sound[at : at + piece].ljust(piece, b"\0") for at in range(0, len(sound), piece)]
        if pieces:
            self._voice.extend((item, one) for one in pieces)
            self._items.append(Say(len(pieces) * CHUNK_MS, self._sentence + " ", pause_ms))


def thinking_live(brains: Brains) -> Simulator:
    """OpenAI Live, as fast as people speak."""

    def make(replies: deque[Reply], faults: Faults) -> Model:
        return Thinking(replies, faults, brains.new())

    return Simulator(faults=Faults(pace_s=CHUNK_MS / 1000), make=make)
