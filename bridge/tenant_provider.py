"""A tenant's provider out of its settings, and whether it would take our calls now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge.model_server import ModelServerAddress
from bridge.settings import Settings, Tenant
from providers.access import Access
from providers.base import Event, Failed, Provider, Ready, SessionConfig
from providers.failover import Candidate, FailoverProvider
from providers.registry import create

ANSWER_S = 10.0
"""A provider's own deadline for opening a session is shorter."""


class ProviderUnfit(Exception):
    """No session can be opened; the text says why."""


def providers_of(
    tenant: Tenant,
    secret: Callable[[str | None], str | None],
    server: ModelServerAddress | None,
    apology: str,
) -> FailoverProvider:
    """What a tenant's sessions are opened with: its provider, and those that take its place.

    Args:
        secret: gives the value of an environment variable.
        server: the embedded model server, where one runs.
        apology: said where a caller had to wait for another session.
    """
    return FailoverProvider([Candidate(provider_of(tenant, secret, server))], apology)


def provider_of(
    tenant: Tenant, secret: Callable[[str | None], str | None], server: ModelServerAddress | None = None
) -> Provider:
    """A tenant's own provider.

    Args:
        secret: gives the value of an environment variable.
        server: the embedded model server, where one runs.
    """
    if tenant.provider == "local" and not tenant.base_url:
        assert server is not None
        access = Access(api_key=server.token, base_url=server.base_url, format=tenant.provider_format)
    else:
        access = Access(
            api_key=secret(tenant.key_variable) or "",
            token_file=tenant.token_file,
            base_url=tenant.base_url,
            model=tenant.model,
            voice=tenant.voice,
            backend_model=tenant.backend_model,
            format=tenant.provider_format,
            noise_suppression=tenant.noise_suppression,
            echo_cancellation=tenant.echo_cancellation,
            interim_texts=tenant.interim_texts,
        )
    return create(tenant.provider, access)


async def session_with(provider: Provider, config: SessionConfig) -> None:
    """Open a session as for a call, and close it. Nothing is said, so nothing is to be paid.

    Raises:
        ProviderUnfit: it can't be opened.
    """
    first: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def take(event: Event) -> None:
        if isinstance(event, Ready | Failed) and not first.done():
            first.set_result(event)

    session = provider.open(config)
    listening = asyncio.create_task(session.run(take), name="provider-check")
    try:
        async with asyncio.timeout(ANSWER_S):
            event = await first
    except TimeoutError:
        raise ProviderUnfit(f"no session after {ANSWER_S:g} s") from None
    finally:
        await session.close()
        await asyncio.wait({listening})
    if isinstance(event, Failed):
        raise ProviderUnfit(f"{event.message} ({event.code})")


async def look_at_providers(settings: Settings) -> tuple[list[str], list[str]]:
    """One line for each provider that takes us, and one for each that does not.

    The embedded model server is not asked: it runs with the service.
    """
    tenants = [one for one in settings.tenants.values() if one.provider != "local" or one.base_url]
    found = await asyncio.gather(*(_look_at(tenant, settings) for tenant in tenants))
    return [line for well, line in found if well], [line for well, line in found if not well]


async def _look_at(tenant: Tenant, settings: Settings) -> tuple[bool, str]:
    config = SessionConfig(instructions="", tools=[], language=tenant.language.partition("-")[0])
    try:
        await session_with(provider_of(tenant, settings.secret), config)
    except ProviderUnfit as error:
        return False, f"tenants.{tenant.id}.provider: {tenant.provider}: {error}"
    return True, f"{tenant.id}: {tenant.provider} takes sessions with this key, model and voice"
