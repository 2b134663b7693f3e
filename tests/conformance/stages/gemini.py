"""Gemini Live."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.conformance.line import Step
from tests.conformance.stage import Call, Refusal, Reply, Say, Stage
from tests.simulators import gemini_live as simulated


class Gemini(Stage):
    """Google's protocol."""

    server: simulated.Simulator
    name = "gemini"
    key = simulated.KEY
    emulated: ClassVar[Mapping[str, str]] = {
        "greeting": "the words are asked for, and the transcript is compared",
        "exact sentences": "the words are asked for, and the transcript is compared",
        "turns": "our VAD says when the caller begins and ends",
        "heard position": "the model is told in words how much of its reply was heard",
    }
    waits: ClassVar[Mapping[str, float]] = {"providers.gemini_conversation._PERHAPS_S": 0.3}
    beyond: ClassVar[Mapping[str, str]] = {
        "broken arguments": "arguments come as an object, and are always JSON",
        "G.711": "16 kHz in and 24 kHz out, no other format",
    }

    def simulator(self, replies: Sequence[Reply], pace_s: float) -> simulated.Simulator:
        self.faults = simulated.Faults(pace_s=pace_s)
        script = [simulated.Reply(tuple(_item(item) for item in reply)) for reply in replies]
        self.closing_s: float | None = None
        return simulated.Simulator(*script, faults=self.faults, make=self._make)

    def _make(
        self, replies: deque[simulated.Reply], faults: simulated.Faults, handles: dict[str, int]
    ) -> simulated.Model:
        model, seconds = simulated.Model(replies, faults, handles), self.closing_s
        if seconds is not None:
            self.closing_s = None
            model.on_setup = lambda: model.go_away(seconds)
        return model

    @property
    def violations(self) -> list[str]:
        return self.server.violations

    @property
    def caller(self) -> bytes:
        return self.server.model.caller

    @property
    def texts(self) -> list[str]:
        return [text for _, text, _ in self.server.model.texts]

    @property
    def answers(self) -> Mapping[str, Any]:
        return {call: result for call, (result, _) in self.server.model.answers.items()}

    def caller_will_say(self, words: str) -> None:
        self.server.model.said.append(words)

    def caller_ends(self, words: str) -> None:
        """The client says so itself."""

    def cancel(self, call: str) -> None:
        self.server.model.cancel(call)
        self.server.kick()

    def phantom(self) -> None:
        self.server.model.phantom()
        self.server.kick()

    def confirm_another_format(self) -> None:
        self.faults.mime = "audio/pcm;rate=48000"

    def limit_rate(self) -> None:
        self.line.then(Step("close", code=1011, reason="RESOURCE_EXHAUSTED"))

    def will_close_in(self, seconds: float) -> None:
        """The warning comes as soon as the session is up."""
        self.closing_s = seconds

    def refuse(self, why: Refusal) -> None:
        match why:
            case "key":
                self.changes["api_key_env"] = "WRONG"
            case "model":
                self.changes["model"] = "gemini-9"
            case "voice":
                self.changes["voice"] = "Ze"
            case "rate":
                self.faults.close_on_setup = (1011, "RESOURCE_EXHAUSTED")
            case "quota":
                what = "You exceeded your current quota, please check your plan and billing."
                self.faults.close_on_setup = (1011, what)

    def is_call(self, message: bytes) -> bool:
        return b'"toolCall"' in message


def _item(item: Say | Call) -> simulated.Say | simulated.Call:
    if isinstance(item, Say):
        return simulated.Say(item.ms, item.text)
    return simulated.Call(item.name, dict(item.arguments or {}), item.id, item.times)
