"""A tenant's provider: what its settings must say, and what becomes of them."""

from __future__ import annotations

import tomllib
from typing import get_args

import pytest

from bridge.model_server import ModelServerAddress
from bridge.settings import Settings, SettingsError, Tenant, build
from bridge.tenant_provider import ProviderUnfit, look_at_providers, provider_of, providers_of, session_with
from providers import registry
from providers.access import TERMS
from providers.base import SessionConfig
from tests.simulators.azure_voicelive import VoiceLiveSimulator
from tests.simulators.openai_realtime import Faults

TENANT = '[tenants.jardim]\ndirectory = "x"\n'
VOICELIVE = f'{TENANT}provider = "azure-voicelive"\nmodel = "gpt-5-mini"\n'


def settings(text: str, **environ: str) -> Settings:
    return build(tomllib.loads(text), environ=environ)


def test_every_provider_of_the_settings_can_be_made() -> None:
    named = get_args(Tenant.model_fields["provider"].annotation)
    assert set(named) == set(registry.NAMES) == set(TERMS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('provider = "azure-openai"', "base_url as well: provider 'azure-openai' needs it"),
        (
            'provider = "azure-openai"\nbase_url = "https://x.openai.azure.com"',
            "model as well: provider 'azure-openai' needs it",
        ),
        (
            'provider = "azure-voicelive"\nmodel = "m"',
            "base_url as well: provider 'azure-voicelive' needs it",
        ),
        ('provider = "elevenlabs"', "model as well: provider 'elevenlabs' needs it"),
        ('provider = "openai"\ntoken_file = "t"', "no token_file: provider 'openai' takes a key alone"),
        (
            'provider = "azure-openai"\ntoken_file = "t"\napi_key_env = "K"',
            "api_key_env or token_file, and not both",
        ),
        (
            'provider = "openai"\nprovider_format = "pcm8"',
            "provider_format pcm24 or pcmu or pcma: provider 'openai' has no 'pcm8'",
        ),
        ('provider = "openai"\ninterim_texts = ["x"]', "interim_texts for provider 'azure-voicelive' alone"),
        (
            '[[tenants.jardim.fallback]]\nprovider = "azure-openai"',
            "base_url as well: provider 'azure-openai' needs it",
        ),
        (
            '[[tenants.jardim.fallback]]\nprovider = "openai"\nprovider_format = "pcm8"',
            "provider_format pcm24 or pcmu or pcma: provider 'openai' has no 'pcm8'",
        ),
        ('turn_detection.kind = "semantic_vad"', "turn_detection.kind 'server_vad': provider 'local'"),
    ],
)
def test_what_a_provider_needs_and_does_not_have_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(TENANT + text)
    (problem,) = caught.value.problems
    assert problem.startswith(("tenants.jardim: ", "tenants.jardim.fallback.0: ")) and said in problem


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ('provider = "openai"', "OPENAI_API_KEY"),
        (
            'provider = "azure-openai"\nbase_url = "https://x.openai.azure.com"\nmodel = "m"',
            "AZURE_OPENAI_API_KEY",
        ),
        (
            'provider = "azure-voicelive"\nbase_url = "https://x.services.ai.azure.com"\nmodel = "m"',
            "AZURE_VOICELIVE_API_KEY",
        ),
        (
            'provider = "azure-openai"\nbase_url = "https://x.azure.com"\nmodel = "m"\ntoken_file = "t"',
            None,
        ),
        ('provider = "elevenlabs"\nmodel = "agent_1"', "ELEVENLABS_API_KEY"),
        ("", None),
    ],
)
def test_each_provider_has_its_own_variable_for_the_key(text: str, variable: str | None) -> None:
    assert settings(TENANT + text).tenants["jardim"].key_variable == variable


async def test_a_tenants_choices_reach_the_provider() -> None:
    async with VoiceLiveSimulator() as server:
        made = settings(
            f'{VOICELIVE}base_url = "{server.resource}"\nvoice = "brenda"\napi_key_env = "KEY"\n'
            'noise_suppression = false\ninterim_texts = ["Um instante."]\nprovider_format = "pcmu"',
            KEY="azure-key",
        )
        provider = provider_of(made.tenants["jardim"], made.secret)
        await session_with(provider, SessionConfig(instructions="", tools=[]))
        session = server.model.session
        assert session["voice"]["name"] == "pt-BR-BrendaNeural"
        assert "input_audio_noise_reduction" not in session
        assert session["interim_response"]["texts"] == ["Um instante."]
        assert session["input_audio_format"] == session["output_audio_format"] == "g711_ulaw"
        await server.until(lambda: not server.open_connections)


async def test_a_look_at_providers_says_who_takes_us_and_who_does_not() -> None:
    async with VoiceLiveSimulator() as server:
        table = f'{VOICELIVE}base_url = "{server.resource}"\n'
        well = settings(table, AZURE_VOICELIVE_API_KEY="azure-key")
        assert await look_at_providers(well) == (
            ["jardim: azure-voicelive takes sessions with this key, model and voice"],
            [],
        )
        unwell = settings(table, AZURE_VOICELIVE_API_KEY="wrong")
        assert await look_at_providers(unwell) == (
            [],
            ["tenants.jardim.provider: azure-voicelive: the key was refused (HTTP 401) (key_refused)"],
        )
        voiceless = settings(f'{table}voice = "ninguem"', AZURE_VOICELIVE_API_KEY="azure-key")
        ((), (said,)) = await look_at_providers(voiceless)
        assert "the voice is not known there" in said and said.endswith("(unsupported_voice)")
        assert await look_at_providers(settings(TENANT)) == ([], []), "the embedded one runs with the service"


FALLBACKS = """
[[tenants.jardim.fallback]]
provider = "azure-voicelive"
model = "gpt-5-mini"
base_url = "{url}"
voice = "{voice}"
api_key_env = "{key}"

[[tenants.jardim.fallback]]
provider = "local"
"""


def test_a_fallback_has_a_key_of_its_own_and_may_be_the_embedded_server() -> None:
    url = "https://x.services.ai.azure.com"
    made = settings(f'{TENANT}provider = "openai"\n' + FALLBACKS.format(url=url, voice="", key="THE_OTHER"))
    variables = dict(made.tenants["jardim"].secret_variables)
    assert variables == {"api_key_env": "OPENAI_API_KEY", "fallback.0.api_key_env": "THE_OTHER"}
    assert made.needs_model_server and not settings(f'{TENANT}provider = "openai"').needs_model_server
    lacking = [line for line in made.problems_at_start() if "api_key_env" in line]
    assert len(lacking) == 2 and "tenants.jardim.fallback.0.api_key_env: " in lacking[1]


async def test_fallbacks_are_looked_at_as_well_and_take_over_with_their_own_voice() -> None:
    async with VoiceLiveSimulator() as server, VoiceLiveSimulator() as other:
        table = f'{VOICELIVE}base_url = "{server.resource}"\nvoice = "antonio"\n' + FALLBACKS.format(
            url=other.resource, voice="brenda", key="KEY"
        )
        place = "takes sessions with this key, model and voice"
        well = settings(table, AZURE_VOICELIVE_API_KEY="azure-key", KEY="azure-key")
        assert await look_at_providers(well) == (
            [
                f"jardim: azure-voicelive {place}",
                f"jardim: azure-voicelive {place}, in the place of azure-voicelive",
            ],
            [],
        )
        unwell = settings(table, AZURE_VOICELIVE_API_KEY="azure-key", KEY="wrong")
        assert (await look_at_providers(unwell))[1] == [
            "tenants.jardim.fallback.0.provider: azure-voicelive: "
            "the key was refused (HTTP 401) (key_refused)"
        ]
        refused = settings(table, AZURE_VOICELIVE_API_KEY="wrong", KEY="azure-key")
        embedded = ModelServerAddress("http://127.0.0.1:9/v1", "token")
        provider = providers_of(refused.tenants["jardim"], refused.secret, embedded, "Desculpe.")
        await session_with(provider, SessionConfig(instructions="", tools=[], voice="antonio"))
        assert other.model.session["voice"]["name"] == "pt-BR-BrendaNeural"
        await other.until(lambda: not other.open_connections)


async def test_a_provider_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.tenant_provider.ANSWER_S", 0.2)
    async with VoiceLiveSimulator(faults=Faults(never_configure=True)) as server:
        made = settings(f'{VOICELIVE}base_url = "{server.resource}"', AZURE_VOICELIVE_API_KEY="azure-key")
        with pytest.raises(ProviderUnfit, match=r"no session after 0\.2 s"):
            await session_with(
                provider_of(made.tenants["jardim"], made.secret), SessionConfig(instructions="", tools=[])
            )
        await server.until(lambda: not server.open_connections)
