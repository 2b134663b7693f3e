"""What the resources do: tenants, directories, visits, the audit log, keys, operators; on both databases."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from audio.recording import wav_header
from bridge.http.audit import harmless
from bridge.http.rights import house_part, merged, not_the_houses
from bridge.recorder import recording_name
from bridge.service import Service
from tests.http.people import (
    HOUSE,
    PASSWORD,
    bearer,
    in_s,
    logged_in,
    make_key,
    make_operator,
    make_tenant,
    now,
    served,
)

HOSTILE = (
    "' OR '1'='1",
    "'; DROP TABLE visits; --",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "%' OR 1=1 --",
    "\\",
    "_%",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "\u202egpj.exe",
)


class House:
    """The service, and an administrator of all tenants who asks it."""

    def __init__(self, service: Service, client: httpx2.AsyncClient, key: str) -> None:
        self.service = service
        self.client = client
        self.admin = bearer(key)

    async def ask(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """What is answered; of the administrator unless `headers` name another."""
        headers = {**self.admin, **more.pop("headers", {})}
        answer = await self.client.request(method, path, headers=headers, **more)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        kind = answer.headers.get("content-type", "")
        return answer.json() if answer.content and "json" in kind and "jsonl" not in kind else answer


@pytest.fixture(params=["sqlite", "postgresql"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """A service with a tenant `jardim` of the files and a tenant `bosque` of the database."""
    given: dict[str, Any] = {}
    if request.param == "postgresql":
        given["database_url"] = await request.getfixturevalue("postgres").make()
    async with served(tmp_path, **given) as (service, client):
        await make_tenant(service, "bosque")
        yield House(service, client, await make_key(service, "admin"))


# ---- Tenants -------------------------------------------------------------------------------------------


async def test_a_tenant_is_made_changed_and_removed_by_whoever_saw_its_last_version(house: House) -> None:
    new = {**HOUSE, "name": "Edifício Praia"}
    path = "/v1/tenants/praia"
    await house.ask("PUT", path, 428, json=new)
    await house.ask("PUT", path, 404, json=new, headers={"If-Match": '"1"'})
    made = await house.ask("PUT", path, 201, json=new, headers={"If-None-Match": "*"})
    assert (made["version"], made["content"]["name"], made["whole"]) == (1, "Edifício Praia", True)
    await house.ask("PUT", path, 412, json=new, headers={"If-None-Match": "*"})
    changed = {**new, "greeting": "Boa tarde."}
    assert (await house.ask("PUT", path, json=changed, headers={"If-Match": '"1"'}))["version"] == 2
    late = await house.ask("PUT", path, 412, json=new, headers={"If-Match": '"1"'})
    assert late["detail"] == "found version 2, not 1: somebody else changed it"

    wrong = {**new, "limits": {"max_calls": 0}, "gate": {"kind": "nothing"}, "colour": "green"}
    refused = await house.ask("PUT", path, 422, json=wrong, headers={"If-Match": '"2"'})
    fields = {one["field"]: one["detail"] for one in refused["problems"]}
    assert set(fields) == {"limits.max_calls", "gate.kind", "colour"}
    assert fields["limits.max_calls"].startswith("found 0; allowed: a whole number from 1")
    file = await house.ask(
        "PUT", path, 422, json={**new, "directory": "/etc/passwd"}, headers={"If-Match": '"2"'}
    )
    assert file["problems"][0]["field"] == "directory"

    history = await house.ask("GET", f"{path}/history")
    assert [(one["version"], one["content"].get("greeting")) for one in history["items"]] == [
        (2, "Boa tarde."),
        (1, None),
    ]
    assert (await house.ask("GET", f"{path}/history/1"))["content"]["name"] == "Edifício Praia"
    await house.ask("DELETE", path, 412, headers={"If-Match": '"1"'})
    await house.ask("DELETE", path, 204, headers={"If-Match": '"2"'})
    await house.ask("GET", path, 404)
    records = await house.ask("GET", "/v1/audit?tenant=praia&kind=settings.changed")
    assert [one["data"]["action"] for one in records["items"]] == ["removed", "changed", "created"]
    assert all(one["data"]["by"].startswith("key:") for one in records["items"])


async def test_a_tenant_of_the_files_is_shown_and_not_changed(house: House) -> None:
    shown = await house.ask("GET", "/v1/tenants/jardim")
    assert shown["kept_in"] and shown["content"]["name"] == "Condomínio Jardim das Flores"
    for method, path in (
        ("PUT", "/v1/tenants/jardim"),
        ("DELETE", "/v1/tenants/jardim"),
        ("PUT", "/v1/tenants/jardim/directory"),
        ("DELETE", "/v1/tenants/jardim/directory/apartments/101"),
    ):
        body: dict[str, Any] = {"json": [] if path.endswith("directory") else {}} if method == "PUT" else {}
        refused = await house.ask(method, path, 409, headers={"If-Match": '"1"'}, **body)
        assert "kept in" in refused["detail"]


async def test_a_house_changes_what_it_decides_and_sees_nothing_else(house: House) -> None:
    manager = bearer(await make_key(house.service, "manager", "bosque"))
    path = "/v1/tenants/bosque"
    shown = await house.ask("GET", path, headers=manager)
    assert (shown["whole"], shown["content"]) == (False, {"name": "Condomínio Bosque", "limits": {}})
    at = {**manager, "If-Match": '"1"'}
    for foreign in (
        {"base_url": "wss://evil.example"},
        {"gate": {"kind": "http", "url": "https://evil.example"}},
        {"api_key_env": "OTHERS_KEY"},
        {"visitor_port": 9999},
        {"limits": {"max_calls": 9}},
        {"attendant": {"extension": "9000"}},
        {"numbers": ["9000"]},
    ):
        refused = await house.ask("PUT", path, 422, json={"name": "X", **foreign}, headers=at)
        assert "not the house's to decide" in refused["detail"]
    said = {"name": "Condomínio Bosque Novo", "limits": {"silence_s": 9.0}}
    assert (await house.ask("PUT", path, json=said, headers=at))["content"] == said
    whole = (await house.ask("GET", path))["content"]
    assert whole == {**HOUSE, "name": said["name"], "limits": {"max_calls": 3, "silence_s": 9.0}}
    shown = await house.ask("GET", f"{path}/history", headers=manager)
    assert "base_url" not in str(shown) and shown["items"][0]["content"] == said
    admin = bearer(await make_key(house.service, "admin", "bosque"))
    await house.ask("DELETE", path, 403, headers={**admin, "If-Match": '"2"'})
    await house.ask("PUT", "/v1/tenants/mine", 404, json=said, headers={**admin, "If-None-Match": "*"})


async def test_whoever_only_reads_sees_no_secret_of_a_url(house: House) -> None:
    gate = {"kind": "http", "url": "https://gate.example/open?token=abc123"}
    await house.ask(
        "PUT", "/v1/tenants/praia", 201, json={**HOUSE, "gate": gate}, headers={"If-None-Match": "*"}
    )
    viewer = bearer(await make_key(house.service, "viewer"))
    for path in ("/v1/tenants/praia", "/v1/tenants/praia/history", "/v1/tenants/praia/history/1"):
        shown = str(await house.ask("GET", path, headers=viewer))
        assert "gate.example/open?token=…" in shown and "abc123" not in shown
    whole = await house.ask("GET", "/v1/tenants/praia")
    assert whole["content"]["gate"] == gate  # who changes it gets it as it is
    for name in ("keys", "operators"):
        await make_operator(house.service, f"one-{name}", "viewer")
        pages = [await house.ask("GET", f"/v1/{name}?limit=1")]
        while pages[-1]["next"]:
            pages.append(await house.ask("GET", f"/v1/{name}?limit=1&after={pages[-1]['next']}"))
        every = (await house.ask("GET", f"/v1/{name}"))["items"]
        assert [page["items"][0] for page in pages] == every and len(every) >= 1


def test_what_a_house_decides_and_what_stays() -> None:
    stored = {"provider": "openai", "limits": {"max_calls": 3, "ring_s": 9}, "attendant": {"extension": "9"}}
    assert house_part(stored) == {"limits": {"ring_s": 9}}
    given = {"voice": "ash", "attendant": {"name": "zelador"}}
    assert list(not_the_houses(given)) == []
    assert merged(stored, given) == {
        "provider": "openai",
        "voice": "ash",
        "limits": {"max_calls": 3},
        "attendant": {"extension": "9", "name": "zelador"},
    }
    assert list(not_the_houses({"attendant": None, "gate": {}, "limits": {"max_calls": 1}})) == [
        "attendant",
        "gate",
        "limits.max_calls",
    ]


# ---- Directories ---------------------------------------------------------------------------------------

MARIA = {"apartment_number": "102 bloco B", "residents": ["Maria Souza"], "voip_number": "102"}


async def test_apartments_are_put_found_replaced_and_removed(house: House) -> None:
    path = "/v1/tenants/bosque/directory"
    assert (await house.ask("GET", path))["items"] == []
    one = f"{path}/apartments/102 bloco B"
    assert (await house.ask("PUT", one, json=MARIA))["version"] == 1
    await house.ask("PUT", one, 412, json=MARIA, headers={"If-Match": '"7"'})
    await house.ask("PUT", f"{path}/apartments/103", 422, json=MARIA)
    wrong = await house.ask("PUT", one, 422, json={**MARIA, "residents": ["!!"]})
    assert "holds no name" in wrong["detail"]
    await house.ask("PUT", one, 422, json={**MARIA, "age": 7})
    shown = await house.ask("GET", one)
    assert shown == {"label": "102 bloco B", **MARIA, "standing_authorisations": []}
    for q, found in (("maria", 1), ("SOUZA 102", 1), ("joão", 0), ("%", 0)):
        assert len((await house.ask("GET", path, params={"q": q}))["items"]) == found, q

    whole = [{**MARIA, "apartment_number": str(number)} for number in range(101, 106)]
    await house.ask("PUT", path, 428, json=whole)
    assert (await house.ask("PUT", path, json=whole, headers={"If-Match": '"1"'}))["version"] == 2
    refused = await house.ask(
        "PUT", path, 422, json=[*whole, {"residents": 7}, whole[0]], headers={"If-Match": '"2"'}
    )
    assert {each["field"] for each in refused["problems"]} == {"entry 6"}
    pages, after = [], ""
    while True:
        page = await house.ask("GET", f"{path}?limit=2{after}")
        pages.append([each["label"] for each in page["items"]])
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert pages == [["101", "102"], ["103", "104"], ["105"]]
    await house.ask("DELETE", f"{path}/apartments/101", 204)
    await house.ask("DELETE", f"{path}/apartments/101", 404)


async def test_whom_an_apartment_expects(house: House) -> None:
    path = "/v1/tenants/bosque/directory"
    await house.ask("PUT", f"{path}/apartments/102 bloco B", json=MARIA)
    said = {"apartment": "102 bloco B", "name": "Joana Faxina", "days": ["tue"], "hours": "08:00-12:00"}
    made = await house.ask("POST", f"{path}/standing", 201, json=said)
    assert {**said, "until": None, "call_resident": True, "id": made["id"]} == made
    await house.ask("POST", f"{path}/standing", 422, json={**said, "days": ["someday"]})
    await house.ask("POST", f"{path}/standing", 404, json={**said, "apartment": "999"})
    changed = await house.ask("PUT", f"{path}/standing/{made['id']}", json={**said, "until": "2030-01-31"})
    assert (changed["id"], changed["until"]) == (made["id"], "2030-01-31")
    assert (await house.ask("GET", f"{path}/standing"))["items"] == [changed]
    await house.ask("DELETE", f"{path}/standing/{made['id']}", 204)
    await house.ask("DELETE", f"{path}/standing/{made['id']}", 404)


async def test_a_sheet_is_taken_over_whole_or_not_at_all(house: House) -> None:
    path = "/v1/tenants/bosque/directory/import"
    await house.ask("PUT", "/v1/tenants/bosque/directory/apartments/102 bloco B", json=MARIA)
    sheet = "apartamento;morador;ramal\n101;João Silva;101\n102 bloco B;Maria Souza;202\n"
    csv_type = {"Content-Type": "text/csv"}
    broken = f"{sheet};Ninguém;9\n103;;9\n"
    dry = await house.ask("POST", f"{path}?dry_run=true", content=broken, headers=csv_type)
    assert not dry["done"] and [each["place"] for each in dry["problems"]] == ["linha 4", "linha 5"]
    refused = await house.ask("POST", path, 422, content=broken, headers=csv_type)
    assert [each["field"] for each in refused["problems"]] == ["linha 4", "linha 5"]
    assert len((await house.ask("GET", "/v1/tenants/bosque/directory"))["items"]) == 1

    dry = await house.ask("POST", f"{path}?dry_run=true", content=sheet, headers=csv_type)
    assert (dry["done"], dry["created"], dry["changed"], dry["version"]) == (False, 1, 1, 1)
    done = await house.ask("POST", f"{path}?name=moradores.csv", content=sheet, headers=csv_type)
    assert (done["done"], done["apartments"], done["version"]) == (True, 2, 2)
    as_json = {"Content-Type": "application/json"}
    only = json.dumps([{**MARIA, "apartment_number": "7"}])
    done = await house.ask("POST", f"{path}?replace=true", content=only, headers=as_json)
    assert (done["created"], done["removed"], done["apartments"]) == (1, 2, 1)
    for content, kind, status in (
        (b"PK\x03\x04 no workbook", "application/octet-stream", 422),
        (b"[1, 2", "application/json", 422),
        (b"\x00\xff\xfe", "text/csv", 422),
        (sheet.encode(), "text/plain", 415),
    ):
        await house.ask("POST", path, status, content=content, headers={"Content-Type": kind})
    records = await house.ask("GET", "/v1/audit?tenant=bosque&kind=directory.changed")
    assert [each["data"].get("source") for each in records["items"]] == [None, "moradores.csv", None]


# ---- Visits and the audit log --------------------------------------------------------------------------


async def visited(service: Service, tenant: str, visitor: str, outcome: str = "denied") -> str:
    """A visit that is over, on record."""
    visit = str(uuid4())
    name = recording_name(tenant, date(2026, 1, 2), visit, "visitor")
    told: list[tuple[str, dict[str, Any]]] = [
        ("visit.started", {"endpoint": "test", "provider": "local"}),
        ("leg.connected", {"leg": "visitor", "role": "visitor"}),
        (
            "turn",
            {"leg": "visitor", "speaker": "caller", "text": visitor, "started_ms": 1.0, "ended_ms": 2.0},
        ),
        ("tool.called", {"leg": "visitor", "call": "c1", "name": "deny_entry", "arguments": {}}),
        ("leg.ended", {"leg": "visitor", "reason": "hangup", "recording": str(name)}),
        (
            "visit.ended",
            {"outcome": outcome, "visitor_name": visitor, "resident": "Maria Souza", "apartment": "102"},
        ),
    ]
    for kind, data in told:
        await service.storage.append(tenant, visit, now(), kind, data)
    return visit


async def test_visits_are_found_by_what_is_known_of_them(house: House) -> None:
    denied = await visited(house.service, "bosque", "João da Silva")
    allowed = await visited(house.service, "jardim", "Ana Lima", "abandoned")
    for query, found in (
        ("", [allowed, denied]),
        ("tenant=bosque", [denied]),
        ("outcome=denied", [denied]),
        ("outcome=denied&outcome=abandoned", [allowed, denied]),
        ("visitor=joao", [denied]),
        ("resident=souza&apartment=102", [allowed, denied]),
        ("tool=deny_entry&provider=local", [allowed, denied]),
        ("since=2000-01-01T00:00:00Z&until=2000-01-02T00:00:00-03:00", []),
        ("reviewed=true", []),
    ):
        page = await house.ask("GET", f"/v1/visits?{query}")
        assert [each["id"] for each in page["items"]] == found, query
    first = await house.ask("GET", "/v1/visits?limit=1")
    second = await house.ask("GET", f"/v1/visits?limit=1&after={first['next']}")
    assert [first["items"][0]["id"], second["items"][0]["id"], second["next"]] == [allowed, denied, None]
    whole = await house.ask("GET", f"/v1/visits/{denied}")
    assert (whole["visit"]["outcome"], whole["turns"][0]["text"]) == ("denied", "João da Silva")
    await house.ask("GET", "/v1/visits?limit=201", 422)
    await house.ask("GET", "/v1/visits?after=nonsense", 422)
    await house.ask("GET", "/v1/visits?since=2026-01-01T00:00:00", 422)  # of which time zone?


async def test_records_are_found_by_what_their_visits_are(house: House) -> None:
    denied = await visited(house.service, "bosque", "João da Silva")
    await visited(house.service, "jardim", "Ana Lima", "abandoned")
    for query, kinds in (
        ("visitor=joao&kind=visit.started", ["visit.started"]),
        ("outcome=abandoned&kind=turn&tenant=bosque", []),
        ("outcome=denied&resident=maria&tool=deny_entry", ["tool.called"]),
        (f"visit={denied}&kind=turn&visitor=joao", ["turn"]),
        (f"visit={denied}&visitor=ana", []),
    ):
        page = await house.ask("GET", f"/v1/audit?{query}")
        assert [each["kind"] for each in page["items"]] == kinds, query
    await house.ask("GET", "/v1/audit?kind=nothing", 422)


async def test_whatever_is_looked_for_is_no_more_than_a_text(house: House) -> None:
    visit = await visited(house.service, "bosque", "João da Silva")
    for text in HOSTILE:
        for path, names in (
            ("/v1/visits", ("visitor", "resident", "apartment")),
            ("/v1/audit", ("visitor", "resident")),
            ("/v1/tenants/bosque/directory", ("q",)),
        ):
            for name in names:
                found = await house.ask("GET", path, params={name: text})
                assert found["items"] == [], (path, name, text)
        for path in ("/v1/tenants/", "/v1/visits/", "/v1/keys/", "/v1/operators/"):
            answer = await house.client.get(path + httpx2.QueryParams({"x": text})["x"], headers=house.admin)
            assert answer.status_code in (400, 404, 422), (path, text)
            assert "<" not in answer.headers["content-type"] and "json" in answer.headers["content-type"]
    await house.ask("GET", f"/v1/visits/{visit}")
    for path in ("/v1/visits?visitor=%00", "/v1/tenants/bosque/directory?q=%00", "/v1/keys/%00"):
        await house.ask("GET", path, 422)


async def test_the_log_is_taken_along_and_no_spreadsheet_computes_any_of_it(house: House) -> None:
    await visited(house.service, "bosque", '=HYPERLINK("http://evil.example")')
    reviewer = bearer(await make_key(house.service, "reviewer", "bosque"))
    viewer = bearer(await make_key(house.service, "viewer", "bosque"))
    await house.ask("GET", "/v1/audit/export", 403, headers=viewer)
    answer = await house.ask(
        "GET", "/v1/audit/export?bom=true&delimiter=semicolon&kind=turn", headers=reviewer
    )
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    text = answer.content.decode("utf-8-sig")
    assert answer.content.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(text), delimiter=";")
    assert row["text"] == '\'=HYPERLINK("http://evil.example")' and row["kind"] == "turn"
    assert json.loads(row["data"])["text"].startswith("=HYPERLINK")
    lines = (await house.ask("GET", "/v1/audit/export?format=jsonl", headers=reviewer)).text.splitlines()
    records = [json.loads(line) for line in lines]
    assert {each["tenant"] for each in records} == {"bosque"}
    assert [each["seq"] for each in records] == list(range(len(records), 0, -1))


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1"])
def test_what_a_spreadsheet_would_compute_is_a_text(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"
    assert harmless(-1) == -1 and harmless("a=1") == "a=1" and harmless(None) is None


async def test_the_log_is_verified_one_check_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.http.verifying.TELL_S", 0.01)  # its first line comes before it is through
    await visited(house.service, "bosque", "João")
    async with house.client.stream("POST", "/v1/audit/verify", headers=house.admin, timeout=60) as first:
        lines = first.aiter_lines()
        await anext(lines)
        await house.ask("POST", "/v1/audit/verify", 409)
        last = json.loads([line async for line in lines][-1])
    assert last["sound"] is True and last["faults"] == [] and last["records"] >= 7


# ---- Recordings ----------------------------------------------------------------------------------------


async def test_a_recording_is_given_out_in_whole_or_in_part(house: House) -> None:
    visit = await visited(house.service, "bosque", "João")
    path = f"/v1/visits/{visit}/recordings/visitor"
    await house.ask("GET", path, 404)  # on record, and gone
    content = wav_header(50_000) + bytes(range(250)) * 800
    (leg,) = (await house.ask("GET", f"/v1/visits/{visit}"))["legs"]
    file = house.service.settings.service.recordings_path / leg["recording"]
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    whole = await house.ask("GET", path)
    assert whole.content == content and whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(content)
    for asked, first, last in (
        ("bytes=0-9", 0, 10),
        (f"bytes=100-{size + 5}", 100, size),
        ("bytes=1000-", 1000, size),
        ("bytes=-7", size - 7, size),
    ):
        part = await house.ask("GET", path, 206, headers={"Range": asked})
        assert part.content == content[first:last], asked
        assert part.headers["content-range"] == f"bytes {first}-{last - 1}/{size}"
    for asked in ("bytes=5-1", "bytes=a-b", "bytes=0-1,4-5", "lines=1-2", "bytes=-"):
        assert (await house.ask("GET", path, headers={"Range": asked})).content == content
    beyond = await house.client.get(path, headers={**house.admin, "Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    await house.ask("GET", path, 404, headers=bearer(await make_key(house.service, "admin", "jardim")))


async def test_no_other_file_is_given_out_whatever_a_record_says(house: House, tmp_path: Path) -> None:
    """Whoever wrote to the database, or put links below the recordings, gets no file by that."""
    root = house.service.settings.service.recordings_path
    own = root / "bosque" / "2026-01-02"
    own.mkdir(parents=True)
    (root / "jardim").mkdir()
    secret = wav_header(2) + b"12345678"
    (root / "jardim" / "theirs.wav").write_bytes(secret)
    (tmp_path / "outside.wav").write_bytes(secret)
    (own / "link.wav").symlink_to(tmp_path / "outside.wav")
    (own / "theirs.wav").symlink_to(root / "jardim" / "theirs.wav")
    os.mkfifo(own / "pipe.wav")
    for name in (
        "/etc/passwd",
        "../outside.wav",
        "bosque/../../outside.wav",
        "bosque/../jardim/theirs.wav",
        "jardim/theirs.wav",
        "bosque/2026-01-02/link.wav",
        "bosque/2026-01-02/theirs.wav",
        "bosque/2026-01-02/pipe.wav",
        "bosque/2026-01-02",
        "bosque/\0",
        "",
    ):
        visit = str(uuid4())
        for kind, data in (
            ("visit.started", {}),
            ("leg.connected", {"leg": "visitor", "role": "visitor"}),
            ("leg.ended", {"leg": "visitor", "reason": "hangup", "recording": name.replace("\0", "x")}),
        ):
            await house.service.storage.append("bosque", visit, now(), kind, data)
        await house.ask("GET", f"/v1/visits/{visit}/recordings/visitor", 404)
    for leg in ("..%2f..%2fetc%2fpasswd", "../x", "resident-9"):
        answer = await house.client.get(f"/v1/visits/{visit}/recordings/{leg}", headers=house.admin)
        assert answer.status_code in (404, 422)


# ---- Keys and operators --------------------------------------------------------------------------------


async def test_nobody_gives_more_than_they_have(house: House) -> None:
    await make_operator(house.service, "chefe", "admin")
    manager = bearer(await make_key(house.service, "manager", "bosque"))
    narrow = bearer(await make_key(house.service, "admin", scopes=("access:write", "visits:read")))
    key = {"name": "x", "role": "viewer", "tenant": "bosque"}
    made = await house.ask("POST", "/v1/keys", 201, json=key, headers=manager)
    assert (await house.ask("GET", "/v1/visits", headers=bearer(made["key"])))["items"] == []
    for change, status in (
        ({"role": "admin"}, 403),
        ({"tenant": None}, 403),
        ({"tenant": "jardim"}, 422),
        ({"tenant": "nowhere"}, 422),
        ({"scopes": ["tenants:write"]}, 422),
        ({"expires_at": in_s(-5)}, 422),
        ({"scopes": ["no:scope"]}, 422),
    ):
        await house.ask("POST", "/v1/keys", status, json={**key, **change}, headers=manager)
    await house.ask("POST", "/v1/keys", 403, json={**key, "scopes": ["audit:read"]}, headers=narrow)
    await house.ask("POST", "/v1/keys", 201, json={**key, "scopes": ["visits:read"]}, headers=narrow)
    somebody = {"login": "ana", "role": "viewer", "tenant": "bosque", "password": PASSWORD}
    await house.ask("POST", "/v1/operators", 403, json=somebody, headers=narrow)
    await house.ask("POST", "/v1/operators", 201, json=somebody, headers=manager)
    await house.ask("POST", "/v1/operators", 409, json=somebody, headers=manager)
    short = await house.ask("POST", "/v1/operators", 422, json={**somebody, "password": "aaaaaaaaaaaaa"})
    assert "aaaa" not in short["detail"]
    await house.ask("PATCH", "/v1/operators/ana", 403, json={"role": "admin"}, headers=manager)
    assert (await house.ask("PATCH", "/v1/operators/ana", json={"role": "reviewer"}, headers=manager))[
        "role"
    ] == "reviewer"
    await house.ask("PATCH", "/v1/operators/chefe", 404, json={"disabled": True}, headers=manager)
    await house.ask("DELETE", f"/v1/keys/{made['id']}", headers=manager)
    await house.ask("GET", "/v1/visits", 401, headers=bearer(made["key"]))
    log = await house.ask("GET", "/v1/audit?kind=key.changed&kind=operator.changed&limit=200")
    assert made["key"].split("_")[2] not in str(log) and PASSWORD not in str(log)


async def test_ones_own_password_needs_the_one_before_and_ends_all_sessions(house: House) -> None:
    await make_operator(house.service, "ana", "viewer", "bosque")
    await make_operator(house.service, "rui", "viewer", "bosque")
    headers = await logged_in(house.client, "ana")
    new = "pão na chapa com café"

    async def change(login: str, **said: str) -> int:
        path = f"/v1/operators/{login}/password"
        return (await house.client.put(path, json={"password": new, **said}, headers=headers)).status_code

    assert await change("ana") == 422
    assert await change("ana", current="not the one") == 422
    assert await change("rui", current=PASSWORD) == 404  # a viewer looks after nobody
    assert await change("ana", current=PASSWORD) == 204
    assert (await house.client.get("/v1/me")).status_code == 401
    house.client.cookies.clear()
    assert (await logged_in(house.client, "ana", new))["X-CSRF-Token"]
