"""The simulators of OpenAI's protocol, and of Azure's two kinds of it, with a brain behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulators.azure_openai import AzureSimulator
from tests.simulators.azure_voicelive import VoiceLiveModel, VoiceLiveSimulator
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
from tests.simulators.openai_realtime import Call, Faults, Message, Model, Reply, Simulator


class Thinking(Model):
    """See :class:`tests.simulators.openai_realtime.Model`. Items of what it says have the brain's names."""

    def __init__(self, replies: list[Reply] | None, faults: Faults | None, brain: Brain) -> None:
        super().__init__(replies, faults)
        self._brain = brain
        brain.tell = self._think
        self._mouth = Mouth(self.format("output").rate)
        self._turn = ""
        self._unworded: deque[str] = deque()
        """Turns whose words have not come."""

    # -- what a client sends

    def _on_session_update(self, message: Message) -> None:
        super()._on_session_update(message)
        if self.session:
            turns = self._detection(self.session)
            self._brain.configure(
                self.session["instructions"],
                self.session["tools"],
                hint=self._hint(self.session),
                silence_ms=turns["silence_duration_ms"] if turns is not None else None,
            )

    def _hint(self, session: Message) -> str:
        """What the recogniser is told to expect."""
        return str(session["audio"]["input"]["transcription"].get("prompt", ""))

    def hear(self, pcm: bytes, rate: int) -> None:
        """The caller's audio, as PCM; where the client says where turns end, each of them is heard whole."""
        if not self.manual:
            self._brain.hear(pcm, rate)

    def transcribe(self, item: str) -> None:
        """Say what was said in a turn that the client committed."""
        self._unworded.append(item)
        self._brain.turn(self.turns[item], self.format("input").rate)

    def _on_conversation_item_create(self, message: Message) -> None:
        known = set(self.answers)
        super()._on_conversation_item_create(message)
        item = message["item"]
        if item["type"] == "message":
            self._brain.note("".join(part["text"] for part in item["content"]), item["role"])
        elif item["type"] == "function_call":
            self._brain.called(item["call_id"], item["name"], item["arguments"])
        elif item["call_id"] in set(self.answers) - known:
            self._brain.answer(item["call_id"], item["output"])

    def _on_conversation_item_truncate(self, message: Message) -> None:
        known = set(self.truncated)
        super()._on_conversation_item_truncate(message)
        if message["item_id"] in set(self.truncated) - known:
            self._brain.heard(message["item_id"], message["audio_end_ms"])

    def _on_conversation_item_delete(self, message: Message) -> None:
        super()._on_conversation_item_delete(message)
        self._brain.forget(message["item_id"])

    def _finish(self, status: str, details: Message) -> None:
        if status == "cancelled":
            self._brain.cancel()
        super()._finish(status, details)

    # -- responses

    def start(self, metadata: dict[str, str] | None) -> None:
        """Begin a response that the client asked for."""
        super().start(metadata)
        self._brain.reply(self._exact(self.creates[-1].get("response") or {}))

    def _exact(self, response: Message) -> str:
        """What is to be said word for word."""
        return self._brain.take_notice(response.get("instructions", ""))

    def step(self) -> bool:
        """Nothing: what there is to say comes from the brain."""
        return False

    # -- what the brain tells

    def _think(self, thought: Thought) -> None:
        match thought:
            case TurnBegan():
                self._turn = self.caller_starts()
            case TurnEnded():
                self._unworded.append(self._turn)
                self.caller_stops(self._turn)
            case Heard(text):
                self._transcribed(self._unworded.popleft(), text)
            case Called(id, name, arguments):
                self._emit_all(self._call(self._response, Call(name, arguments, id)))
            case ReplyEnded():
                self._finish("completed", {"type": "completed"})
            case _:
                self._speak(thought)

    def _speak(self, thought: Thought) -> None:
        response = self._response
        match thought:
            case SayBegan(item):
                self._mouth = Mouth(self.format("output").rate)
                self.emit(**self._say_begins(response, item))
            case Sentence(item, text):
                delta = {"delta": text, **self._at(response, item)}
                self.emit(type="response.output_audio_transcript.delta", **delta)
            case Sound(item, pcm):
                self._sound(response, item, self._mouth.say(pcm))
            case SayEnded(item, text):
                self._sound(response, item, self._mouth.rest())
                self._emit_all(self._say_ends(response, item, text))

    @property
    def _response(self) -> str:
        assert self.active is not None, "a brain says nothing outside of a response"
        return self.active

    def _sound(self, response: str, item: str, pcm: bytes) -> None:
        if pcm:
            form = self.format("output")
            ms = len(pcm) / form.pcm_bytes_per_ms
            self.emit(**self._piece(response, item, ms, form.encode(pcm)))

    def _emit_all(self, events: Any) -> None:
        for event in events:
            self.emit(**event)


class ThinkingVoiceLive(Thinking, VoiceLiveModel):
    """The same in VoiceLive's words."""

    def _hint(self, session: Message) -> str:
        return ", ".join(session["input_audio_transcription"].get("phrase_list", ()))

    def _exact(self, response: Message) -> str:
        given = response.get("pre_generated_assistant_message")
        if given is not None:
            return "".join(part["text"] for part in given["content"])
        return super()._exact(response)


def _maker(simulator: Simulator, kind: type[Thinking], brains: Brains) -> Callable[..., Model]:
    def make(replies: list[Reply], faults: Faults) -> Model:
        brain = brains.new()
        model = kind(replies, faults, brain)
        brain.wake = partial(simulator.kick, model)
        return model

    return make


def thinking_openai(brains: Brains) -> Simulator:
    """OpenAI."""
    simulator = Simulator()
    simulator.make = _maker(simulator, Thinking, brains)
    return simulator


def thinking_azure(brains: Brains) -> AzureSimulator:
    """Azure OpenAI."""
    simulator = AzureSimulator()
    simulator.make = _maker(simulator, Thinking, brains)
    return simulator


def thinking_voicelive(brains: Brains) -> VoiceLiveSimulator:
    """Azure VoiceLive."""
    simulator = VoiceLiveSimulator()
    simulator.make = _maker(simulator, ThinkingVoiceLive, brains)
    return simulator
