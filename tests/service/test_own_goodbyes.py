"""A house says goodbye in its own words, by how the visit ended; what must be known is said in ours."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.sentences import USUAL_GOODBYES, Sentences
from bridge.settings import SettingsError, Tenant, build
from bridge.softphone import Softphone
from tests.service.doorman import ASKS, Cast, Part, Turn, authorize
from tests.service.household import HELLO, household, until, with_cast
from tests.simulators.openai_realtime import Call, Reply
from visits.events import Outcome

ROOT = Path(__file__).resolve().parents[2]
USUAL = tomllib.loads((ROOT / "prompts" / "sentences.pt-BR.toml").read_text("utf-8"))
OWN = {
    "authorized": "Pode subir, o {condominio} agradece.",
    "denied": "Hoje não dá.",
    "unreachable": "Ninguém decidiu no {condominio}.",
    "abandoned": "Volte sempre.",
    "failed": "Algo quebrou.",
}
HOUSE = Sentences.load("pt-BR", "Edifício Lago", goodbyes={Outcome(name): text for name, text in OWN.items()})


def tenant(**own: object) -> Tenant:
    return build({"tenants": {"lago": {"provider": "local", **own}}}).tenants["lago"]


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_has_its_own_words_and_no_other(outcome: Outcome) -> None:
    only = Sentences.load("pt-BR", "Edifício Lago", goodbyes={outcome: "Até já, {condominio}."})
    for key in USUAL_GOODBYES:
        for other in Outcome:
            said = only.say_last(key, other, None, {})
            assert said == ("Até já, Edifício Lago." if other is outcome else only.say(key, None, {}))


def test_what_a_visitor_must_know_is_told_in_our_words() -> None:
    """Every last sentence to a visitor is either one that a house may replace, or one of these."""
    last = set(re.findall(r'visitor="(\w+)"', (ROOT / "visits" / "visit.py").read_text("utf-8")))
    kept = {"gate_failed", "gate_unknown", "gate_failed_transfer", "goodbye_taken_back", "goodbye_unserved"}
    kept |= {"transfer", "transfer_elsewhere", "transfer_failed", "transfer_unserved"}
    assert last <= USUAL_GOODBYES | kept and set(USUAL) >= USUAL_GOODBYES | kept
    for key in kept:
        for outcome in Outcome:
            assert HOUSE.say_last(key, outcome, None, {}) == HOUSE.say(key, None, {})


def test_the_settings_by_outcome_and_the_short_way() -> None:
    assert tenant().own_goodbyes == {}
    assert tenant(goodbyes=OWN).own_goodbyes == {Outcome(name): text for name, text in OWN.items()}
    short = tenant(goodbye="Até.", goodbyes={"denied": "Não."})
    assert short.own_goodbyes == {Outcome.AUTHORIZED: "Até.", Outcome.DENIED: "Não."}
    twice = {"goodbye": "Até.", "goodbyes": {"authorized": "Suba."}}
    for wrong, said in (
        (twice, "goodbye or goodbyes.authorized, not both"),
        ({"goodbyes": {"denied": "{visitante}"}}, "{condominio} alone in braces"),
        ({"goodbyes": {"refused": "Não."}}, "goodbyes.refused: there is no such setting"),
    ):
        with pytest.raises(SettingsError, match=re.escape(said)):
            tenant(**wrong)


async def test_visitors_hear_it_last(tmp_path: Path) -> None:
    """Refused; and left without an answer, by a resident who hangs up."""

    async def hangs_up(phone: Softphone) -> None:
        await phone.wait_for_speech(timeout_s=10)
        phone.hang_up()

    async def refuses(phone: Softphone) -> None:
        await until(lambda: house.of(denied, "briefing.played"), what="the briefing")
        await phone.say(HELLO)
        await asyncio.wait({phone.closed})

    denied, undecided = uuid4(), uuid4()
    no = Turn("Não.", Reply((Call("deny_entry", "{}"),)))
    async with (
        Cast(Part(ASKS, (no, Turn("Sim.", authorize())))) as cast,
        household(tmp_path, {"jardim": with_cast(cast, name="Edifício Lago", goodbyes=OWN)}) as house,
    ):
        house.residents |= {denied: refuses, undecided: hangs_up}
        last = {}
        for visit in (denied, undecided):
            await house.visit("jardim", visit=visit)
            turns = [one.data for one in await house.records(visit) if one.kind == "turn"]
            last[visit] = [turn["text"] for turn in turns if turn["leg"] == "visitor"][-1]
        assert last == {denied: "Hoje não dá.", undecided: "Ninguém decidiu no Edifício Lago."}
        assert (await house.outcome(denied))[0] == "denied"
        assert (await house.outcome(undecided))[:2] == ("unreachable", "resident_hung_up")
