"""Every page, for everybody who may see it and for those who may not; and with hostile names everywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.routing import Mount, Route
from structlog.testing import capture_logs

from bridge.http.application import application
from bridge.masking import MASK
from tests.console.furnished import PASSWORD, Furnished, furnished, one_visit
from tests.console.markup import problems_of
from visits.audit import stamp

pytestmark = pytest.mark.timeout(300)

EVERYBODY = ("ana", "gil", "rui", "vera")
PAGES = {
    "/": EVERYBODY,
    "/visits": EVERYBODY,
    "/visits?outcome=authorized&tenant=jardim&since=2026-01-01&decision=authorized&review=none": EVERYBODY,
    "/visits?resident=nobody+is+called+so": EVERYBODY,
    "/charts": EVERYBODY,
    "/charts?days=7&tenant=jardim": EVERYBODY,
    "/audit": EVERYBODY,
    "/audit?kind=turn&tool=lookup_apartment&visit=x&until=2030-01-01": EVERYBODY,
    "/tenants": EVERYBODY,
    "/tenants/jardim": EVERYBODY,
    "/tenants/jardim/toml": EVERYBODY,
    "/tenants/jardim/history": EVERYBODY,
    "/tenants/jardim/history/1": EVERYBODY,
    "/tenants/jardim/directory": EVERYBODY,
    "/tenants/jardim/directory?q=ana": EVERYBODY,
    "/tenants/jardim/directory/apartments/101": EVERYBODY,
    "/tenants/jardim/standing": EVERYBODY,
    "/tenants/jardim/directory/import": ("ana", "gil"),
    "/tenants/jardim/directory/new": ("ana", "gil"),
    "/tenants/new": ("ana",),
    "/operators": ("ana", "gil"),
    "/erasure": ("ana", "gil"),
    "/erasure?tenant=jardim&name=Leticia": ("ana", "gil"),
    "/keys": ("ana", "gil"),
    "/account": EVERYBODY,
    "/test-call": ("ana", "gil", "rui"),
}

VISIT = re.compile(r"/console/visits/([0-9a-f-]{36})")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Furnished]:
    async with furnished(tmp_path, visits=12) as there:
        yield there


async def in_force(client: httpx2.AsyncClient, tenant: str) -> None:
    """Wait until a tenant's settings are in force."""
    async with asyncio.timeout(20):
        while (await client.get(f"/console/tenants/{tenant}/toml")).text.count("badge good") == 0:
            await asyncio.sleep(0.1)


async def a_tenant_of_the_database(house: Furnished, client: httpx2.AsyncClient, name: str = "Lago") -> None:
    made = await house.send(client, "/console/tenants/new", id="lago", name=name, provider="openai")
    assert made.status_code == 303, problems_shown(made.text)
    await in_force(client, "lago")


def problems_shown(page: str) -> list[str]:
    """What a page says is wrong."""
    return re.findall(r'class="(?:error"[^>]*|notice bad"[^>]*)>(.*?)</(?:span|div)', page, re.DOTALL)


# ---- Who sees what -------------------------------------------------------------------------------------


async def test_each_page_is_shown_to_whoever_may_see_it_and_is_valid(house: Furnished) -> None:
    for login in EVERYBODY:
        async with house.as_(login, "en" if login == "rui" else "pt-BR") as client:
            menu = (await client.get("/console/account")).text
            for path, who in PAGES.items():
                page = await client.get(f"/console{path}")
                assert page.status_code == (200 if login in who else 403), (login, path)
                assert problems_of(page.text) == [], (login, path)
                policy = page.headers["content-security-policy"]
                assert "script-src 'self';" in policy and "unsafe" not in policy
                assert page.headers["cache-control"] == "no-store"
                # What somebody may not see is not offered either.
                assert ("/console/operators" in menu) == (login in PAGES["/operators"])


async def test_who_is_not_known_is_asked_who_they_are_and_led_back(house: Furnished) -> None:
    async with house.as_(None) as client:
        for path in PAGES:
            answer = await client.get(f"/console{path}")
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/console/login"), path
        asked = await client.get("/console/visits?tenant=jardim", follow_redirects=True)
        (wanted,) = set(re.findall(r'name="next" value="(/console/visits[^"]*)"', asked.text))
        said = {"name": "vera", "password": PASSWORD, "next": wanted.replace("&amp;", "&")}
        answer = await client.post("/console/login", data=said, headers={"Origin": house.url})
        assert answer.headers["location"] == "/console/visits?tenant=jardim"


async def test_no_address_of_the_console_answers_whoever_is_not_known(house: Furnished) -> None:
    """All there are, as the program has them: a new one can't be forgotten."""
    pages = next(each for each in application(house.service, None).routes if isinstance(each, Mount))
    addresses = [
        (method, re.sub(r"{[^}]*}", "jardim", f"/console{route.path}"))
        for route in pages.routes
        if isinstance(route, Route) and not route.path.startswith(("/static", "/login", "/language"))
        for method in sorted(route.methods or ())
    ]
    assert len(addresses) > 50
    async with house.as_(None) as client:
        for cookie in ("", "porteiro_session=nobody"):
            for method, address in addresses:
                answer = await client.request(
                    method, address, headers={"Cookie": cookie, "Origin": house.url}
                )
                to_log_in = answer.headers.get("location", "").startswith("/console/login")
                assert answer.status_code in (401, 403, 404) or to_log_in, (
                    method,
                    address,
                    answer.status_code,
                )
                assert "Jardim" not in answer.text, (method, address)


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/", "/console/\\evil", "/v1/me"]
)
async def test_a_log_in_leads_nowhere_else(house: Furnished, elsewhere: str) -> None:
    async with house.as_(None) as client:
        said = {"name": "vera", "password": PASSWORD, "next": elsewhere}
        answer = await client.post("/console/login", data=said, headers={"Origin": house.url})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


async def test_another_tenants_things_are_not_there(house: Furnished) -> None:
    async with house.as_("ana") as client:
        theirs = re.findall(
            r"/console/visits/([0-9a-f-]{36})", (await client.get("/console/visits?tenant=ipe")).text
        )
    async with house.as_("gil") as client:
        for path in ("", "/toml", "/history", "/history/1", "/directory", "/standing", "/directory/import"):
            assert (await client.get(f"/console/tenants/ipe{path}")).status_code == 404, path
        for path in ("/visits?tenant=ipe", "/audit?tenant=ipe", "/charts?tenant=ipe", "/audit?tenant=-"):
            assert (await client.get(f"/console{path}")).status_code == 404, path
        for path in PAGES:
            shown = (await client.get(f"/console{path}")).text
            assert "Ipê" not in shown and not [one for one in theirs if one in shown], path
        assert (await client.get(f"/console/visits/{theirs[0]}")).status_code == 404


async def test_what_is_not_allowed_is_not_accepted(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
    writes = (
        "/tenants/new",
        "/tenants/jardim",
        "/tenants/jardim/toml",
        "/tenants/jardim/history/1/restore",
        "/tenants/jardim/remove",
        "/tenants/jardim/directory/apartments",
        "/tenants/jardim/directory/remove",
        "/tenants/jardim/standing",
        "/tenants/jardim/standing/remove",
        "/operators",
        "/operators/gil",
        "/keys",
        "/keys/abc/revoke",
    )
    for login in ("vera", "rui"):
        async with house.as_(login) as client:
            for path in writes:
                answer = await house.send(client, f"/console{path}", version="1", id="new")
                assert answer.status_code == 403, (login, path)
            answer = await house.send(client, "/console/live/0/hang-up")
            assert answer.status_code == (403 if login == "vera" else 404)


@pytest.mark.parametrize(
    "path",
    [
        "/tenants/jardim/history/" + "9" * 5000,
        "/tenants/jardim/history/x",
        "/tenants/jar%00dim",
        "/tenants/jardim/directory/apartments/%00",
        "/visits/%2e%2e%2f",
        "/visits.exe",
        "/live/" + "x" * 300,
    ],
)
async def test_what_names_nothing_is_not_there(house: Furnished, path: str) -> None:
    async with house.as_("ana") as client:
        answer = await client.get(f"/console{path}")
        assert answer.status_code == 404 and problems_of(answer.text) == []


async def test_the_console_is_found_without_its_whole_address(house: Furnished) -> None:
    async with house.as_(None) as client:
        for path in ("/", "/console"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (307, "/console/")


async def test_filters_that_nobody_could_have_typed_are_none(house: Furnished) -> None:
    async with house.as_("ana") as client:
        for name in ("resident", "apartment", "tool", "since", "until", "outcome", "review", "provider"):
            for value in ("%00", "%ED%A0%80", "%F0%9F%9A%AA", "9" * 400, "-1", "'--"):
                answer = await client.get(f"/console/visits?{name}={value}")
                assert answer.status_code == 200, (name, value)
        assert (await client.get("/console/visits?after=xyz")).status_code < 500


async def test_a_form_without_the_sessions_token_or_from_elsewhere_does_nothing(house: Furnished) -> None:
    async with house.as_("ana") as client:
        for path in ("/logout", "/keys", "/tenants/new", "/account"):
            bare = await client.post(f"/console{path}", data={"name": "x"}, headers={"Origin": house.url})
            assert bare.status_code == 403, path
            elsewhere = await client.post(
                f"/console{path}", data={}, headers={"Origin": "https://evil.example"}
            )
            assert elsewhere.status_code == 403, path
        assert (await client.get("/console/account")).status_code == 200  # nobody was logged out


# ---- The way in ----------------------------------------------------------------------------------------


async def test_without_operators_the_log_in_page_says_how_to_make_one(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with furnished(tmp_path, people=False) as house, house.as_(None) as client:
            page = await client.get("/console/login")
    (line,) = [line for line in logs if line["event"] == "operator.none"]
    assert "porteiro operator add" in line["command"]
    assert "porteiro operator add" in page.text and 'name="password"' not in page.text
    assert problems_of(page.text) == []


async def test_a_wrong_password_says_no_more_than_that(house: Furnished) -> None:
    async with house.as_(None) as client:
        said = []
        for name in ("ana", "nobody"):
            answer = await client.post(
                "/console/login", data={"name": name, "password": "wrong"}, headers={"Origin": house.url}
            )
            assert answer.status_code == 401 and problems_of(answer.text) == []
            said.append(answer.text.replace(f'value="{name}"', ""))
        assert said[0] == said[1] and "não conferem" in said[0]


async def test_logging_out_ends_the_session(house: Furnished) -> None:
    async with house.as_("vera") as client:
        answer = await house.send(client, "/console/logout")
        assert answer.headers["location"] == "/console/login?done=out"
        page = await client.get(answer.headers["location"])
        assert "Você saiu." in page.text and problems_of(page.text) == []
        assert (await client.get("/console/visits")).status_code == 303


async def test_the_language_is_kept(house: Furnished) -> None:
    async with house.as_("vera") as client:
        assert '<html lang="pt-BR">' in (await client.get("/console/visits")).text
        said = {"to": "en", "next": "/console/visits"}
        answer = await client.post("/console/language", data=said, headers={"Origin": house.url})
        assert answer.headers["location"] == "/console/visits"
        assert '<html lang="en">' in (await client.get("/console/visits")).text


async def test_ones_own_password_needs_the_current_one(house: Furnished) -> None:
    new = "another good password"
    async with house.as_("vera") as client:
        send = house.send
        wrong = await send(client, "/console/account", current="guess", password=new, again=new)
        assert wrong.status_code == 422 and problems_of(wrong.text) == []
        differ = await send(client, "/console/account", current=PASSWORD, password=new, again=new + "x")
        assert differ.status_code == 422
        right = await send(client, "/console/account", current=PASSWORD, password=new, again=new)
        assert right.headers["location"].startswith("/console/login")
        assert (await client.get("/console/")).status_code == 303


# ---- Tenants -------------------------------------------------------------------------------------------


async def test_a_mistake_stands_beside_its_field_and_the_old_version_stays(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        said: dict[str, Any] = {"version": "1", "name": "Lago Azul", "limits.ring_s": "muito"}
        wrong = await house.send(client, "/console/tenants/lago", **said)
        assert wrong.status_code == 422 and problems_of(wrong.text) == []
        assert "um número a partir de 5 até 120" in wrong.text
        assert 'value="Lago Azul"' in wrong.text and 'value="muito"' in wrong.text
        assert "Lago Azul" not in (await client.get("/console/tenants/lago/toml")).text
        right = await house.send(client, "/console/tenants/lago", **said | {"limits.ring_s": "12,5"})
        assert right.status_code == 303
        text = (await client.get("/console/tenants/lago/toml")).text
        assert "ring_s = 12.5" in text and "Lago Azul" in text
        # Who has seen the version before that changes nothing.
        late = await house.send(client, "/console/tenants/lago", **said | {"limits.ring_s": "20"})
        assert late.status_code == 412 and "Outra pessoa" in late.text


async def test_a_version_can_be_looked_at_compared_and_restored(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        await house.send(client, "/console/tenants/lago", version="1", greeting="Bom dia!")
        page = (await client.get("/console/tenants/lago/history/2")).text
        assert problems_of(page) == []
        assert re.search(r'class="good">.*\+ greeting = &#34;Bom dia!&#34;', page)
        restored = await house.send(client, "/console/tenants/lago/history/1/restore", version="2")
        assert restored.status_code == 303
        assert "greeting" not in (await client.get("/console/tenants/lago/toml")).text.split("<textarea")[1]
        page = (await client.get("/console/tenants/lago")).text
        assert 'name="goodbyes.denied"' in page and 'name="goodbye"' not in page
        assert 'history/3"' in (await client.get("/console/tenants/lago/history")).text


async def test_who_only_reads_sees_no_secret_of_an_address(house: Furnished) -> None:
    async with house.as_("ana") as client:
        said = {"id": "lago", "gate.kind": "http", "gate.http.url": "http://10.0.0.9/?password=hunter2secret"}
        assert (
            await house.send(client, "/console/tenants/new", provider="openai", **said)
        ).status_code == 303
        await in_force(client, "lago")
        reads = {"login": "ivo", "role": "viewer", "tenant": "", "password": PASSWORD}
        assert (await house.send(client, "/console/operators", **reads)).status_code == 303
    async with house.as_("ivo") as client:
        for path in ("", "/toml", "/history", "/history/1"):
            page = await client.get(f"/console/tenants/lago{path}")
            assert page.status_code == 200 and "hunter2secret" not in page.text, path


async def test_settings_as_text_are_checked_like_any(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        path = "/console/tenants/lago/toml"
        for toml in (
            "name = ",
            'nome = "Lago"',
            'name = "x"\n[limits]\nring_s = 1',
            'directory = "/etc/passwd"',
        ):
            answer = await house.send(client, path, version="1", toml=toml)
            assert answer.status_code == 422 and problems_of(answer.text) == [], toml
        good = 'name = "Lago"\nprovider = "openai"\n\n[limits]\nring_s = 30'
        assert (await house.send(client, path, version="1", toml=good)).status_code == 303


async def test_a_tenant_of_a_file_is_only_shown(house: Furnished) -> None:
    async with house.as_("ana") as client:
        page = (await client.get("/console/tenants/jardim")).text
        assert "só pode ser visto" in page and "Salvar" not in page
        for path in ("", "/toml", "/directory/apartments", "/remove"):
            said = {"version": "1", "name": "x", "toml": "", "apartment_number": "1"}
            answer = await house.send(client, f"/console/tenants/jardim{path}", **said)
            assert answer.status_code in (409, 422), path


async def test_a_houses_manager_changes_what_the_house_decides(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        new = {"login": "lia", "name": "Lia", "role": "manager", "tenant": "lago", "password": PASSWORD}
        assert (await house.send(client, "/console/operators", **new)).status_code == 303
    async with house.as_("lia") as client:
        page = (await client.get("/console/tenants/lago")).text
        assert 'name="greeting"' in page and 'name="gate.kind"' not in page and 'name="base_url"' not in page
        said = {"version": "1", "greeting": "Olá!", "base_url": "https://evil.example", "provider": "gemini"}
        assert (await house.send(client, "/console/tenants/lago", **said)).status_code == 303
        text = 'greeting = "Oi"\nbase_url = "https://evil.example"'
        assert (
            await house.send(client, "/console/tenants/lago/toml", version="2", toml=text)
        ).status_code == 422
    async with house.as_("ana") as client:
        text = (await client.get("/console/tenants/lago/toml")).text
        assert "Olá!" in text and "evil" not in text and "openai" in text


async def test_a_person_is_erased_by_whoever_may_and_nobody_else(house: Furnished) -> None:
    """Found by name, shown, confirmed, on record; the audit log still verifies."""
    storage = house.service.storage
    at = datetime.now(UTC)
    hers, other = [
        await one_visit(storage, "jardim", at, Random(seed), visitor=name, resident="Zélia Prado")
        for seed, name in ((71, "Quitéria Ramalho"), (72, "Pedro Bial"))
    ]
    async with house.as_("rui") as client:
        page = (await client.get("/console/visits")).text
        assert "/console/erasure" not in page
        said = {"tenant": "jardim", "visit": hers, "sure": "true"}
        assert (await house.send(client, "/console/erasure", **said)).status_code == 403
    async with house.as_("zoe") as client:  # of another condominium
        assert (await house.send(client, "/console/erasure", **said)).status_code == 404
        assert (await client.get(f"/console/erasure?visit={hers}")).status_code == 404
        assert (await client.get("/console/erasure?tenant=jardim&name=Quiteria")).status_code == 404
    async with house.as_("gil") as client:
        assert "Informe pelo menos" in (await client.get("/console/erasure?number=12")).text
        assert "Ninguém encontrado" in (await client.get("/console/erasure?name=Ninguém+Aqui")).text
        page = (await client.get("/console/erasure?name=quiteria+ramalho")).text
        assert hers in page and other not in page and "1 visita encontrada" in page
        for without in ("sure", "visit"):
            wrong = {name: value for name, value in said.items() if name != without}
            assert (await house.send(client, "/console/erasure", **wrong)).status_code == 422
        assert "Quitéria" in (await client.get(f"/console/visits/{hers}")).text
        done = await house.send(client, "/console/erasure", **said, reason="pedido 12/2026")
        assert (done.status_code, done.headers["location"]) == (303, "/console/erasure?done=erased")
        assert "Dados apagados" in (await client.get(done.headers["location"])).text
        assert "Quitéria" not in (await client.get(f"/console/visits/{hers}")).text
        assert "Pedro Bial" in (await client.get(f"/console/visits/{other}")).text
    records = [one async for one in storage.audit(tenant="jardim") if one.kind == "person.erased"]
    assert [(one.data["by"], one.data["reason"]) for one in records] == [("operator:gil", "pedido 12/2026")]
    assert await storage.verify() == []


async def test_a_directory_comes_in_without_scripts(house: Furnished) -> None:
    """Looked over first by one button, imported by the other; wrong ones and others' change nothing."""
    path = "/console/tenants/lago/directory/import"
    good = ("moradores ç.csv", "apartamento;morador;ramal\n101;Ana Lima;101\n".encode("cp1252"), "text/csv")
    bad = ("moradores.csv", b"apartamento;morador;ramal\n101;Ana Lima;\n", "text/csv")

    async def send(client: httpx2.AsyncClient, file: Any, **said: str) -> httpx2.Response:
        page = (await client.get(path)).text
        (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', page))
        (version,) = re.findall(r'name="version" value="(\d+)"', page)
        given = {"csrf_token": token, "version": version, **said}
        return await client.post(path, data=given, files={"file": file}, headers={"Origin": house.url})

    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        shown = await send(client, good)
        assert shown.status_code == 200 and "101" in shown.text and not problems_of(shown.text)
        assert "Ana Lima" not in (await client.get("/console/tenants/lago/directory")).text
        assert "linha" in (await send(client, bad)).text
        assert (await send(client, bad, **{"import": "true"})).status_code == 422
        assert (await send(client, good, csrf_token="another")).status_code == 403
        done = await send(client, good, **{"import": "true"})
        assert done.status_code == 303
        assert "Ana Lima" in (await client.get("/console/tenants/lago/directory")).text
        late = await send(client, good, **{"import": "true", "version": "0"})
        assert late.status_code == 422 and "Outra pessoa" in late.text


async def test_people_are_called_by_their_names_and_records_speak_the_page_s_language(
    house: Furnished,
) -> None:
    visit = str(uuid4())
    at = stamp(datetime.now(UTC))

    async def write(kind: str, **data: Any) -> None:
        await house.service.storage.append("jardim", visit, at, kind, data)

    await write("visit.started", provider="openai", test=True, tested_by="operator:ana")
    await write("leg.connected", leg="visitor", role="visitor", provider="openai")
    await write("visit.hung_up", by="operator:ana")
    await write("visit.ended", outcome="failed", reason="hung_up_by_person", apartment="101")
    async with house.as_("ana") as client:
        page = (await client.get(f"/console/visits/{visit}")).text
        assert "Chamada de teste de Ana" in page and 'class="badge warn"' in page
        log = (await client.get(f"/console/audit?visit={visit}")).text
        assert "por quê: desligada por uma pessoa" in log and "ligação: visitante" in log
        assert "resultado: Falha" in log and "teste: sim" in log and "apartamento: 101" in log
        assert "operator:ana" not in re.sub(r"<pre.*?</pre>", "", log + page, flags=re.DOTALL)
        english = {"Accept-Language": "en"}
        log = (await client.get(f"/console/audit?visit={visit}", headers=english)).text
        assert "outcome: Failed" in log and "test: yes" in log
        await a_tenant_of_the_database(house, client)
        history = (await client.get("/console/tenants/lago/history")).text
        assert "operator:ana" not in history and ">Ana" in history


async def test_what_is_shown_masked_is_never_saved_masked(house: Furnished) -> None:
    """A manager of all condominiums sees no secret in a URL of a house's rules, and loses none."""
    rules = "Cadastro: http://ana:s3gr3d0@cadastro.example/x"
    shown = rules.replace("ana:s3gr3d0", MASK)
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        await house.send(client, "/console/tenants/lago", version="1", prompt_extra=rules)
        new = {"login": "mel", "name": "Mel", "role": "manager", "tenant": "", "password": PASSWORD}
        assert (await house.send(client, "/console/operators", **new)).status_code == 303
    async with house.as_("mel") as client:
        page = (await client.get("/console/tenants/lago")).text
        assert shown in page and "s3gr3d0" not in page
        said = {"version": "2", "prompt_extra": shown, "greeting": "Olá!"}
        assert (await house.send(client, "/console/tenants/lago", **said)).status_code == 303
        said = {"version": "3", "prompt_extra": f"{shown} e mais", "greeting": "Olá!"}
        refused = await house.send(client, "/console/tenants/lago", **said)
        assert refused.status_code == 422 and "s3gr3d0" not in refused.text
        assert any(MASK in one for one in problems_shown(refused.text))
    async with house.as_("ana") as client:
        text = (await client.get("/console/tenants/lago/toml")).text
        assert rules in unescape(text) and "Olá!" in text
    async with house.as_("mel") as client:
        said = {"version": "3", "prompt_extra": "Outras regras."}
        assert (await house.send(client, "/console/tenants/lago", **said)).status_code == 303
    async with house.as_("ana") as client:
        assert "s3gr3d0" not in (await client.get("/console/tenants/lago/toml")).text


# ---- Directories ---------------------------------------------------------------------------------------


async def test_an_apartment_is_put_in_changed_and_removed(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        root = "/console/tenants/lago/directory"
        said = {
            "apartment_number": "102 bloco B",
            "dial": "sip:102@pbx\n1003",
            "resident.0.name": "Íris Conceição",
            "resident.0.quiet": "22:00-07:00",
            "resident.1.name": "Roberto Nunes",
            "resident.1.dial": "1004\n1005",
            "resident.1.do_not_call": "true",
            "standing.0.name": "Marlene Dias",
            "standing.0.days": "tue",
            "standing.0.hours": "08:00-12:00",
        }
        wrong = await house.send(client, f"{root}/apartments", **said | {"resident.0.quiet": "sempre"})
        assert wrong.status_code == 422 and problems_of(wrong.text) == []
        assert 'value="sempre"' in wrong.text
        assert (await house.send(client, f"{root}/apartments", **said)).status_code == 303
        page = (await client.get(f"{root}/apartments/102 bloco B")).text
        assert problems_of(page) == []
        assert "1004\n1005" in page and 'value="22:00-07:00"' in page and page.count(" checked") == 2
        standing = (await client.get("/console/tenants/lago/standing")).text
        assert "Marlene Dias" in standing and "ter" in standing and problems_of(standing) == []
        found = await client.get(f"{root}?q=iris")
        assert "102 bloco B" in found.text
        removed = await house.send(client, f"{root}/remove", label="102 bloco B", version="1")
        assert removed.status_code == 303
        assert "102 bloco B" not in (await client.get(root)).text


async def test_somebody_is_expected_and_no_longer(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        entry = {"apartment_number": "7", "dial": "7", "resident.0.name": "Ana Souza"}
        await house.send(client, "/console/tenants/lago/directory/apartments", **entry)
        path = "/console/tenants/lago/standing"
        said = {"apartment": "7", "name": "Correios", "until": "2030-12-31", "call_resident": "true"}
        assert (await house.send(client, path, **said | {"apartment": "99"})).status_code in (404, 422)
        assert (await house.send(client, path, **said | {"hours": "nunca"})).status_code == 422
        assert (await house.send(client, path, **said)).status_code == 303
        page = (await client.get(path)).text
        assert "Correios" in page and "31/12/2030" in page
        (id_,) = re.findall(r'name="id" value="([^"]+)"', page)
        assert (await house.send(client, f"{path}/remove", id=id_)).status_code == 303
        assert "Correios" not in (await client.get(path)).text


async def test_an_import_is_looked_over_before_it_is_done(house: Furnished) -> None:
    async with house.as_("ana") as client:
        await a_tenant_of_the_database(house, client)
        token = re.findall(
            r'data-token="([^"]+)"', (await client.get("/console/tenants/lago/directory/import")).text
        )
        headers = {"X-CSRF-Token": token[0], "Origin": house.url, "Content-Type": "application/octet-stream"}
        path = "/console/tenants/lago/directory/import?name=moradores.csv"
        bad = b"apartamento;morador;telefone\n201;Ana Souza;1001\n202;;1002\n"
        report = await client.post(path, content=bad, headers=headers)
        assert "linha 3" in report.text and "data-confirm-import" not in report.text
        good = b"apartamento;morador;telefone\n201;Ana Souza;1001\n202;Rui Lima;1002\n"
        report = await client.post(path, content=good, headers=headers)
        assert problems_of(report.text) == [] and "2 novos" in report.text
        assert "201" not in (await client.get("/console/tenants/lago/directory")).text  # nothing yet
        (version,) = re.findall(r'data-confirm-import="(\d+)"', report.text)
        done = await client.post(f"{path}&confirm={version}", content=good, headers=headers)
        assert done.status_code == 303
        assert "Rui Lima" in (await client.get("/console/tenants/lago/directory")).text


# ---- Keys ----------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_revoked(house: Furnished) -> None:
    async with house.as_("ana") as client:
        made = await house.send(client, "/console/keys", name="Central", role="viewer", tenant="jardim")
        (key,) = re.findall(r"porteiro_[0-9a-z]+_[0-9a-zA-Z_-]+", made.text)
        assert problems_of(made.text) == []
        assert key.rpartition("_")[2] not in (await client.get("/console/keys")).text
        async with httpx2.AsyncClient(base_url=house.url) as program:
            bearer = {"Authorization": f"Bearer {key}"}
            assert (await program.get("/v1/me", headers=bearer)).json()["tenant"] == "jardim"
            # A key is for programs: the pages are for people.
            assert (await program.get("/console/visits", headers=bearer)).status_code == 403
            id_ = key.split("_")[1]
            assert (await house.send(client, f"/console/keys/{id_}/revoke")).status_code == 303
            assert (await program.get("/v1/me", headers=bearer)).status_code == 401


async def test_nobody_gives_more_than_they_have(house: Furnished) -> None:
    async with house.as_("gil") as client:
        new = {"login": "eva", "password": PASSWORD}
        for role, tenant in (("admin", "jardim"), ("viewer", "ipe"), ("viewer", "")):
            answer = await house.send(client, "/console/operators", role=role, tenant=tenant, **new)
            assert answer.status_code == 422 and problems_of(answer.text) == [], (role, tenant)
            answer = await house.send(client, "/console/keys", name="k", role=role, tenant=tenant)
            assert answer.status_code == 422, (role, tenant)
        for what in (
            {"what": "role", "role": "admin"},
            {"what": "password", "password": PASSWORD},
            {"what": "disable"},
        ):
            assert (await house.send(client, "/console/operators/ana", **what)).status_code in (403, 404)


# ---- Hostile names -------------------------------------------------------------------------------------

HOSTILE = """Ana "><img src=x onerror=alert(1)><script>alert(2)</script>'</textarea>{{7*7}}&lt;b&gt;"""


async def test_hostile_texts_are_texts_on_every_page(tmp_path: Path) -> None:
    texts = {"visitor": HOSTILE, "resident": HOSTILE, "said": HOSTILE}
    async with furnished(tmp_path, visits=6, texts=texts) as house, house.as_("ana") as client:
        send = house.send
        await a_tenant_of_the_database(house, client, HOSTILE)
        settings = {"greeting": HOSTILE, "prompt_extra": HOSTILE, "attendant.name": HOSTILE}
        await send(client, "/console/tenants/lago", version="1", **settings)
        entry = {"apartment_number": "7", "dial": HOSTILE[:60], "resident.0.name": HOSTILE}
        expected = {"standing.0.name": HOSTILE}
        put = await send(client, "/console/tenants/lago/directory/apartments", **entry, **expected)
        assert put.status_code == 303, problems_shown(put.text)
        person = {
            "login": "mal",
            "name": HOSTILE[:80],
            "role": "viewer",
            "tenant": "lago",
            "password": PASSWORD,
        }
        assert (await send(client, "/console/operators", **person)).status_code == 303
        made = await send(client, "/console/keys", name=HOSTILE[:80], role="viewer", tenant="lago")
        visit = VISIT.findall((await client.get("/console/visits")).text)[0]
        own = [path.replace("jardim", "lago").replace("101", "7") for path in PAGES]
        shown = 0
        pages = [
            *own,
            f"/visits/{visit}",
            "/tenants/lago/history/2",
            "/tenants/lago/directory?q=%22%3E%3Cimg",
        ]
        answers = [made, *[await client.get(f"/console{path}") for path in pages]]
        # What was wrong comes back beside its field.
        answers.append(await send(client, "/console/tenants/lago", version="2", **{"limits.ring_s": HOSTILE}))
        answers.append(await send(client, "/console/tenants/lago/toml", version="2", toml=HOSTILE))
        async with house.as_(None) as stranger:
            answers.append(await stranger.get("/console/login", params={"next": HOSTILE}))
            answers.append(
                await stranger.get("/console/visits", params={"resident": HOSTILE}, follow_redirects=True)
            )
        for answer in answers:
            assert answer.status_code < 500, answer.url
            assert problems_of(answer.text) == [], answer.url
            assert "<img src=x" not in answer.text and "<script>" not in answer.text, answer.url
            assert "49" not in re.findall(r"Ana [^<]{0,90}", answer.text), answer.url
            shown += "onerror" in answer.text
        assert shown >= 12  # it is there, as text
