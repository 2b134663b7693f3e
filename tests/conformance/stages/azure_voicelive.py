"""Azure VoiceLive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.conformance.stage import Refusal
from tests.conformance.stages.openai import RealtimeStage
from tests.simulators import openai_realtime as simulated
from tests.simulators.azure_voicelive import VoiceLiveModel, VoiceLiveSimulator


class Reading(VoiceLiveModel):
    """What is read out takes the place of what the script would have said."""

    def start(self, metadata: dict[str, str] | None) -> None:
        if metadata is not None and self._given is not None and self.replies:
            self.replies.popleft()
        super().start(metadata)


class AzureVoiceLive(RealtimeStage):
    """Azure's ears and voices around a language model."""

    server: VoiceLiveSimulator
    model = Reading
    name = "azure-voicelive"
    key = "azure-key"
    settings: ClassVar[Mapping[str, Any]] = {"model": "gpt-5-mini"}
    emulated: ClassVar[Mapping[str, str]] = {
        "lost connection": RealtimeStage.emulated["lost connection"],
    }

    def make(self, replies: list[simulated.Reply]) -> VoiceLiveSimulator:
        return VoiceLiveSimulator(*replies, faults=self.faults)

    def base_url(self, server: str) -> str:
        return server.removesuffix("/v1")

    @property
    def verbatim(self) -> list[str]:
        return self.server.voicelive.spoken

    def reading_ms(self, text: str) -> int:
        return max(200, 60 * len(text))

    def confirm_another_format(self) -> None:
        self.faults.formats = {"output": {"output_audio_format": "pcm16"}}

    def refuse(self, why: Refusal) -> None:
        if why in ("key", "model", "voice"):
            wrong = {"key": {"api_key_env": "WRONG"}, "model": {"model": "x"}, "voice": {"voice": "ninguem"}}
            self.changes |= wrong[why]
        else:
            super().refuse(why)
