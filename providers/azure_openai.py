"""Azure OpenAI: OpenAI's own protocol (GA) at the address of an Azure resource, with Azure's authentication.

The model is the name of a deployment. Preview paths with an ``api-version`` are not spoken.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from providers.access import Access, azure_headers
from providers.openai_realtime import OpenAIProvider, OpenAISettings

PATH = "/openai/v1"


def azure_openai_settings(access: Access) -> OpenAISettings:
    """How to reach a deployment.

    Args:
        access: ``base_url`` is the resource's (``https://NAME.openai.azure.com``), with or without
            ``/openai/v1``.
    """
    base_url = access.base_url.rstrip("/")
    if not urlsplit(base_url).path:
        base_url += PATH
    default = OpenAISettings(api_key="none", base_url=base_url, model=access.model)
    return OpenAISettings(
        api_key=default.api_key,  # the SDK insists on one, which is not sent
        base_url=base_url,
        model=access.model,
        voice=access.voice or default.voice,
        noise_reduction=default.noise_reduction if access.noise_suppression else None,
        format=access.format or default.format,
        deployment=True,
        authentication=partial(azure_headers, access),
    )


def azure_openai(access: Access) -> OpenAIProvider:
    """The provider."""
    return OpenAIProvider(azure_openai_settings(access), "azure-openai")
