"""An operator's morning in a real browser, on a computer and on a telephone."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from bridge.watch import Seen
from tests.chromium import DESKTOP, Chromium, NoChromium, install
from tests.console.furnished import PASSWORD, Furnished, furnished

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(600)]

NARROW = (320, 640)
BAD = "apartamento;morador;telefone\n201;Ana Souza;1001\n202;;1002\nabc;João Lima;1003\n"
GOOD = "apartamento;morador;telefone\n201;Ana Souza;1001\n202;Rui Lima;1002\n"


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    try:
        install()
    except NoChromium as error:
        pytest.skip(str(error))
    async with Chromium() as browser:
        yield browser


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Furnished]:
    async with furnished(tmp_path, visits=60) as there:
        yield there


async def log_in(page: Page, house: Furnished, login: str = "ana") -> None:
    await page.goto(f"{house.url}/console/")
    await page.get_by_label("Usuário").fill(login)
    await page.get_by_label("Senha").fill(PASSWORD)
    await page.get_by_role("button", name="Entrar").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ao vivo")


def happens(house: Furnished, visit: str, kind: str, at_ms: float, **data: object) -> None:
    """What a running visit would tell."""
    house.service.hub.watch(Seen(visit, at_ms, kind, data, "jardim"))


async def test_a_visit_is_followed_word_by_word(chromium: Chromium, house: Furnished) -> None:
    page = await chromium.page()
    await log_in(page, house)
    await expect(page.get_by_text("Ninguém no portão")).to_be_visible()
    await expect(page.locator("#line")).to_have_text("Ao vivo")
    visit = str(uuid4())
    happens(house, visit, "visit.started", 0, provider="openai", caller_id="Portão <9000>")
    happens(house, visit, "leg.connected", 10, leg="visitor", role="visitor")
    card = page.locator(f"#v-{visit}")
    await expect(card).to_be_visible()
    await expect(page.get_by_text("Ninguém no portão")).to_be_hidden()
    turn = {"leg": "visitor", "speaker": "agent", "text": "Bom dia!", "started_ms": 100, "ended_ms": 900}
    happens(house, visit, "turn", 900, **turn)
    await expect(card.get_by_text("Bom dia!")).to_be_visible()
    # Words are shown on their way, and a visitor's markup is words too.
    said = "Vim ver a <b>Ana</b>"
    happens(house, visit, "partial", 1500, leg="visitor", speaker="caller", text=said)
    await expect(card.get_by_text(said)).to_be_visible()
    happens(house, visit, "turn", 1600, **turn | {"speaker": "caller", "text": said})
    call = {"leg": "visitor", "call": "c1", "name": "lookup_apartment"}
    happens(house, visit, "tool.called", 1700, **call, arguments={"spoken": "501"})
    await expect(card.get_by_text("1 chamada de ferramenta")).to_be_visible()
    happens(house, visit, "decision", 9000, decision="authorized", evidence=[])
    await expect(card.get_by_text("Autorizado")).to_be_visible()
    # Hanging up asks first; nobody answers here, since no visit stands behind it.
    await card.get_by_role("button", name="Desligar").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("fica registrado")
    await dialog.get_by_role("button", name="Cancelar").click()
    await expect(dialog).to_be_hidden()
    house.service.hub.over(visit)  # type: ignore[arg-type]
    await expect(card).to_have_class(re.compile("over"))


async def test_settings_a_directory_and_the_list_of_visits(
    chromium: Chromium, house: Furnished, tmp_path: Path
) -> None:
    chromium.expect("status of 422")  # Chromium tells of every form that comes back
    page = await chromium.page()
    await log_in(page, house)
    await page.get_by_role("link", name="Condomínios").click()
    await page.get_by_role("link", name="Novo condomínio").click()
    await page.get_by_label("Identificador").fill("lago")
    await page.get_by_label("Nome", exact=True).fill("Residencial do Lago")
    await page.get_by_label("Provedor", exact=True).select_option("openai")
    await page.get_by_role("button", name="Criar").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("ago")

    # A mistake stands beside its field, which has the focus; then it is right.
    await page.goto(f"{house.url}/console/tenants/lago")
    kinds = page.get_by_label("Tipo de portão")
    await expect(page.get_by_label("Endereço (URL)")).to_be_hidden()
    await kinds.select_option("http")
    await page.get_by_label("Endereço (URL)").fill("10.0.0.9/open")
    ringing = page.get_by_label("Toque do telefone (s)")
    await ringing.fill("muito")
    await page.get_by_role("button", name="Salvar").click()
    await expect(page.get_by_role("alert")).to_contain_text("2 campos")
    await expect(ringing).to_be_focused()
    await expect(ringing).to_have_accessible_description(re.compile("permitido: um número a partir de 5"))
    await ringing.fill("20")
    await page.get_by_label("Endereço (URL)").fill("http://10.0.0.9/open")
    await page.get_by_role("button", name="Salvar").click()
    await expect(page.get_by_role("status")).to_contain_text("Salvo")

    # A directory with errors, then without.
    await page.goto(f"{house.url}/console/tenants/lago/directory/import")
    await page.get_by_label("Arquivo", exact=True).set_input_files(
        {"name": "moradores.csv", "mimeType": "text/csv", "buffer": BAD.encode()}
    )
    await page.get_by_role("button", name="Conferir").click()
    await expect(page.locator("#report")).to_contain_text("2 linhas não servem")
    await expect(page.locator("#report")).to_contain_text("linha 3")
    await page.get_by_label("Arquivo", exact=True).set_input_files(
        {"name": "moradores.csv", "mimeType": "text/csv", "buffer": GOOD.encode()}
    )
    await expect(page.locator("#report")).to_be_empty()
    await page.get_by_role("button", name="Conferir").click()
    await expect(page.locator("#report")).to_contain_text("2 novos")
    await page.get_by_role("button", name="Confirmar importação").click()
    await expect(page.get_by_role("status")).to_contain_text("importado")
    await expect(page.get_by_role("link", name="202")).to_be_visible()

    # The list: filtered, and taken along as it is filtered.
    await page.goto(f"{house.url}/console/visits")
    await page.get_by_label("Resultado").select_option("denied")
    await expect(page).to_have_url(re.compile(r"/visits\?outcome=denied$"))  # empty filters are left out
    rows = await page.locator("tbody tr").count()
    assert rows and await page.locator("tbody .badge.bad").count() >= rows
    async with page.expect_download() as download:
        await page.get_by_role("link", name="CSV").click()
    text = await asyncio.to_thread((await (await download.value).path()).read_text, "utf-8-sig")
    table = list(csv.DictReader(io.StringIO(text), delimiter=";"))
    assert len(table) == rows and {row["outcome"] for row in table} == {"denied"}

    # The log is checked, and says so.
    await page.goto(f"{house.url}/console/audit")
    await page.get_by_role("button", name="Verificar").click()
    await expect(page.locator("#verified")).to_contain_text("Íntegra", timeout=60_000)


async def test_every_page_fits_a_narrow_telephone_and_the_keyboard_reaches_it(
    chromium: Chromium, house: Furnished
) -> None:
    page = await chromium.page(size=NARROW)
    await log_in(page, house)
    await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("link", name="Visitas", exact=True).click()
    await expect(page).to_have_url(re.compile("/console/visits$"))
    for path in (
        "/", "/visits", "/charts", "/audit", "/tenants", "/tenants/jardim", "/tenants/jardim/history/1",
        "/tenants/jardim/directory", "/tenants/jardim/directory/apartments/101", "/tenants/jardim/standing",
        "/tenants/jardim/toml", "/tenants/new", "/operators", "/keys", "/account",
    ):  # fmt: skip
        await page.goto(f"{house.url}/console{path}")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW[0], (path, width)
    desk = await chromium.page(size=DESKTOP)
    await log_in(desk, house, "vera")
    await desk.keyboard.press("Tab")
    await expect(desk.get_by_text("Ir para o conteúdo")).to_be_focused()
    await desk.keyboard.press("Enter")
    await expect(desk).to_have_url(re.compile("#main$"))
