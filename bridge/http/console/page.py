"""Renders pages: the templates, what each of them is given, and the headers that guard a page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bridge.http.console.assets import Assets
from bridge.http.console.language import COOKIE, Language, choose, read_languages

ROOT: Final = "/console"
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every page: nothing from elsewhere, nothing written into the page itself, in nobody's frame."""


@dataclass(frozen=True)
class Notice:
    """One sentence above a page: what was done, or why not."""

    kind: str
    """`good`, `bad`, `warn` or `info`."""
    text: str


class Pages:
    """The templates, compiled once.

    A template has `t` (the texts, :class:`Language`), `static` (the address of a file), `path` (of this
    request), and what its page gives it.
    """

    def __init__(self) -> None:
        self.assets = Assets()
        self._languages = read_languages()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("bridge.http.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals["static"] = self.assets.path
        self._templates.filters["in_json"] = in_json
        self._templates.filters["named"] = named

    def language(self, request: Request) -> Language:
        """The one that is spoken with whoever asks."""
        code = choose(request.cookies.get(COOKIE), request.headers.get("accept-language"))
        return self._languages[code]

    def languages(self) -> list[Language]:
        """All."""
        return list(self._languages.values())

    async def show(
        self, request: Request, template: str, /, *, status: int = 200, **given: Any
    ) -> HTMLResponse:
        """A page. It is rendered in a thread: the event loop may carry calls."""
        given = {
            "t": self.language(request),
            "languages": self.languages(),
            "path": _here(request),
            **given,
        }
        text = await asyncio.to_thread(self._render, template, given)
        return HTMLResponse(text, status, HEADERS)

    def _render(self, template: str, given: Mapping[str, Any]) -> str:
        # In the thread too: the first time a template is compiled.
        return self._templates.get_template(template).render(given)


def in_json(value: Any) -> str:
    """A value of a record's as people read JSON; it is escaped like any other text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def named(value: str, t: Language, area: str) -> tuple[str, str]:
    """A value and the word for it, as a list of choices has them."""
    return value, t.of(area, value)


def see(path: str) -> Response:
    """After a form was taken: go and look there (303), so that reloading sends nothing twice."""
    return RedirectResponse(path, 303, {"referrer-policy": "same-origin"})


def local_path(text: str | None, otherwise: str = f"{ROOT}/") -> str:
    """A path of the console's, out of what a request names; ``otherwise`` where it leads anywhere else."""
    if not text or not text.startswith(f"{ROOT}/") or any(each in text for each in "\\\r\n\t"):
        return otherwise
    parts = urlsplit(text)
    return otherwise if parts.scheme or parts.netloc else text


def _here(request: Request) -> str:
    """What was asked for, where it can be asked for again."""
    if request.method != "GET":
        return f"{ROOT}/"
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
