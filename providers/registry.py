"""Which providers there are: a name and settings → a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from providers.base import Provider
from providers.openai_realtime import OpenAIProvider, OpenAISettings


def _openai(settings: OpenAISettings) -> Provider:
    if not settings.api_key:
        raise ValueError("provider 'openai': api_key is empty; the key of the account is needed")
    return OpenAIProvider(settings, "openai")


def _local(settings: OpenAISettings) -> Provider:
    """The model server of our own: the same adapter, its address and token."""
    # The SDK insists on a key; a server without a token ignores it.
    return OpenAIProvider(replace(settings, api_key=settings.api_key or "none"), "local")


_PROVIDERS: Mapping[str, Callable[[OpenAISettings], Provider]] = {"local": _local, "openai": _openai}

NAMES = tuple(_PROVIDERS)
"""The names that a tenant's settings may use."""


def create(name: str, settings: OpenAISettings) -> Provider:
    """The provider of this name.

    Raises:
        ValueError: the name is unknown, or the settings lack what this provider needs.
    """
    factory = _PROVIDERS.get(name)
    if factory is None:
        raise ValueError(f"provider {name!r} is unknown; allowed: {', '.join(NAMES)}")
    return factory(settings)
