"""A real Chromium, Debian's own, for tests that use the console as people do.

It is driven by playwright, which downloads no browser here. It has no screen, its loudspeaker leads nowhere,
and its microphone plays a recording where the test wants one. A page that complains fails the test: an error
on its console, an exception, what the content security policy refuses, a request that the service fails at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Response,
    async_playwright,
)

from tests.machine import package_manager

PATIENCE_S = 30.0
"""How long a test waits for something on a page, unless it says otherwise: the machine is busy."""

DESKTOP = (1280, 800)
PHONE = (390, 844)
"""Width and height in CSS pixels."""

PACKAGES = ("chromium", "chromium-l10n")
"""Of Debian; without the second one a browser writes days as Americans do, whatever language it asks for."""

ARGUMENTS = (
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class NoChromium(Exception):
    """Chromium is not installed and can't be."""


def program() -> Path | None:
    """Where Chromium is."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    return None


def install() -> Path:
    """Where Chromium is; Debian's is installed where there is none and we are root.

    Raises:
        NoChromium: it can't be.
    """
    if (found := program()) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoChromium("Chromium is missing: apt-get install chromium")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with package_manager():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(
                ["apt-get", "--quiet", *arguments], env=quiet, capture_output=True, text=True, timeout=600
            )
            if done.returncode:
                raise NoChromium(f"apt-get {arguments[0]}: {done.stderr[-500:]}")
    if (found := program()) is None:
        raise NoChromium("Debian's package chromium has no program chromium")
    return found


class Chromium:
    """Opens pages, each in a browser of its own: with its own cookies, its own microphone.

    Use as an async context manager; at its end all pages are closed, and what they complained of fails the
    test.
    """

    def __init__(self) -> None:
        self._program = install()
        self._home = tempfile.TemporaryDirectory(prefix="porteiro-chromium-")
        self._playwright: Playwright | None = None
        self._browsers: list[Browser] = []
        self._expected: list[re.Pattern[str]] = []
        self.complaints: list[str] = []

    async def __aenter__(self) -> Self:
        self._playwright = await async_playwright().start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            for browser in self._browsers:
                await browser.close()
            if self._playwright is not None:
                await self._playwright.stop()
        finally:
            self._home.cleanup()
        if error is None and (unexpected := self.unexpected()):
            raise AssertionError("pages complained:\n" + "\n".join(unexpected))

    def expect(self, complaint: str) -> None:
        """The pages may complain so from now on; a regular expression that is found in it."""
        self._expected.append(re.compile(complaint))

    def unexpected(self) -> list[str]:
        """What the pages complained of and nobody expected."""
        return [each for each in self.complaints if not any(one.search(each) for one in self._expected)]

    async def context(
        self,
        microphone: Path | None = None,
        size: tuple[int, int] = DESKTOP,
        *,
        repeat: bool = False,
        language: str = "pt-BR",
        zone: str = "America/Sao_Paulo",
    ) -> BrowserContext:
        """A browser without cookies, in which pages are opened; all of them hear one microphone.

        Args:
            microphone: a WAV file that it plays from the moment when a page begins to listen, and silence
                after it; an absolute path. None: Chromium's own beeps.
            size: of the window, in CSS pixels. One as narrow as a phone's touches, and has two real pixels
                for each.
            repeat: play the file again and again.
            language: what the browser asks for.
            zone: the time zone that it is in.
        """
        assert self._playwright is not None, "use it as a context manager"
        arguments = [*ARGUMENTS, f"--lang={language}"]
        if microphone is not None:
            played = str(microphone) + ("" if repeat else "%noloop")
            arguments.append(f"--use-file-for-fake-audio-capture={played}")
        browser = await self._playwright.chromium.launch(
            executable_path=self._program,
            args=arguments,
            chromium_sandbox=os.geteuid() != 0,  # it refuses to run as root with one
            env={**os.environ, "HOME": self._home.name, "LANGUAGE": language.replace("-", "_")},
        )
        self._browsers.append(browser)
        touches = size[0] < 600
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            device_scale_factor=2 if touches else 1,
            is_mobile=touches,
            has_touch=touches,
            locale=language,
            timezone_id=zone,
            permissions=["microphone"],
        )
        context.set_default_timeout(PATIENCE_S * 1000)
        context.on("page", self._listen)
        return context

    async def page(
        self,
        microphone: Path | None = None,
        size: tuple[int, int] = DESKTOP,
        *,
        repeat: bool = False,
        language: str = "pt-BR",
        zone: str = "America/Sao_Paulo",
    ) -> Page:
        """An empty page in a browser of its own; the arguments are those of :meth:`context`."""
        context = await self.context(microphone, size, repeat=repeat, language=language, zone=zone)
        return await context.new_page()

    def _listen(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: exception: {error}"))
        page.on("response", self._on_response)
        page.on("crash", lambda _: self.complaints.append(f"{page.url}: the page crashed"))

    def _on_console(self, message: ConsoleMessage) -> None:
        # A violated content security policy is an error on the console too.
        if message.type == "error":
            where = message.location.get("url", "")
            self.complaints.append(f"{where}: console: {message.text}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.append(f"{response.url}: answered {response.status}")
