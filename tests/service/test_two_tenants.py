"""Two condominiums in one service: prompts, words, providers and recordings are each one's own."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

from tests.service.doorman import AGREES, Cast, Part, Turn, call_resident
from tests.service.household import Household, household, spoken_by_host, with_cast

ELSEWHERE = [{"apartment_number": "77", "residents": ["Zuleica Prado"], "voip_number": "sip:77@bosque"}]


async def test_two_tenants_at_once_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "bosque.json").write_text(json.dumps(ELSEWHERE))
    here = Part((Turn("Oi.", call_resident("501", "Pedro", "Renata Oliveira")),), AGREES)
    there = Part((Turn("Olá.", call_resident("77", "Quitéria", "Zuleica Prado")),), AGREES)
    async with Cast(here) as jardim, Cast(there) as bosque:
        tenants = {
            "jardim": with_cast(
                jardim,
                name="Condomínio Jardim",
                greeting="Jardim, bom dia.",
                prompt_extra="No Jardim, entregas só até as dez.",
                api_key_env="KEY_OF_JARDIM",
                voice="marin",
                recording={"enabled": True, "notice": "O Jardim grava."},
            ),
            "bosque": with_cast(
                bosque,
                name="Edifício Bosque",
                greeting="Bosque, pois não?",
                goodbyes={"authorized": "O Bosque abriu.", "denied": "O Bosque não abriu."},
                prompt_extra="No Bosque, obras só de dia.",
                api_key_env="KEY_OF_BOSQUE",
                voice="cedar",
                directory=str(tmp_path / "bosque.json"),
            ),
        }
        keys = {"KEY_OF_JARDIM": "jardim-secret", "KEY_OF_BOSQUE": "bosque-secret"}
        async with household(tmp_path, tenants, environ=keys) as house:
            visits = {name: [uuid4() for _ in range(2)] for name in tenants}
            await asyncio.gather(
                *(house.visit(name, visit=visit) for name, many in visits.items() for visit in many)
            )
            for name, many in visits.items():
                for visit in many:
                    assert await house.outcome(visit) == ("authorized", "opened", True)
                    assert {record.tenant for record in await house.records(visit)} == {name}
            await check_digests(house, tmp_path / "recordings", visits["jardim"])
            # A resident of one is unknown in the other, and each chain stands by itself.
            view = await house.service.storage.visit(str(visits["bosque"][0]))
            assert view is not None and view.summary.resident == "Zuleica Prado"
            assert set(await house.service.storage.tenants()) == {"", "jardim", "bosque"}
            assert {order.tenant: order.port for order in house.orders} == {
                name: house.service.ports(name)[1] for name in tenants
            }

    own = {
        "jardim": ("Jardim, bom dia.", "O Jardim grava.", "entregas só até as dez", "Condomínio Jardim"),
        "bosque": ("Bosque, pois não?", "O Bosque abriu.", "obras só de dia", "Edifício Bosque"),
    }
    told = {}
    for name, cast in (("jardim", jardim), ("bosque", bosque)):
        assert len(cast.models) == 4  # two visits, two legs each
        said = [*spoken_by_host(cast, "visitor"), *spoken_by_host(cast, "resident")]
        told[name] = "\n".join([*said, *(json.dumps(d.session, ensure_ascii=False) for d in cast.doormen)])
        assert {d.session["audio"]["output"]["voice"] for d in cast.doormen} == {tenants[name]["voice"]}
        assert {request.headers["Authorization"] for request in cast.requests} == {f"Bearer {name}-secret"}
    for name, words in own.items():
        other = "bosque" if name == "jardim" else "jardim"
        for words_of in words:
            assert words_of in told[name]
            assert words_of not in told[other]
        assert own and name.capitalize() not in told[other]
    assert [path.parts[0] for path in recordings(tmp_path)] == ["jardim"] * 4


async def check_digests(house: Household, root: Path, visits: list[UUID]) -> None:
    """Each recording's file is in the log by its length and digest, before the visit's last word."""
    for visit in visits:
        records = await house.records(visit)
        assert records[-1].kind == "visit.ended"
        told = {record.data["leg"]: record.data for record in records if record.kind == "recording.closed"}
        ended = {r.data["leg"]: r.data["recording"] for r in records if r.kind == "leg.ended"}
        assert {leg: data["recording"] for leg, data in told.items()} == ended
        for data in told.values():
            held = (root / data["recording"]).read_bytes()
            assert (data["bytes"], data["sha256"]) == (len(held), sha256(held).hexdigest())


def recordings(data: Path) -> list[Path]:
    """Every recording, from the tenant's directory on."""
    root = data / "recordings"
    return [path.relative_to(root) for path in root.rglob("*.wav")]
