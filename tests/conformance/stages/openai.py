"""OpenAI Realtime, and what the other dialects of its protocol have in common with it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.conformance.stage import BROKEN, Call, Refusal, Reply, Say, Stage
from tests.simulators import openai_realtime as simulated


def scripted(replies: Sequence[Reply]) -> list[simulated.Reply]:
    """The script in this simulator's words."""
    return [simulated.Reply(tuple(_item(item) for item in reply)) for reply in replies]


def _item(item: Say | Call) -> simulated.Say | simulated.Call:
    if isinstance(item, Say):
        return simulated.Say(item.ms, item.text)
    arguments = BROKEN if item.arguments is None else json.dumps(item.arguments)
    return simulated.Call(item.name, arguments, item.id, times=item.times)


class RealtimeStage(Stage):
    """A server of OpenAI's protocol."""

    server: simulated.Simulator
    faults: simulated.Faults

    model: ClassVar[type[simulated.Model]] = simulated.Model
    emulated: ClassVar[Mapping[str, str]] = {
        "greeting": "the words are asked for, and the transcript is compared",
        "exact sentences": "the words are asked for, and the transcript is compared",
        "lost connection": "a new session is told the conversation as text",
    }
    beyond: ClassVar[Mapping[str, str]] = {
        "tool cancelled": "the protocol has no cancelled calls",
    }

    def simulator(self, replies: Sequence[Reply], pace_s: float) -> simulated.Simulator:
        self.faults = simulated.Faults(pace_s=pace_s)
        self._turn = ""
        server = self.make(scripted(replies))
        script = self.script = deque(server._replies)

        def going_on(_: list[simulated.Reply], faults: simulated.Faults) -> simulated.Model:
            """A connection's model goes on with the script where another's has stopped."""
            model = self.model([], faults)
            model.replies = script
            return model

        server.make = going_on
        return server

    def make(self, replies: list[simulated.Reply]) -> simulated.Simulator:
        """The dialect's simulator."""
        return simulated.Simulator(*replies, faults=self.faults)

    @property
    def violations(self) -> list[str]:
        return [one for model in self.server.models for one in model.violations]

    @property
    def caller(self) -> bytes:
        return self.server.model.caller

    @property
    def texts(self) -> list[str]:
        return [text for message in self.server.model.received for text in _texts(message)]

    @property
    def answers(self) -> Mapping[str, Any]:
        return {call: json.loads(output) for call, output in self.server.model.answers.items()}

    @property
    def truncated(self) -> Mapping[str, int]:
        return self.server.model.truncated

    def caller_starts(self) -> None:
        self._turn = self.server.model.caller_starts()
        self.server.kick()

    def caller_ends(self, words: str) -> None:
        self.server.model.caller_ends(self._turn, words)
        self.server.kick()

    def phantom(self) -> None:
        self._turn = self.server.model.phantom()
        self.caller_ends("")

    def confirm_another_format(self) -> None:
        self.faults.formats = {"input": {"type": "audio/pcma"}, "output": {"type": "audio/pcmu"}}

    def limit_rate(self) -> None:
        self.script.appendleft(simulated.Reply((), "failed", "rate_limit_exceeded"))

    def will_close_in(self, seconds: float) -> None:
        """No warning comes; the adapter knows how long a session may last."""
        self.limits = {"session_limit_s": 2 * seconds, "going_away_s": seconds}

    def refuse(self, why: Refusal) -> None:
        if why == "voice":
            self.faults.voices = frozenset({"cedar"})
            return
        status, code = {
            "key": (401, "invalid_api_key"),
            "model": (404, "model_not_found"),
            "rate": (429, "rate_limit_exceeded"),
            "quota": (429, "insufficient_quota"),
        }[why]
        self.faults.refuse = (status, json.dumps({"error": {"code": code, "message": code}}).encode())

    def is_call(self, message: bytes) -> bool:
        return b'"response.output_item.done"' in message and b'"function_call"' in message


def _texts(message: Mapping[str, Any]) -> list[str]:
    if message["type"] == "conversation.item.create":
        return [part["text"] for part in message["item"].get("content", ()) if "text" in part]
    if message["type"] == "response.create":
        response = message.get("response") or {}
        given = response.get("pre_generated_assistant_message") or {}
        read_out = [part["text"] for part in given.get("content", ())]
        return [text for text in (response.get("instructions"), *read_out) if text]
    return []


class OpenAI(RealtimeStage):
    """The vendor itself."""

    name = "openai"
    key = "sk-test"
