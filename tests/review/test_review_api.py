"""The review of a visit over HTTP: who may see, hear and judge it, and what they get."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from bridge.http.access import COOKIE, digest, new_key, now, whole_key
from bridge.http.application import Behind, application
from bridge.http.bounds import Bounds
from bridge.http.description import Methods
from bridge.live import Hub
from bridge.review.timeline import timeline
from bridge.settings import build
from storage.catalogue import KeyRole
from storage.sqlite import SqliteStorage
from tests.review.test_sound import noise, read_wav, written
from tests.review.visits import HOSTILE, START, STORY, TENANT, VISIT, Told, turn
from visits.audit import stamp

ELSEWHERE = str(uuid4())
RUNNING = str(uuid4())
HOST = "http://porteiro"
READING = ("timeline", "picture", "peaks?leg=visitor", "sound", "review")


class House:
    """A service without its telephones."""

    def __init__(self, data: Path, storage: SqliteStorage) -> None:
        tenants = {
            name: {"directory": "data/apartamentos.json", "dialer": {"kind": "simulated"}}
            for name in (TENANT, "outro")
        }
        ports = {"visitor_port": 0, "resident_port": 0, "listen": ["127.0.0.1"]}
        self.settings = build({"service": {"data_dir": str(data), **ports}, "tenants": tenants}, environ={})
        self.tenancy = SimpleNamespace(settings=self.settings, current=self.settings.tenants)
        self.storage = storage
        self.catalogue = cast(Any, storage).catalogue
        self.hub = Hub(lambda *_: False)
        self.recordings = data / "recordings"
        api = application(cast(Behind, self), None)
        self.app = Bounds(api, api.state.access, Methods(api))

    async def tell(self, tenant: str, visit: str, told: list[Told]) -> None:
        for seconds, kind, data in told:
            at = stamp(START + timedelta(seconds=seconds))
            await self.storage.append(tenant, visit, at, kind, data)

    async def key(
        self, role: KeyRole, tenant: str | None = TENANT, scopes: list[str] | None = None
    ) -> dict[str, str]:
        """The headers of whoever has a new key."""
        id, secret = new_key()
        await self.catalogue.add_key(
            id,
            digest(secret),
            name="test",
            role=role,
            scopes=scopes,
            tenant=tenant,
            expires_at=None,
            by="t",
            at=now(),
        )
        return {"authorization": f"Bearer {whole_key(id, secret)}"}

    async def operator(self, role: KeyRole, tenant: str | None = TENANT) -> dict[str, str]:
        """The headers of an operator's browser; their token is `token`."""
        login = f"{role}-{tenant or 'all'}"
        about = {"name": "Ana <b>Souza</b>", "password_hash": "x", "role": role, "tenant": tenant}
        await self.catalogue.add_operator(login, **about, by="t", at=now())
        await self.catalogue.begin_session(
            digest(login), login, "token", at=now(), expires_at="2999-01-01T00:00:00.000000+00:00"
        )
        return {"cookie": f"{COOKIE}={login}", "origin": HOST}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with await SqliteStorage.open(tmp_path / "porteiro.db") as storage:
        one = House(tmp_path, storage)
        await one.tell(TENANT, VISIT, STORY)
        await one.tell("outro", ELSEWHERE, [(0, "visit.started", {})])
        await one.tell(TENANT, RUNNING, STORY[:6])
        written(one.recordings / TENANT / "2026-11-21" / f"{VISIT}-visitor.wav", noise(2, 1))
        yield one


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=house.app)
    async with httpx2.AsyncClient(transport=transport, base_url=HOST) as client:
        yield client


def path(what: str, visit: str = VISIT) -> str:
    return f"/v1/visits/{visit}/{what}"


# ---- who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", READING)
async def test_only_those_whose_visit_it_is_see_and_hear_it(
    house: House, client: httpx2.AsyncClient, what: str
) -> None:
    assert (await client.get(path(what))).status_code == 401
    own, all_of_them = await house.key("viewer"), await house.key("viewer", None)
    assert (await client.get(path(what), headers=own)).status_code == 200
    assert (await client.get(path(what), headers=all_of_them)).status_code == 200
    other, none = await house.key("admin", "outro"), await house.key("viewer", None, ["events:read"])
    hidden, missing = (
        await client.get(path(what), headers=other),
        await client.get(path(what, str(uuid4())), headers=other),
    )
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json() == missing.json()
    for headers in (none, await house.key("pbx", None)):
        assert (await client.get(path(what), headers=headers)).status_code == 403
    assert (await client.get(path(what, "x"), headers=own)).status_code == 422


async def test_a_viewer_judges_nothing_and_nobody_judges_anothers_visit(
    house: House, client: httpx2.AsyncClient
) -> None:
    said = {"verdict": "right", "note": "ok"}
    for role, tenant, scopes, status in [
        ("viewer", TENANT, None, 403),
        ("pbx", None, None, 403),
        ("admin", "outro", None, 404),
        ("reviewer", TENANT, ["visits:read"], 403),
        ("viewer", TENANT, ["visits:review"], 403),
    ]:
        headers = await house.key(cast(KeyRole, role), tenant, scopes)
        assert (await client.post(path("review"), json=said, headers=headers)).status_code == status
    assert (await client.post(path("review"), json=said)).status_code == 401
    assert not [one async for one in house.storage.audit(kinds=["visit.reviewed"])]


# ---- what they get -----------------------------------------------------------------------------------


async def test_a_time_line_is_the_one_of_the_records(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.key("viewer")
    told = (await client.get(path("timeline"), headers=headers)).json()
    view = await house.storage.visit(VISIT)
    assert view is not None
    read = timeline(view, [one async for one in house.storage.audit(visit=VISIT)])
    assert [rule["name"] for rule in told["rules"]] == [rule.name for rule in read.rules]
    assert [span["text"] for span in told["spans"]] == [span.text for span in read.spans]
    assert told["calls"][0]["result"] == {"status": "found", "apartment": "201"}
    assert set(told) == set(type(read).__dataclass_fields__)
    running = (await client.get(path("timeline", RUNNING), headers=headers)).json()
    assert running["running"] is True and running["end_ms"] is None


async def test_the_description_tells_what_a_time_line_is(house: House, client: httpx2.AsyncClient) -> None:
    described = (await client.get("/v1/openapi.json")).json()
    answer = described["paths"]["/v1/visits/{visit}/timeline"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Timeline"}
    assert {"lanes", "spans", "rules", "gate"} <= set(
        described["components"]["schemas"]["Timeline"]["properties"]
    )
    assert "audio/wav" in described["paths"]["/v1/visits/{visit}/sound"]["get"]["responses"]["206"]["content"]


async def test_a_picture_opens_by_itself_and_runs_nothing(house: House, client: httpx2.AsyncClient) -> None:
    answer = await client.get(path("picture?zoom=2&language=en"), headers=await house.key("viewer"))
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "Visit of Júlia" in answer.text and "<style>" in answer.text
    refused = await client.get(path("picture?zoom=3"), headers=await house.key("viewer"))
    assert refused.status_code == 422


async def test_peaks_are_as_wide_as_asked_for(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.key("viewer")
    told = (await client.get(path("peaks?leg=visitor&width=300"), headers=headers)).json()
    assert len(told["caller"]) == len(told["ours"]) == 300 and max(told["caller"]) == 255
    for query, status in [
        ("leg=resident-1", 404),
        ("leg=..", 404),
        ("", 422),
        ("leg=visitor&width=0", 422),
        ("leg=visitor&width=8001", 422),
    ]:
        assert (await client.get(path(f"peaks?{query}"), headers=headers)).status_code == status


async def test_what_is_played_is_logged_and_comes_in_parts(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.key("viewer")
    before = len([one async for one in house.storage.audit()])
    with capture_logs() as logs:
        answer = await client.get(path("sound"), headers=headers)
    assert answer.headers["content-type"] == "audio/wav" and answer.headers["accept-ranges"] == "bytes"
    assert len(read_wav(answer.content)) == 16_000 + 8
    (line,) = [line for line in logs if line["event"] == "recording.played"]
    assert line["visit"] == VISIT and line["legs"] == ["visitor"] and line["by"].startswith("key:")
    assert len([one async for one in house.storage.audit()]) == before, "hearing is logged, not audited"
    part = await client.get(path("sound?leg=visitor"), headers={**headers, "range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, answer.content[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(answer.content)}"
    beyond = await client.get(path("sound"), headers={**headers, "range": "bytes=9999999-"})
    assert beyond.status_code == 416
    assert (await client.get(path("sound?leg=resident-1"), headers=headers)).status_code == 404
    assert (await client.get(path("sound", RUNNING), headers=headers)).status_code == 404


async def test_a_review_is_on_record_and_the_last_one_comes_first(
    house: House, client: httpx2.AsyncClient
) -> None:
    headers = await house.key("reviewer")
    for verdict, note in [("wrong", "O morador não disse sim"), ("right", " Ouvi de novo:\nele disse. ")]:
        answer = await client.post(path("review"), json={"verdict": verdict, "note": note}, headers=headers)
        assert answer.status_code == 201 and answer.json()["note"] == note.strip()
    told = (await client.get(path("review"), headers=headers)).json()["reviews"]
    assert [(one["verdict"], one["note"]) for one in told] == [
        ("right", "Ouvi de novo:\nele disse."),
        ("wrong", "O morador não disse sim"),
    ]
    assert all(one["by"].startswith("key:") and one["at"] for one in told)
    records = [one async for one in house.storage.audit(kinds=["visit.reviewed"])]
    assert [one.visit for one in records] == [VISIT, VISIT]
    assert await house.storage.verify() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"verdict": "maybe"},
        {"verdict": "right", "note": "a" * 2001},
        {"verdict": "right", "note": "\x1b[2J"},
        {"verdict": "right", "note": "\u202egnorw"},
        {"verdict": "right", "by": "somebody else"},
    ],
)
async def test_a_review_that_is_none_is_refused(
    house: House, client: httpx2.AsyncClient, body: dict[str, str]
) -> None:
    assert (
        await client.post(path("review"), json=body, headers=await house.key("reviewer"))
    ).status_code == 422


# ---- the page -----------------------------------------------------------------------------------


async def test_the_page_says_why_the_gate_opened(house: House, client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/console/visits/{VISIT}", headers=await house.operator("reviewer"))
    assert answer.status_code == 200
    for words in (
        "Por que o portão abriu",
        "Disse “Pode liberar.” 0,4 s depois do aviso",
        "Eu sou a Júlia",
        "lookup_apartment",
    ):
        assert words in answer.text
    assert "unsafe-inline" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=|<style", answer.text)
    english = await client.get(
        f"/console/visits/{VISIT}", headers={**await house.operator("viewer"), "accept-language": "en"}
    )
    assert "Why the gate opened" in english.text
    running = await client.get(
        f"/console/visits/{RUNNING}", headers={"cookie": f"{COOKIE}=reviewer-{TENANT}"}
    )
    assert "data-running" in running.text and "ainda está em andamento" in running.text


async def test_others_find_no_page(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.operator("admin", "outro")
    for where in (VISIT, str(uuid4()), "x", "...%2F..", f"{VISIT}/picture"):
        answer = await client.get(f"/console/visits/{where}", headers=headers)
        assert answer.status_code == 404, where
    nobody = await client.get(f"/console/visits/{VISIT}")
    assert nobody.status_code == 303 and nobody.headers["location"].startswith("/console/login")


async def test_a_reviewer_judges_on_the_page(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.operator("reviewer")
    where = f"/console/visits/{VISIT}"
    form = {"verdict": "wrong", "note": "linha um\r\n<b>dois</b>"}
    assert (await client.post(f"{where}/review", data=form, headers=headers)).status_code == 403, (
        "without a token"
    )
    form["csrf_token"] = "token"
    elsewhere = {**headers, "origin": "http://elsewhere"}
    assert (await client.post(f"{where}/review", data=form, headers=elsewhere)).status_code == 403
    empty = await client.post(
        f"{where}/review", data={"csrf_token": "token", "note": "só isto"}, headers=headers
    )
    assert empty.status_code == 422 and "Escolha certo ou errado" in empty.text and "só isto" in empty.text
    done = await client.post(f"{where}/review", data=form, headers=headers)
    assert (done.status_code, done.headers["location"]) == (303, f"{where}?done=reviewed")
    page = (await client.get(f"{where}?done=reviewed", headers=headers)).text
    assert "Avaliação registrada." in page and "linha um<br>&lt;b&gt;dois&lt;/b&gt;" in page
    assert "Ana &lt;b&gt;Souza&lt;/b&gt; · <time" in page and f"reviewer-{TENANT}" not in page


async def test_a_viewer_finds_no_form_and_none_is_taken(house: House, client: httpx2.AsyncClient) -> None:
    headers = await house.operator("viewer")
    page = (await client.get(f"/console/visits/{VISIT}", headers=headers)).text
    assert 'name="verdict"' not in page and "Só quem tem perfil de revisor" in page
    form = {"verdict": "right", "csrf_token": "token"}
    answer = await client.post(f"/console/visits/{VISIT}/review", data=form, headers=headers)
    assert answer.status_code == 403


async def test_a_callers_words_do_nothing_on_the_page(house: House, client: httpx2.AsyncClient) -> None:
    visit = str(uuid4())
    told = [(0.0, "visit.started", {}), STORY[1], turn("visitor", "caller", HOSTILE, 1, 2)]
    hostile: Told = (
        0.0,
        "tool.called",
        {"leg": "visitor", "call": "1", "name": HOSTILE, "arguments": {HOSTILE: HOSTILE}},
    )
    ended: Told = (
        0.0,
        "visit.ended",
        {"outcome": "abandoned", "visitor_name": HOSTILE, "intent": HOSTILE, "apartment": HOSTILE},
    )
    await house.tell(TENANT, visit, [*told, hostile, ended])
    answer = await client.get(f"/console/visits/{visit}", headers=await house.operator("reviewer"))
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text and "\x1b" not in answer.text and "\u202e" not in answer.text


async def test_a_recording_that_is_gone_is_missed_on_the_page(
    house: House, client: httpx2.AsyncClient
) -> None:
    (house.recordings / TENANT / "2026-11-21" / f"{VISIT}-visitor.wav").unlink()
    page = (await client.get(f"/console/visits/{VISIT}", headers=await house.operator("viewer"))).text
    assert "não está mais no lugar: Visitante" in page and "não foi gravada: Morador" in page
    assert "Não há gravação para ouvir" in page
