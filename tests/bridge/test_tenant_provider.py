"""A tenant's provider: what its settings must say, and what becomes of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import get_args

import pytest

from bridge.commands.check import summary
from bridge.model_server import ModelServerAddress
from bridge.settings import Settings, SettingsError, Tenant, build, embedded
from bridge.tenant_provider import (
    ProviderUnfit,
    look_at_providers,
    pipeline_of,
    provider_of,
    providers_of,
    session_with,
)
from providers import registry
from providers.access import TERMS
from providers.base import SessionConfig
from providers.local.pipeline import PipelineError, read, write
from tests.simulators import chat_speech, deepgram
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
        (
            'turn_detection.kind = "semantic_vad"',
            "turn_detection.kind 'server_vad' or 'local': provider 'local'",
        ),
        (
            'provider = "gemini"\nturn_detection.kind = "server_vad"',
            "turn_detection.kind 'local', or none: provider 'gemini' has no other",
        ),
        (
            'provider = "openai-live"\nturn_detection.kind = "local"',
            "no turn_detection.kind 'local': 'openai-live' has turns of its own",
        ),
        ('provider = "pipeline"\nmodel = "x"', "no model: of provider 'pipeline' each part has its own"),
        ('pipeline.dialogue = {kind = "chat", model = "x"}', "pipeline for provider 'pipeline' alone"),
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


IMPORTS = """
import asyncio, sys
from providers.access import Access
from providers.base import SessionConfig
from providers.registry import create

provider = create("NAME", Access(api_key="k", base_url="http://127.0.0.1:1/v1"))
before = set(sys.modules)

async def call():
    session = provider.open(SessionConfig(instructions="", tools=[]))
    await session.run(lambda event: None)
    await session.close()

asyncio.run(call())
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("name", ["openai", "openai-live"])
def test_an_sdk_is_loaded_before_calls_come_and_not_by_the_first(name: str) -> None:
    """Half a second of loading would be half a second in which nobody hears anything."""
    script = IMPORTS.replace("NAME", name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not [module for module in done.stdout.split() if module.startswith("openai.resources")]


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


def uses_embedded(made: Settings) -> bool:
    return any(embedded(account) for _, account in made.tenants["jardim"].accounts)


def test_a_fallback_has_a_key_of_its_own_and_may_be_the_embedded_server() -> None:
    url = "https://x.services.ai.azure.com"
    made = settings(f'{TENANT}provider = "openai"\n' + FALLBACKS.format(url=url, voice="", key="THE_OTHER"))
    variables = dict(made.tenants["jardim"].secret_variables)
    assert variables == {"api_key_env": "OPENAI_API_KEY", "fallback.0.api_key_env": "THE_OTHER"}
    assert uses_embedded(made) and not uses_embedded(settings(f'{TENANT}provider = "openai"'))
    assert "provider openai then azure-voicelive then local, gate" in summary(made)[-1]
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


PIPELINE = f'{TENANT}provider = "pipeline"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('dialogue.kind = "chat"', "dialogue: found a table; allowed: model as well: kind 'chat' needs it"),
        ('recognition.model = "x"', "recognition: found a table; allowed: no model: kind 'whisper' has none"),
        (
            'speech.kind = "deepgram"',
            "speech: found a table; allowed: voice as well: kind 'deepgram' needs it",
        ),
        ('speech.kind = "piper"', "piper_voice as well: kind 'piper' needs it"),
        ('speech.kind = "azure"', "'espeak', 'piper', 'deepgram' or 'openai'"),
    ],
)
def test_what_a_pipelines_parts_need_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(f"{PIPELINE}pipeline.{text}")
    (problem,) = caught.value.problems
    assert problem.startswith("tenants.jardim.pipeline.") and said in problem


def test_a_pipelines_parts_have_their_own_keys_and_addresses() -> None:
    text = (
        f'{PIPELINE}pipeline.recognition.kind = "deepgram"\npipeline.recognition.encoding = "mulaw"\n'
        'pipeline.dialogue = {kind = "chat", model = "llama", base_url = "https://api.groq.com/openai/v1", '
        'key_env = "GROQ_API_KEY"}\n'
        'pipeline.speech = {kind = "openai", model = "gpt-4o-mini-tts", voice = "coral"}\n'
    )
    keys = {"DEEPGRAM_API_KEY": "d", "GROQ_API_KEY": "g", "OPENAI_API_KEY": "o"}
    one = settings(text, **keys)
    assert [variable for _, variable in one.tenants["jardim"].secret_variables] == list(keys)
    spec = pipeline_of(one.tenants["jardim"], one.secret)
    assert (spec.recognition.base_url, spec.recognition.encoding) == ("https://api.deepgram.com", "mulaw")
    assert [spec.recognition.api_key, spec.dialogue.api_key, spec.speech.api_key] == ["d", "g", "o"]
    assert spec.dialogue.base_url == "https://api.groq.com/openai/v1"
    assert spec.speech.base_url == "https://api.openai.com/v1"
    assert read(write({"jardim": spec})) == {"jardim": spec}, "as the model server reads it"
    assert "'d'" not in repr(spec) and "'g'" not in repr(spec), "a key is not for a log"


def test_a_server_of_ones_own_needs_no_key() -> None:
    text = (
        f'{PIPELINE}pipeline.dialogue = {{kind = "chat", model = "x", base_url = "http://10.0.0.5:8000/v1"}}'
    )
    assert settings(text).tenants["jardim"].secret_variables == ()


def test_specifications_that_are_none_are_refused_without_their_keys() -> None:
    with pytest.raises(PipelineError, match=r"jardim\.speech\.kind: Input should be 'espeak'") as refused:
        read('{"jardim": {"speech": {"kind": "x", "api_key": "sk-secret"}}}')
    assert "sk-secret" not in str(refused.value)
    with pytest.raises(PipelineError):
        read("sk-secret")


def test_a_pipelines_sessions_are_with_the_embedded_model_server() -> None:
    server = ModelServerAddress("http://127.0.0.1:1/v1", "segredo")
    second = f'{TENANT}[[tenants.jardim.fallback]]\nprovider = "pipeline"'
    for text, local in ((PIPELINE, False), (second, True)):
        one = settings(text)
        assert uses_embedded(one) and one.needs_local_parts is local
        assert [tenant.id for tenant in one.tenants.values() if tenant.has_pipeline] == ["jardim"]
        names = [
            provider_of(account, lambda _: None, server, "jardim").name
            for _, account in one.tenants["jardim"].accounts
        ]
        assert names[-1] == "pipeline"


async def test_a_look_at_a_pipeline_asks_each_part_that_is_somebody_elses() -> None:
    async with chat_speech.Simulator() as chat, deepgram.Simulator() as dg:
        text = (
            f'{PIPELINE}pipeline.recognition = {{kind = "deepgram", base_url = "{dg.url}"}}\n'
            f'pipeline.dialogue.base_url = "{chat.url}"\npipeline.dialogue.key_env = "C"\n'
            'pipeline.dialogue.kind = "chat"\npipeline.dialogue.model = "gpt-5-mini"\n'
            f'pipeline.speech = {{kind = "deepgram", voice = "aura-2-celeste-es", base_url = "{dg.url}"}}\n'
        )
        keys = {"DEEPGRAM_API_KEY": deepgram.KEY, "C": chat_speech.KEY}
        well = "jardim: every part of the pipeline takes us"
        assert await look_at_providers(settings(text, **keys)) == ([well], [])
        assert len(dg.queries) == len(chat.requests) == len(dg.said) == 1
        for changes, said in (
            ({"C": "sk-wrong"}, "language model (127.0.0.1:{chat})"),
            ({"DEEPGRAM_API_KEY": "x"}, "speech recognition (127.0.0.1:{dg})"),
        ):
            ((), (line,)) = await look_at_providers(settings(text, **{**keys, **changes}))
            ports = {"chat": chat.url.split(":")[2].partition("/")[0], "dg": dg.url.split(":")[2]}
            refused = f"{said.format(**ports)}: the key was refused (HTTP 401) (key_refused)"
            assert line == f"tenants.jardim.pipeline: {refused}"
            assert "sk-wrong" not in line
        voiceless = text.replace("aura-2-celeste-es", "aura-9")
        ((), (line,)) = await look_at_providers(settings(voiceless, **keys))
        assert "the model is not known there" in line
        ((), (line,)) = await look_at_providers(settings(text.replace("gpt-5-mini", "gpt-9"), **keys))
        assert "language model" in line and line.endswith("(unknown_model)")
