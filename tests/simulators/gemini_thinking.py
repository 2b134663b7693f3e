"""The simulator of Gemini Live with a brain behind it."""

from __future__ import annotations

import base64
import json
from collections import deque
from functools import partial

from google.genai import types

from tests.simulators.brain import (
    MARK,
    Brain,
    Brains,
    Called,
    Heard,
    ReplyEnded,
    Sentence,
    Sound,
    Thought,
)
from tests.simulators.gemini_live import Faults, Message, Model, Reply, Simulator

IN_RATE = 16000


class Thinking(Model):
    """See :class:`tests.simulators.gemini_live.Model`."""

    def __init__(self, replies: deque[Reply], faults: Faults, handles: dict[str, int], brain: Brain) -> None:
        super().__init__(replies, faults, handles)
        self._brain = brain
        brain.tell = self._think
        self._exact = ""
        """What the next reply is to say word for word."""
        self._thinking = False
        """The brain has more to say in the running response."""

    # -- what a client sends

    def _on_setup(self, setup: types.LiveClientSetup, turns: types.RealtimeInputConfig, raw: Message) -> None:
        super()._on_setup(setup, turns, raw)
        told = setup.system_instruction
        assert isinstance(told, types.Content)
        heard = setup.input_audio_transcription or types.AudioTranscriptionConfig()
        self._brain.configure(
            "".join(part.text or "" for part in told.parts or ()),
            [_function(one) for tool in raw["tools"] for one in tool["functionDeclarations"]],
            hint=", ".join(heard.custom_vocabulary or ()),
        )

    def _on_content(self, content: types.LiveClientContent) -> None:
        for turn in content.turns or []:
            for part in turn.parts or []:
                text = part.text or ""
                if turn.role == "user" and text.startswith(MARK):
                    self._exact = self._brain.take_notice(text)
                else:  # of a conversation before
                    self._brain.note(text, "assistant" if turn.role == "model" else "user")
        super()._on_content(content)

    def hear(self, pcm: bytes) -> None:
        """A turn of the caller's is over: its words, and a reply."""
        self._brain.turn(pcm, IN_RATE)
        self.start()

    def _on_response(self, response: types.FunctionResponse) -> None:
        super()._on_response(response)
        self._brain.answer(response.id or "", json.dumps(response.response))

    # -- responses

    def interrupt(self) -> None:
        """Whatever is being said is over."""
        self._brain.cancel()
        super().interrupt()

    def start(self) -> None:
        """Begin a response."""
        super().start()
        assert self._active is not None
        self._active.messages = iter(())
        self._thinking = True
        exact, self._exact = self._exact, ""
        self._brain.reply(exact)

    def step(self) -> bool:
        """Go on with the running response, or begin one that is owed; False: the brain will."""
        if self._active is not None and self._thinking:
            return False
        return super().step()

    # -- what the brain tells

    def _think(self, thought: Thought) -> None:
        match thought:
            case Heard(text):
                self.transcribe(text)
            case Sentence(_, text):
                self.emit(serverContent={"outputTranscription": {"text": text}})
            case Sound(_, pcm):
                audio = {"mimeType": self.faults.mime, "data": base64.b64encode(pcm).decode()}
                self.emit(serverContent={"modelTurn": {"parts": [{"inlineData": audio}]}})
            case Called(id, name, arguments):
                self.calls[id] = name
                call = {"id": id, "name": name, "args": json.loads(arguments)}
                self.emit(toolCall={"functionCalls": [call]})
            case ReplyEnded():
                assert self._active is not None
                self._thinking = False
                self._active.messages = iter([{"serverContent": {"generationComplete": True}}])


def _function(declared: Message) -> Message:
    """A function as OpenAI's protocol has it."""
    return {
        "type": "function",
        "name": declared["name"],
        "description": declared["description"],
        "parameters": declared["parametersJsonSchema"],
    }


def thinking_gemini(brains: Brains) -> Simulator:
    """Gemini Live."""
    simulator = Simulator()

    def make(replies: deque[Reply], faults: Faults, handles: dict[str, int]) -> Model:
        brain = brains.new()
        model = Thinking(replies, faults, handles, brain)
        brain.wake = partial(simulator.kick, model)
        return model

    simulator.make = make
    return simulator
