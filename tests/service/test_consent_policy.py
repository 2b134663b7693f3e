"""What lets a visitor in is the house's choice: words, words or a key, a key alone. "Não" always holds."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.http.tenants import as_written_now
from bridge.sentences import Sentences, filled
from bridge.settings import Consent, SettingsError, build
from bridge.softphone import Softphone
from providers.local.dialogue.phrases import PHRASES, read_phrases, section
from providers.local.dialogue.resident import PHRASES as RESIDENT_PHRASES
from tests.service.doorman import ASKS, Cast, Part, Turn, authorize
from tests.service.household import HELLO, household, spoken_by_host, until, with_cast
from tests.simulators.openai_realtime import Call, Reply

YES = Turn("Pode liberar.", authorize())
NO = Turn("Não.", Reply((Call("deny_entry", "{}"),)))
KEY_ONLY = "A resposta é pelo teclado: tecle 5 para autorizar ou 2 para negar."


def consent(**table: Any) -> Consent:
    tree = {"tenants": {"lago": {"provider": "local", "consent": table}}}
    return build(tree).tenants["lago"].consent


@pytest.mark.parametrize(
    ("written", "policy", "by_voice", "by_key"),
    [
        ({}, "voice_and_key", True, True),
        ({"policy": "voice"}, "voice", True, False),
        ({"policy": "voice_and_key"}, "voice_and_key", True, True),
        ({"policy": "key"}, "key", False, True),
        ({"keys": True}, "voice_and_key", True, True),
        ({"keys": False}, "voice", True, False),
        ({"keys": "false", "authorize_key": "5"}, "voice", True, False),
    ],
)
def test_what_each_policy_means(written: dict[str, Any], policy: str, by_voice: bool, by_key: bool) -> None:
    found = consent(**written)
    assert (found.policy, found.by_voice, found.by_key) == (policy, by_voice, by_key)
    assert as_written_now({"consent": written})["consent"].get("policy", "voice_and_key") == policy


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"policy": "keys"}, "found 'keys'; allowed: 'voice', 'voice_and_key' or 'key'"),
        ({"policy": "key", "keys": True}, "policy alone: keys is its earlier name"),
        ({"keys": "perhaps"}, "policy, or its earlier name: keys = true or keys = false"),
        ({"keys": [True]}, "policy, or its earlier name: keys = true or keys = false"),
    ],
)
def test_what_is_no_policy_is_refused(written: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        consent(**written)
    assert as_written_now({"consent": written}) == {"consent": written} or "keys" not in written


def test_the_built_in_dialogue_asks_for_the_key_where_it_is_the_key_alone() -> None:
    """And in no phrase of it for a word as well."""
    house = Sentences.load("pt-BR", "Edifício Lago")
    own = filled(house.key_only, {"tecla_sim": "5", "tecla_nao": "2"}, "the prompt")
    instructions = f"{section_of_the_prompt()}\n\n{own}"
    assert set(section(own, PHRASES)) <= set(RESIDENT_PHRASES) and "{{" not in own
    read_phrases(instructions, RESIDENT_PHRASES)
    phrases = section(instructions, PHRASES)
    assert phrases["nao_entendi"].endswith("Tecle 5 para autorizar ou 2 para negar.")
    assert not [text for text in phrases.values() if "sim ou não" in text]


def section_of_the_prompt() -> str:
    prompts = Path(__file__).resolve().parents[2] / "prompts"
    return (prompts / "resident.pt-BR.md").read_text("utf-8")


async def test_words_open_nothing_the_key_does_and_a_spoken_refusal_holds(tmp_path: Path) -> None:
    async def says_yes_then_presses(phone: Softphone) -> None:
        await until(lambda: told(), what="which key it is")
        await phone.wait_for_quiet(250, timeout_s=20)
        await phone.say(HELLO)
        await until(lambda: len(told()) == 2, what="which key it is, once more")
        assert not house.of(opened, "decision")
        phone.send_key("5")
        await asyncio.wait({phone.closed})

    async def refuses(phone: Softphone) -> None:
        await until(lambda: house.of(denied, "briefing.played"), what="the briefing")
        await phone.wait_for_quiet(250, timeout_s=20)
        await phone.say(HELLO)
        await asyncio.wait({phone.closed})

    opened, denied = uuid4(), uuid4()
    own = {"consent": {"policy": "key", "authorize_key": "5"}}
    async with Cast() as cast, household(tmp_path, {"jardim": with_cast(cast, **own)}) as house:
        house.residents |= {opened: says_yes_then_presses, denied: refuses}

        def told() -> list[str]:
            return [text for text in spoken_by_host(cast, "resident") if text == KEY_ONLY]

        cast.part = Part(ASKS, (YES,))
        await house.visit("jardim", visit=opened)
        cast.part = Part(ASKS, (NO,))
        await house.visit("jardim", visit=denied)
        assert await house.outcome(opened) == ("authorized", "opened", True)
        assert (await house.outcome(denied))[:2] == ("denied", "resident_refused")
        evidence = [one.data for one in await house.records(opened) if one.kind == "evidence"]
        assert [(one["by"], one["key"]) for one in evidence] == [("key", "5")]
        spoken = [one.data for one in await house.records(denied) if one.kind == "evidence"]
        assert [(one["by"], one["text"]) for one in spoken] == [("voice", "Não.")]
        answers = [one.data for one in await house.records(opened) if one.kind == "tool.answered"]
        assert {"status": "not_yet", "reason": "key_only"} in [one["result"] for one in answers]
        told_models = [one.instructions for one in cast.doormen if one.role == "resident"]
        assert all("só a tecla 5 do telefone autoriza" in text for text in told_models)
