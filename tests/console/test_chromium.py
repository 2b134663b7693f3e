"""The browser of the tests: it complains where a page is broken, and plays recordings as a microphone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bridge.http.server import HttpServer
from tests.chromium import PHONE, Chromium, NoChromium, install

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

AUDIO = Path(__file__).resolve().parents[2] / "data" / "audio"
HEAD = '<meta name=viewport content="width=device-width"><link rel=icon href=data:,>'
POLICY = {"Content-Security-Policy": "default-src 'self'; img-src data:"}

LISTEN = """async () => {
    const stream = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: false,
        noiseSuppression: false, autoGainControl: false}});
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let loudest = 0;
    for (let i = 0; i < 40; i++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        analyser.getFloatTimeDomainData(samples);
        for (const sample of samples) loudest = Math.max(loudest, Math.abs(sample));
    }
    return [loudest, context.state];
}"""


def _page(body: str, status: int = 200) -> Response:
    return HTMLResponse(f"<!doctype html><title>x</title>{HEAD}{body}", status, POLICY)


def _app() -> Starlette:
    def good(_: Request) -> Response:
        return _page("<p id=said>tudo certo")

    def inline(_: Request) -> Response:
        return _page("<script>document.title = 'nobody allowed this'</script>")

    def fails(_: Request) -> Response:
        return _page("<p>", 500)

    return Starlette(routes=[Route("/good", good), Route("/inline", inline), Route("/fails", fails)])


@pytest.fixture
async def site() -> AsyncIterator[str]:
    server = HttpServer(_app(), ["127.0.0.1"], 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_a_page_is_seen_and_its_microphone_plays_the_recording(chromium: Chromium, site: str) -> None:
    page = await chromium.page(AUDIO / "v05-leticia.wav", PHONE)
    await page.goto(f"{site}/good")
    assert await page.locator("#said").text_content() == "tudo certo"
    assert await page.evaluate("[innerWidth, navigator.language]") == [PHONE[0], "pt-BR"]
    loudest, state = await page.evaluate(LISTEN)
    assert loudest > 0.05 and state == "running"


async def test_what_a_page_complains_of_is_known(site: str) -> None:
    async def violate() -> None:
        async with await asyncio.to_thread(Chromium) as chromium:
            page = await chromium.page()
            await page.goto(f"{site}/inline")
            assert await page.title() == "x"

    with pytest.raises(AssertionError, match="Content Security Policy"):
        await violate()
    async with await asyncio.to_thread(Chromium) as chromium:
        page = await chromium.page()
        await page.goto(f"{site}/fails")
        with pytest.raises(Exception, match="went wrong"):
            await page.evaluate("() => { console.error('one'); throw new Error('went wrong') }")
        assert any("answered 500" in each for each in chromium.unexpected())
        assert any("console: one" in each for each in chromium.unexpected())
        chromium.expect("500")
        chromium.expect("one$")
        assert chromium.unexpected() == []


def test_where_it_cant_be_installed_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoChromium, match="apt-get install chromium"):
        install()
