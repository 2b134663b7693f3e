"""The simulator of an ElevenLabs agent with a brain behind it, and the tools that docs/ has for it."""

from __future__ import annotations

import base64
import json
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

from audio.g711 import ulaw_encode
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
from tests.simulators.elevenlabs import QUIET_MS, Faults, Message, Model, Reply, Simulator

TOOLS: list[Message] = [
    one["tool_config"]
    for one in json.loads((Path(__file__).parents[2] / "docs" / "elevenlabs-tools.json").read_text())
]


class Thinking(Model):
    """See :class:`tests.simulators.elevenlabs.Model`. What it says is told as text behind its sound."""

    def __init__(self, replies: deque[Reply], faults: Faults, brain: Brain) -> None:
        super().__init__(replies, faults)
        self._brain = brain
        brain.tell = self._think
        self._rate = int(faults.output_format.partition("_")[2])
        self._mouth = Mouth(self._rate)
        self._exact = ""
        """What the next reply is to say word for word."""
        self._thinking = False
        """The brain has more to say in the running response."""
        self._called = False
        """The brain's running reply has called something."""

    # -- what a client sends

    def _on_start(self, message: Message) -> None:
        agent = message["conversation_config_override"]["agent"]
        prompt = agent["prompt"]["prompt"]
        # The prompt says which of its tools are for this call.
        tools = [_function(tool) for tool in TOOLS if f"`{tool['name']}`" in prompt]
        self._brain.configure(prompt, tools, silence_ms=QUIET_MS)
        self._exact = agent.get("first_message", "")
        super()._on_start(message)

    def hear(self, pcm: bytes, rate: int) -> None:
        """The caller's audio, as PCM."""
        self._brain.hear(pcm, rate)

    def _on_user_message(self, message: Message) -> None:
        self._exact = self._brain.take_notice(message["text"])
        super()._on_user_message(message)

    def _on_contextual_update(self, message: Message) -> None:
        super()._on_contextual_update(message)
        self._brain.take_notice(message["text"])

    def _settled(self, call: str) -> None:
        self._brain.answer(call, json.dumps(self.answers[call]))
        super()._settled(call)
        self._go_on()

    # -- responses

    def start(self, reply: Reply | None = None) -> None:
        """Begin a response."""
        super().start(reply)
        assert self._active is not None
        self._active.messages = iter(())
        self._think_on()

    def _think_on(self) -> None:
        self._thinking, self._called = True, False
        exact, self._exact = self._exact, ""
        self._brain.reply(exact)

    def _go_on(self) -> None:
        """Once all that was called for is there, the response goes on."""
        if self._active is not None and self._called and not (self._thinking or self._active.waits):
            self._think_on()

    def step(self) -> bool:
        """Go on with the running response; False: the brain will, or a tool has to."""
        if self._thinking or self._called:
            return False
        return super().step()

    def interrupt(self, *, aloud: bool = True) -> None:
        """Whatever is being said is over."""
        active = self._active
        if active is not None:
            self._brain.cancel()
            self._thinking = self._called = False
            for call in sorted(active.waits):
                self._brain.answer(call, '{"status": "error", "message": "not waited for"}')
        super().interrupt(aloud=aloud)

    # -- what the brain tells

    def _think(self, thought: Thought) -> None:
        match thought:
            case TurnBegan():
                self.caller_starts()
            case TurnEnded():
                self.speaking = False
            case Heard(text):
                if text:
                    self.transcribe(text)
                    self.interrupt()
                    self.start()
            case _:
                self._respond(thought)

    def _respond(self, thought: Thought) -> None:
        active = self._active
        assert active is not None, "a brain says nothing outside of a response"
        match thought:
            case SayBegan():
                self._mouth = Mouth(self._rate)
                active.text, active.sent = "", False
            case Sentence(_, text):
                active.text += text
            case Sound(_, pcm):
                active.sent = True
                self._audio(self._mouth.say(pcm))
            case SayEnded(_, text):
                self._audio(self._mouth.rest())
                told = {"agent_response": text, "event_id": self.id()}
                self.emit("agent_response", agent_response_event=told)
            case Called(id, name, arguments):
                self._called = True
                self.calls[id] = name
                active.waits.add(id)
                event: dict[str, Any] = {"tool_name": name, "tool_call_id": id, "event_id": self.id()}
                event |= {"parameters": json.loads(arguments), "expects_response": True}
                self.emit("client_tool_call", client_tool_call=event)
            case ReplyEnded():
                self._thinking = False
                self._go_on()

    def _audio(self, pcm: bytes) -> None:
        if pcm:
            sound = ulaw_encode(pcm) if self.faults.output_format == "ulaw_8000" else pcm
            event = {"audio_base_64": base64.b64encode(sound).decode(), "event_id": self.id()}
            self.emit("audio", audio_event=event)


def _function(tool: Message) -> Message:
    """A tool as OpenAI's protocol has it."""
    return {"type": "function"} | {name: tool[name] for name in ("name", "description", "parameters")}


def thinking_elevenlabs(brains: Brains) -> Simulator:
    """An ElevenLabs agent."""
    simulator = Simulator(faults=Faults(corrects=1.0))

    def make(replies: deque[Reply], faults: Faults) -> Model:
        brain = brains.new()
        model = Thinking(replies, faults, brain)
        brain.wake = partial(simulator.kick, model)
        return model

    simulator.make = make
    return simulator
