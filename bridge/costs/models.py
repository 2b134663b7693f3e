"""Which models a tenant's sessions are billed for: what must have a price for a budget to mean something."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.costs.prices import Prices
from bridge.settings import Fallback, Settings, Tenant
from bridge.tenant_provider import pipeline_of
from providers.local.stage import payee
from providers.openai_live import LiveSettings
from providers.openai_realtime import OpenAISettings

Billed = tuple[str, str]
"""Provider and model, as usage names them."""


def billed_models(tenant: Tenant) -> list[Billed]:
    """Of the tenant's own provider and of those that take over from it, each once."""
    found = [billed for _, account in tenant.accounts for billed in _of(tenant, account)]
    return list(dict.fromkeys(found))


def _of(tenant: Tenant, account: Tenant | Fallback) -> Iterator[Billed]:
    openai, live = OpenAISettings(api_key="none"), LiveSettings(api_key="none")
    match account.provider:
        case "openai" | "azure-openai":
            yield account.provider, account.model or openai.model
            yield account.provider, openai.transcription_model
        case "openai-live":
            yield "openai-live", account.model or live.model
            yield "openai", account.backend_model or live.backend_model
        case "elevenlabs":
            yield "elevenlabs", "agent"
        case "pipeline":
            yield from _of_pipeline(tenant)
        case "gemini":
            # Here, because the vendor's SDK takes two seconds to load.
            from providers.gemini_live import GeminiSettings

            yield "gemini", account.model or GeminiSettings(api_key="none").model
        case _:
            yield account.provider, account.model


def _of_pipeline(tenant: Tenant) -> Iterator[Billed]:
    """Its parts that are somebody else's."""
    spec = pipeline_of(tenant, lambda _: None)
    if spec.recognition.kind == "deepgram":
        yield payee(spec.recognition.base_url), spec.recognition.model
    if spec.dialogue.kind == "chat":
        yield payee(spec.dialogue.base_url), spec.dialogue.model
    if spec.speech.kind == "deepgram":
        yield payee(spec.speech.base_url), spec.speech.voice
    elif spec.speech.kind == "openai":
        yield payee(spec.speech.base_url), spec.speech.model


def price_warnings(settings: Settings) -> list[str]:
    """One line for each name in a tenant's own prices by which nobody bills it: they count for nothing."""
    found = []
    for tenant in settings.tenants.values():
        billed = sorted({provider for provider, _ in billed_models(tenant)})
        found += [
            f"tenants.{tenant.id}.cost.prices.{provider}: nobody bills this tenant by that name, and these "
            f"prices count for nothing; it is billed by {', '.join(billed)}"
            for provider in tenant.cost.prices
            if provider not in billed
        ]
    return found


def budget_warnings(settings: Settings, prices: Prices) -> list[str]:
    """One line for each model of a tenant with a budget whose price is not known: the budget can't see it."""
    return [
        f"tenants.{tenant.id}.cost: a budget is set, and the price of {provider} {model} is not known: what "
        f'it costs counts for nothing; give it in tenants.{tenant.id}.cost.prices.{provider}."{model}"'
        for tenant in settings.tenants.values()
        if tenant.cost.has_budget
        for provider, model in billed_models(tenant)
        if prices.before(tenant.cost.prices).of(provider, model) is None
    ]
