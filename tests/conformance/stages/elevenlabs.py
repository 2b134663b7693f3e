"""ElevenLabs Agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.conformance.stage import Call, Refusal, Reply, Say, Stage
from tests.simulators import elevenlabs as simulated


class ElevenLabs(Stage):
    """An agent that is configured at the vendor's, and owns its turns."""

    server: simulated.Simulator
    name = "elevenlabs"
    key = simulated.KEY
    settings: ClassVar[Mapping[str, Any]] = {"model": simulated.AGENT}
    emulated: ClassVar[Mapping[str, str]] = {
        "exact sentences": "the words are asked for, and the transcript is compared",
        "heard position": "the model is told in words how much of its reply was heard",
        "cost": "the minutes are reckoned here; what the agent's language model costs is not told",
        "lost connection": "a new session is told the conversation as text",
    }
    beyond: ClassVar[Mapping[str, str]] = {
        "broken arguments": "arguments come as an object, and are always JSON",
        "rate limit": "limits are told when a session is opened",
        "goAway": "no warning comes; how long a conversation may last is the agent's setting",
    }

    def simulator(self, replies: Sequence[Reply], pace_s: float) -> simulated.Simulator:
        # An agent that remembers all that it said, so that it has to be told what was heard.
        self.faults = simulated.Faults(pace_s=pace_s, corrects=1.0)
        return simulated.Simulator(*_script(replies), faults=self.faults)

    @property
    def violations(self) -> list[str]:
        return self.server.violations

    @property
    def caller(self) -> bytes:
        return self.server.model.caller

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.server.model.received if "text" in message]

    @property
    def verbatim(self) -> list[str]:
        override = self.server.model.started.get("conversation_config_override") or {}
        first = (override.get("agent") or {}).get("first_message")
        return [first] if first else []

    @property
    def answers(self) -> Mapping[str, Any]:
        return self.server.model.answers

    def caller_will_say(self, words: str) -> None:
        self.server.model.said.append(words)

    def caller_ends(self, words: str) -> None:
        """The agent hears it."""

    def cancel(self, call: str) -> None:
        self.server.model.give_up(call)
        self.server.kick()

    def phantom(self) -> None:
        self.server.model.interrupt()
        self.server.kick()

    def confirm_another_format(self) -> None:
        self.faults.output_format = "pcm_16000"

    def refuse(self, why: Refusal) -> None:
        match why:
            case "key":
                self.changes["api_key_env"] = "WRONG"
            case "model":
                self.changes["model"] = "agent_nobody"
            case "voice":
                self.changes["voice"] = "voice_nobody"
            case "rate":
                self.faults.refuse = (429, b'{"detail":{"status":"too_many_concurrent_requests"}}')
            case "quota":
                self.faults.close_on_start = (1002, "This request exceeds your quota limit.")

    def is_call(self, message: bytes) -> bool:
        return b'"client_tool_call"' in message


def _script(replies: Sequence[Reply]) -> list[simulated.Reply]:
    """A reply stands still until its calls are answered, and goes on with what is said then."""
    script: list[simulated.Reply] = []
    goes_on = False
    for reply in replies:
        items = tuple(_item(item) for item in reply)
        if goes_on:
            items = script.pop().items + items
        script.append(simulated.Reply(items))
        goes_on = bool(reply) and isinstance(reply[-1], Call)
    return script


def _item(item: Say | Call) -> simulated.Say | simulated.Call:
    if isinstance(item, Say):
        return simulated.Say(item.ms, item.text)
    return simulated.Call(item.name, dict(item.arguments or {}), item.id, item.times)
