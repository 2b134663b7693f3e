"""The vendors that the suite holds every adapter's session to: one file each."""

from __future__ import annotations

from tests.conformance.stage import Stage
from tests.conformance.stages.azure_openai import AzureOpenAI
from tests.conformance.stages.azure_voicelive import AzureVoiceLive
from tests.conformance.stages.elevenlabs import ElevenLabs
from tests.conformance.stages.gemini import Gemini
from tests.conformance.stages.openai import OpenAI
from tests.conformance.stages.openai_live import OpenAILive
from tests.conformance.stages.pipeline import Pipeline

STAGES: tuple[type[Stage], ...] = (
    OpenAI,
    AzureOpenAI,
    AzureVoiceLive,
    Gemini,
    ElevenLabs,
    OpenAILive,
    Pipeline,
)

__all__ = ["STAGES"]
