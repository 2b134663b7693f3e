"""From a spreadsheet to a visit: which numbers are called, and what the resident hears of who is expected."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.cli import main
from tests.service.doorman import AGREES, Cast, Part, Turn, call_resident
from tests.service.household import household, spoken_by_host, with_cast

CSV = """\
Apto;Morador;Celular;Ramal;Não ligar
77;Zuleica Prado;11 98888-7777;2077;
77;Otávio Prado;11 97777-6666;2077;sim
78;Rui Melo;;2078;
"""


@pytest.mark.parametrize("expected", [True, False])
async def test_an_imported_apartment_is_called_and_hears_of_whom_it_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lista.csv").write_bytes(CSV.encode("cp1252"))
    assert main(["import", "lista.csv", "--tenant", "bosque"]) == 0
    file = tmp_path / "directories" / "bosque.json"
    entries = json.loads(file.read_bytes())
    entries[0]["standing_authorisations"] = [{"name": "Quitéria Dias", "call_resident": False}]
    file.write_text(json.dumps(entries), encoding="utf-8")
    name = "Quitéria Dias" if expected else "Berenice Dias"
    part = Part((Turn("Olá.", call_resident("77", name, "Otávio Prado")),), AGREES)
    async with Cast(part) as cast:
        tenants = {"bosque": with_cast(cast, directory=str(file))}
        async with household(tmp_path / "data", tenants) as house:
            visit = uuid4()
            await house.visit("bosque", visit=visit)
            # The key of the resident opened, as in every visit; the list alone opens nothing.
            assert await house.outcome(visit) == ("authorized", "opened", True)
            notes = [record.data for record in await house.records(visit) if record.kind == "note"]
            assert [order.number for order in house.orders] == ["2077"]  # not Otávio's own
    (briefing,) = [text for text in spoken_by_host(cast, "resident") if "Autoriza a entrada?" in text]
    told = "Quitéria Dias está na lista de pessoas esperadas pelo apartamento. Autoriza a entrada?"
    assert briefing.endswith(told) is expected
    assert not any("lista de pessoas" in text for text in spoken_by_host(cast, "visitor"))
    barred = {"about": "dial", "text": "numbers that are not called now, by quiet hours or do-not-call: 1"}
    standing = {"about": "standing authorisation", "text": "Quitéria Dias: every day"}
    assert [one for one in notes if "about" in one] == ([barred, standing] if expected else [barred])
