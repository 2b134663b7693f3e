"""Azure OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.conformance.stage import Refusal
from tests.conformance.stages.openai import RealtimeStage
from tests.simulators import openai_realtime as simulated
from tests.simulators.azure_openai import DEPLOYMENT, AzureSimulator


class AzureOpenAI(RealtimeStage):
    """The same protocol at an Azure resource."""

    name = "azure-openai"
    key = "azure-key"
    settings: ClassVar[Mapping[str, Any]] = {"model": DEPLOYMENT}

    def make(self, replies: list[simulated.Reply]) -> AzureSimulator:
        return AzureSimulator(*replies, faults=self.faults)

    def base_url(self, server: str) -> str:
        return server.removesuffix("/v1")

    def refuse(self, why: Refusal) -> None:
        if why == "key":
            self.changes["api_key_env"] = "WRONG"
        elif why == "model":
            self.changes["model"] = "nothing-deployed"
        else:
            super().refuse(why)
