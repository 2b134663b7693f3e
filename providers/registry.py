"""Which providers there are: a name and how it is reached → a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.access import TERMS, Access
from providers.azure_openai import azure_openai
from providers.azure_voicelive import azure_voicelive
from providers.base import Provider
from providers.elevenlabs import ElevenLabsProvider, ElevenLabsSettings
from providers.formats import PCM8, PCM16, PCM24, PCMU
from providers.openai_live import LiveProvider, LiveSettings
from providers.openai_realtime import OpenAIProvider, OpenAISettings

MODEL_SERVER_PATIENCE_S = 15.0
"""Our model server hears as fast as this machine allows: on a busy one whisper takes seconds."""


def _openai_settings(access: Access) -> OpenAISettings:
    default = OpenAISettings(api_key=access.api_key)
    return OpenAISettings(
        api_key=access.api_key,
        base_url=access.base_url or default.base_url,
        model=access.model or default.model,
        voice=access.voice or default.voice,
        noise_reduction=default.noise_reduction if access.noise_suppression else None,
        format=access.format or default.format,
    )


def _openai(access: Access) -> Provider:
    return OpenAIProvider(_openai_settings(access), "openai")


def _model_server(access: Access, name: str) -> Provider:
    """The model server of our own: the same adapter, its address and token."""
    return OpenAIProvider(
        OpenAISettings(
            api_key=access.api_key or "none",  # the SDK insists on one; a server without a token ignores it
            base_url=access.base_url,
            model=access.model or "porteiro",
            voice=access.voice,
            format=access.format or "pcm24",
            itemised=name == "pipeline",
            patience_s=MODEL_SERVER_PATIENCE_S,
        ),
        name,
    )


def _local(access: Access) -> Provider:
    return _model_server(access, "local")


def _pipeline(access: Access) -> Provider:
    return _model_server(access, "pipeline")


def _openai_live(access: Access) -> Provider:
    default = LiveSettings(api_key=access.api_key)
    return LiveProvider(
        LiveSettings(
            api_key=access.api_key,
            base_url=access.base_url or default.base_url,
            model=access.model or default.model,
            voice=access.voice or default.voice,
            backend_model=access.backend_model or default.backend_model,
            format=access.format or default.format,
        )
    )


def _gemini(access: Access) -> Provider:
    # Here, because the vendor's SDK takes two seconds to load: only who uses it waits for it.
    from providers.gemini_live import GeminiProvider, GeminiSettings

    default = GeminiSettings(api_key=access.api_key)
    return GeminiProvider(
        GeminiSettings(
            api_key=access.api_key,
            base_url=access.base_url or default.base_url,
            model=access.model or default.model,
            voice=access.voice or default.voice,
        )
    )


def _elevenlabs(access: Access) -> Provider:
    default = ElevenLabsSettings(api_key=access.api_key, agent=access.model)
    formats = {one.name: one for one in (PCMU, PCM8, PCM16, PCM24)}
    return ElevenLabsProvider(
        ElevenLabsSettings(
            api_key=access.api_key,
            agent=access.model,
            base_url=access.base_url or default.base_url,
            voice=access.voice,
            format=formats[access.format] if access.format else default.format,
        )
    )


_PROVIDERS: Mapping[str, Callable[[Access], Provider]] = {
    "local": _local,
    "pipeline": _pipeline,
    "openai": _openai,
    "azure-openai": azure_openai,
    "azure-voicelive": azure_voicelive,
    "openai-live": _openai_live,
    "gemini": _gemini,
    "elevenlabs": _elevenlabs,
}

NAMES = tuple(_PROVIDERS)
"""The names that a tenant's settings may use."""


def create(name: str, access: Access) -> Provider:
    """The provider of this name.

    Raises:
        ValueError: the name is unknown, or the access lacks what this provider needs.
    """
    make = _PROVIDERS.get(name)
    if make is None:
        raise ValueError(f"provider {name!r} is unknown; allowed: {', '.join(NAMES)}")
    terms = TERMS[name]
    if missing := terms.missing(access):
        raise ValueError(f"provider {name!r}: {missing[0]} is empty; it is needed")
    if access.format is not None and access.format not in terms.formats:
        raise ValueError(
            f"provider {name!r}: found the format {access.format!r}; allowed: {', '.join(terms.formats)}"
        )
    return make(access)
