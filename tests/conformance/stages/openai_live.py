"""OpenAI Live."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from providers.openai_live_messages import FORMATS, format_wire
from tests.conformance.stage import BROKEN, Refusal, Reply, Say, Stage
from tests.simulators import openai_live as simulated

PAUSE_MS = 1000
"""Between two things that the model says: an utterance ends where it pauses."""


class OpenAILive(Stage):
    """Full duplex: one stream that never stops, and a delegated model that calls the tools."""

    server: simulated.Simulator
    name = "openai-live"
    key = simulated.KEY
    stops = False
    emulated: ClassVar[Mapping[str, str]] = {
        "greeting": "the words are asked for, and the transcript is compared",
        "exact sentences": "the words are asked for, and the transcript is compared",
        "heard position": "the model is told in words how much of its reply was heard",
        "interrupted": "we fall silent at once; the model stops when it hears the caller itself",
        "lost connection": "a new session is told the conversation as text",
    }
    waits: ClassVar[Mapping[str, float]] = {
        "providers.openai_live_conversation._START_S": 3.2,
        "providers.openai_live_conversation._REPLY_S": 0.6,
    }
    beyond: ClassVar[Mapping[str, str]] = {
        "rate limit": "limits are told when a session is opened",
        "phantom interruption": "the model falls silent by itself, and says nothing of it",
    }

    def simulator(self, replies: Sequence[Reply], pace_s: float) -> simulated.Simulator:
        self.faults = simulated.Faults(pace_s=pace_s or 0.002)
        script = [simulated.Reply(tuple(_items(reply))) for reply in replies]
        return simulated.Simulator(*script, faults=self.faults)

    @property
    def violations(self) -> list[str]:
        return [one for model in self.server.models for one in model.violations]

    @property
    def caller(self) -> bytes:
        return self.server.model.caller

    @property
    def texts(self) -> list[str]:
        return [str(m["content"]) for m in self.server.model.received if "content" in m]

    @property
    def answers(self) -> Mapping[str, Any]:
        return self.server.model.answers

    def caller_will_say(self, words: str) -> None:
        self.server.model.said.append(words)

    def caller_ends(self, words: str) -> None:
        """The model hears it."""

    async def tenth_passes(self) -> None:
        """It hears and speaks at once: its stream goes on while the caller speaks."""
        now = self.server.model.position_ms
        await self.until(lambda: self.server.model.position_ms > now)

    def cancel(self, call: str) -> None:
        self.server.model.cancel()

    def will_close_in(self, seconds: float) -> None:
        """The session's end is told with its beginning, to the second."""
        self.faults.expires_in_s = 3.0
        self.limits = {"going_away_s": 3.0}

    def confirm_another_format(self) -> None:
        self.faults.format = format_wire(FORMATS["pcmu"])

    def refuse(self, why: Refusal) -> None:
        match why:
            case "key":
                self.changes["api_key_env"] = "WRONG"
            case "model":
                self.changes["model"] = "gpt-live-9"
            case "voice":
                self.changes["voice"] = "ninguem"
            case "rate":
                self.faults.refuse = (429, b'{"error":{"code":"rate_limit_exceeded"}}')
            case "quota":
                self.faults.refuse = (429, b'{"error":{"code":"insufficient_quota"}}')

    def is_call(self, message: bytes) -> bool:
        return b'"response.output_item.done"' in message


def _items(reply: Reply) -> list[simulated.Say | simulated.Delegate]:
    """Calls side by side are one delegation's."""
    items: list[simulated.Say | simulated.Delegate] = []
    for item in reply:
        if isinstance(item, Say):
            items.append(simulated.Say(item.ms, item.text, pause_ms=PAUSE_MS))
            continue
        arguments = BROKEN if item.arguments is None else json.dumps(item.arguments)
        call = simulated.Call(item.name, arguments, item.id, times=item.times)
        together = items[-1] if items else None
        if isinstance(together, simulated.Delegate):
            items[-1] = simulated.Delegate((*together.calls, call))
        else:
            items.append(simulated.Delegate((call,)))
    return items
