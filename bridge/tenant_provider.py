"""A tenant's provider out of its settings, and whether it would take our calls now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from bridge.masking import masked
from bridge.model_server import ModelServerAddress
from bridge.settings import Fallback, Settings, Tenant, embedded
from providers.access import Access
from providers.base import Event, Failed, Provider, Ready, SessionConfig
from providers.bounds import in_short
from providers.failover import Candidate, FailoverProvider, OneMoment
from providers.local import pipeline
from providers.local.pipeline import (
    DEEPGRAM,
    OPENAI,
    PREFIX,
    DialogueSpec,
    PipelineSpec,
    RecognitionSpec,
    SpeechSpec,
)
from providers.local.stage import StageError
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
    one_moment: OneMoment | None = None,
) -> FailoverProvider:
    """What a tenant's sessions are opened with: its provider, and those that take its place.

    Args:
        secret: gives the value of an environment variable.
        server: the embedded model server, where one runs.
        apology: said where a caller had to wait for another session.
        one_moment: said while they wait, in a voice of our own.
    """
    candidates = [Candidate(provider_of(tenant, secret, server, tenant.id))]
    candidates += [
        Candidate(provider_of(each, secret, server, tenant.id), each.voice) for each in tenant.fallback
    ]
    return FailoverProvider(candidates, apology, one_moment)


def provider_of(
    account: Tenant | Fallback,
    secret: Callable[[str | None], str | None],
    server: ModelServerAddress | None = None,
    tenant_id: str = "",
) -> Provider:
    """A tenant's own provider, or one that takes over from it.

    Args:
        tenant_id: whose pipeline it is, where it is one.
        secret: gives the value of an environment variable.
        server: the embedded model server, where one runs.
    """
    if embedded(account):
        assert server is not None
        access = Access(
            api_key=server.token,
            base_url=server.base_url,
            model=f"{PREFIX}{tenant_id}" if account.provider == "pipeline" else "",
            format=account.provider_format,
        )
    else:
        access = Access(
            api_key=secret(account.key_variable) or "",
            token_file=account.token_file,
            base_url=account.base_url,
            model=account.model,
            voice=account.voice,
            backend_model=account.backend_model,
            format=account.provider_format,
        )
    if isinstance(account, Tenant):
        access = replace(
            access,
            noise_suppression=account.noise_suppression,
            echo_cancellation=account.echo_cancellation,
            interim_texts=account.interim_texts,
        )
    return create(account.provider, access)


def pipeline_of(tenant: Tenant, secret: Callable[[str | None], str | None]) -> PipelineSpec:
    """The parts of a tenant's pipeline, with their keys."""
    parts = tenant.pipeline
    keys = {
        setting.split(".")[1]: secret(variable) or "" for setting, variable in tenant.pipeline.key_variables
    }
    recognition, dialogue, speech = parts.recognition, parts.dialogue, parts.speech
    usual = RecognitionSpec()
    return PipelineSpec(
        RecognitionSpec(
            kind=recognition.kind,
            base_url=recognition.base_url or DEEPGRAM,
            model=recognition.model or usual.model,
            language=tenant.language,
            encoding=recognition.encoding,
            api_key=keys.get("recognition", ""),
        ),
        DialogueSpec(
            kind=dialogue.kind,
            base_url=dialogue.base_url or OPENAI,
            model=dialogue.model,
            api_key=keys.get("dialogue", ""),
        ),
        SpeechSpec(
            kind=speech.kind,
            base_url=speech.base_url or (DEEPGRAM if speech.kind == "deepgram" else OPENAI),
            model=speech.model,
            voice=speech.voice,
            piper_voice=str(speech.piper_voice or ""),
            api_key=keys.get("speech", ""),
        ),
    )


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
        raise ProviderUnfit(f"{_said(event.message)} ({event.code})")


async def look_at_providers(settings: Settings) -> tuple[list[str], list[str]]:
    """One line for each provider that takes us, and one for each that does not; fallbacks are asked as well.

    The embedded model server is not asked: it runs with the service. Of a pipeline the parts are asked that
    are somebody else's.
    """
    asked = [
        _look_at(tenant, where, account, settings)
        for tenant in settings.tenants.values()
        for where, account in tenant.accounts
        if account.provider != "local" or account.base_url
    ]
    found = await asyncio.gather(*asked)
    return [line for well, line in found if well], [line for well, line in found if not well]


def _said(message: str) -> str:
    """A provider's words, in one line: it may have repeated the key, or anything."""
    return masked(in_short(message))


async def _look_at(
    tenant: Tenant, where: str, account: Tenant | Fallback, settings: Settings
) -> tuple[bool, str]:
    place = f", in the place of {tenant.provider}" if where else ""
    if account.provider == "pipeline":
        try:
            await pipeline.check(pipeline_of(tenant, settings.secret))
        except StageError as error:
            return False, f"tenants.{tenant.id}.pipeline: {_said(str(error))} ({error.code})"
        return True, f"{tenant.id}: every part of the pipeline takes us{place}"
    config = SessionConfig(instructions="", tools=[], language=tenant.language.partition("-")[0])
    try:
        await session_with(provider_of(account, settings.secret), config)
    except ProviderUnfit as error:
        return False, f"tenants.{tenant.id}.{where}provider: {account.provider}: {error}"
    return True, f"{tenant.id}: {account.provider} takes sessions with this key, model and voice{place}"
